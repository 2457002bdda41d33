"""Records of a run as it goes: metrics, previews, profiles, checkpoints; how often, and which are kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol, runtime_checkable

import jax
from pydantic import Field

from diffpath_jax.devices import hardware, processes
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.ranges import Natural, NonNegativeReal, Positive
from diffpath_jax.shapes import Tree
from diffpath_jax.training.budget import Budget
from diffpath_jax.training.checkpoint import Checkpoints
from diffpath_jax.training.clu_without_tensorflow import metric_writers
from diffpath_jax.training.loggers import TENSORBOARD
from diffpath_jax.training.optim import RatesFn
from diffpath_jax.training.patience import Patience
from diffpath_jax.training.profiling import StepProfile
from diffpath_jax.training.step import TrainState


@runtime_checkable
class Hook(Protocol):
    """Something to look at every ``train.eval_every`` steps."""

    def __call__(self, state: TrainState, /) -> Mapping[str, float]:
        """Returns numbers for the log."""
        ...


@dataclass(frozen=True)
class TrainConfig:
    """Length of a run and what it leaves behind.

    Attributes:
        num_steps: steps in all.
        minutes: end after so many minutes, should that be before ``num_steps``; schedules then follow the share of
            time or of steps that is used, whichever is more. Compiling, looks and checkpoints count; starts of a run
            share one budget. 0 for no such end, and a run that does not depend on the machine's speed.
        log_every: steps between two lines of metrics.
        checkpoint_every: steps between two checkpoints.
        eval_every: steps between two looks (diffusion: preview, stain drift, validation loss; classification:
            validation accuracy, plain and as the mean over classes); 0 for none.
        keep_checkpoints: newest checkpoints to keep (at least 2 are).
        keep_every: also keep each checkpoint whose step is a multiple of this; 0 for none.
        keep_best: also keep the checkpoint in which this metric was best: ``val_loss``, ``val_accuracy``,
            ``val_balanced_accuracy``, ``val_psnr`` or an ``FD-NAME`` or ``FID``; empty for none.
        patience: looks in a row in which ``keep_best`` was not better, after which the run ends early; 0 for none.
        fd_images: images drawn at each look for a Frechet distance; 0 for none.
        fd_features: network that it is measured in, as ``diffpath eval --features`` takes it.
        init_from: parameters to start from: a safetensors file of ``diffpath convert`` or ``diffpath export``, or a
            run directory; empty for a fresh start.
        loggers: what shows the metrics besides ``metrics.jsonl``: ``tensorboard``, ``wandb``, ``trackio``.
        profile_at: step after which the next few are profiled, into ``tensorboard/plugins/profile``; 0 for none.
        fsdp: devices over which parameters and optimiser are split; changes memory, not results.
    """

    num_steps: Positive
    log_every: Positive
    checkpoint_every: Positive
    minutes: NonNegativeReal = 0.0
    eval_every: Natural = 0
    keep_checkpoints: Annotated[int, Field(ge=2, le=100_000)] = 2
    keep_every: Natural = 0
    keep_best: str = ""
    patience: Natural = 0
    fd_images: Natural = 0
    fd_features: str = ""
    init_from: str = ""
    loggers: tuple[str, ...] = (TENSORBOARD,)
    profile_at: Natural = 0
    fsdp: Positive = 1


@dataclass
class RunRecorder:
    """Writes what a run leaves behind: metrics, previews and numbers of the hooks, profiles, checkpoints.

    Attributes:
        config: intervals.
        workdir: directory of the run.
        checkpoints: of the run.
        writer: metrics log; none in all processes but the first.
        profile: called after each step.
        hooks: called every ``config.eval_every`` steps.
        speed: knows the steps since the last line of the log.
        patience: looks without anything better, after which the run ends.
        rates: learning rates besides AdamW's over some steps, for the log.
        budget: time, after which the run ends.
        note: newest loss, for the progress display.
        is_patience_over: true where all processes agree that they are too many.
    """

    config: TrainConfig
    workdir: Path
    checkpoints: Checkpoints
    writer: metric_writers.MetricWriter | None
    profile: StepProfile
    hooks: tuple[Hook, ...]
    speed: hardware.Throughput
    patience: Patience
    rates: RatesFn
    budget: Budget
    note: str = ""
    is_patience_over: bool = False

    def recall(self, step: int) -> None:
        """Take up what was logged up to the step that the run goes on from."""
        self.patience.recall(self.workdir, step=step)
        self._agree()

    def _agree(self) -> None:
        """All processes end with the first one."""
        self.is_patience_over = bool(self.config.patience and processes.agreed(int(self.patience.over)))

    def is_done(self, step: int) -> bool:
        """Returns true where the run ends with this step."""
        return self.is_patience_over or self.budget.is_over or step == self.config.num_steps

    def after(self, step: int, state: TrainState) -> str:
        """Log, look and save as the config says; returns a note for the progress display."""
        config = self.config
        if step % config.log_every == 0:
            values = _means(state.window)
            self.note = f"loss {values['loss']:.4f}" if "loss" in values else self.note
            values |= self.rates(range(max(0, step - config.log_every), step))
            self._write(step, {**values, "skipped_steps": float(state.skipped), **self.speed.lap()})
        measured: dict[str, float] = {}
        with self.speed.pause():
            if config.eval_every and step % config.eval_every == 0:
                for hook in self.hooks:
                    measured |= hook(state)
                self._write(step, measured)
                self.patience.look(measured)
                self._agree()
            if step % config.checkpoint_every == 0 or self.is_done(step):
                self._flush()
                self.checkpoints.save(step, state, measured)
            self.profile(step)
        return f"step {step} {self.note}"

    def stop(self, step: int, state: TrainState) -> None:
        """Save what is not saved yet, and end the program; :meth:`close` seals it.

        Raises:
            DiffpathError: always (exit code 143).
        """
        if step != (self.checkpoints.newest() or 0):
            self._flush()
            self.checkpoints.save(step, state)
        raise DiffpathError(
            "training",
            where=self.workdir,
            why=f"SIGTERM at step {step}; a checkpoint is saved",
            fix="run the same command to go on",
            code=ExitCode.TERMINATED,
        )

    def close(self) -> None:
        """Seal what is being written and let go."""
        self.checkpoints.close()
        if self.writer is not None:
            self.writer.close()
        self.profile.close()

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        if self.writer is not None:
            self.writer.write_scalars(step, values)

    def _flush(self) -> None:
        """The log must be written before a checkpoint: a resumed run goes on after it."""
        if self.writer is not None:
            self.writer.flush()


def _means(window: Tree) -> dict[str, float]:
    sums = jax.device_get(window)
    return {name: float(total / weight) for name, (total, weight) in sums.items() if weight > 0}
