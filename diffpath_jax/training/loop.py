"""The training loop, the only one: pixel and latent diffusion, classifiers and autoencoders all go through it."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from pydantic import Field

from diffpath_jax.devices import hardware, processes, sharding
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.progress import track
from diffpath_jax.ranges import Positive
from diffpath_jax.shapes import PRNGKey, Tree
from diffpath_jax.training.checkpoint import Checkpoints
from diffpath_jax.training.metrics_log import MetricsWriter
from diffpath_jax.training.optim import OptimConfig
from diffpath_jax.training.patience import Patience
from diffpath_jax.training.step import Step, TrainState, init_state, loop_turns, make_train_step
from diffpath_jax.training.tasks.task import Task

# Number of the first batch -> this process's part of each batch from there on, without end.
Batches = Callable[[int], Iterator[dict[str, np.ndarray]]]
# Called with (state); returns numbers for the log.
Hook = Callable[[TrainState], Mapping[str, float]]
# A run stops after this many non-finite steps in a row; fewer are skipped and counted.
MAX_BAD_STEPS = 3


@dataclass(frozen=True)
class TrainConfig:
    """Length of a run and what it leaves behind.

    Attributes:
        num_steps: steps in all.
        log_every: steps between two lines of metrics.
        checkpoint_every: steps between two checkpoints.
        eval_every: steps between two looks (diffusion: preview, stain drift, validation loss; classification:
            validation accuracy); 0 for none.
        keep_checkpoints: newest checkpoints to keep (at least 2 are).
        keep_every: also keep each checkpoint whose step is a multiple of this; 0 for none.
        keep_best: also keep the checkpoint in which this metric was best: ``val_loss``, ``val_accuracy``, ``val_psnr``
            or an ``FD-NAME`` or ``FID``; empty for none.
        patience: looks in a row in which ``keep_best`` was not better, after which the run ends early; 0 for none.
        fd_images: images drawn at each look for a Frechet distance; 0 for none.
        fd_features: what it is measured in: what ``diffpath eval --features`` takes.
        init_from: parameters to start from: a safetensors file of ``diffpath convert`` or ``diffpath export``, or a
            run directory; empty for a fresh start.
        fsdp: devices over which parameters and optimiser are split; changes memory, not results.
    """

    num_steps: Positive
    log_every: Positive
    checkpoint_every: Positive
    eval_every: Annotated[int, Field(ge=0)] = 0
    keep_checkpoints: Annotated[int, Field(ge=2)] = 2
    keep_every: Annotated[int, Field(ge=0)] = 0
    keep_best: str = ""
    patience: Annotated[int, Field(ge=0)] = 0
    fd_images: Annotated[int, Field(ge=0)] = 0
    fd_features: str = ""
    init_from: str = ""
    fsdp: Positive = 1


@dataclass(frozen=True)
class Start:
    """What a run starts from; groups and names that are not here start afresh.

    Attributes:
        params: parameters by group, on the host.
        model_state: running statistics by name, on the host.
    """

    params: Tree
    model_state: Tree


def fit(
    task: Task,
    optim_config: OptimConfig,
    config: TrainConfig,
    *,
    batches: Batches,
    batch_size: int,
    seed: int,
    workdir: Path,
    mesh: Mesh,
    hooks: Sequence[Hook] = (),
    initial: Callable[[], Start | None] = lambda: None,
    peak: float = 0.0,
    meaning: str = "",
) -> TrainState:
    """Train to ``config.num_steps``, or until ``config.patience`` is over.

    A run starts from, in this order: the newest intact checkpoint of ``workdir``; what ``initial`` gives; the task's
    own initialisation.

    Args:
        task: what to learn.
        optim_config: optimiser.
        config: length, logging and checkpoint intervals.
        batches: this process's part of the data.
        batch_size: images of a global batch.
        seed: of parameters and noise.
        workdir: where checkpoints and metrics go.
        mesh: devices.
        hooks: called every ``config.eval_every`` steps.
        initial: gives what to start from, or none.
        peak: FLOP a second of all devices together, for the log.
        meaning: digest of what the parameters mean; checkpoints of another meaning are not read.

    Raises:
        DiffpathError: the loss was not finite ``MAX_BAD_STEPS`` times in a row (exit code 6), or SIGTERM came
            (exit code 143, after a checkpoint).
    """
    checkpoints = Checkpoints(
        workdir,
        keep=config.keep_checkpoints,
        keep_every=config.keep_every,
        keep_best=config.keep_best,
        meaning=meaning,
    )
    init_key, run_key = jax.random.split(jax.random.key(seed))
    with processes.stop_noticed() as must_stop:
        done = checkpoints.latest()
        checkpoints.discard_after(done or 0)
        step = done or 0
        data = batches(step)
        first = next(data)
        shapes = _global_shapes(first, batch_size, mesh)
        state = _start(task, optim_config, config, checkpoints, done, shapes, key=init_key, mesh=mesh, initial=initial)
        given = jax.tree.map(lambda array: sharding.from_host(np.asarray(array), sharding.replicated(mesh)), task.given)
        step_fn, flops = _compile(task, optim_config, config, state, shapes, run_key, given, mesh)
        keeper = _Keeper(
            config=config,
            workdir=workdir,
            checkpoints=checkpoints,
            writer=MetricsWriter(workdir, resume_step=step) if processes.is_first() else None,
            hooks=hooks,
            speed=hardware.Throughput(images=batch_size, flops=flops, peak=peak),
            patience=Patience(config.keep_best, config.patience),
        )
        keeper.recall(step)
        before = state.bad_steps.copy()
        total = config.num_steps * batch_size
        with closing(keeper), track("train", total=total, done=step * batch_size, unit="img") as progress:
            for batch in sharding.prefetch(itertools.chain([first], data), mesh):
                if keeper.is_done(step):
                    break
                state, bad_steps = step_fn(state, batch, run_key, given)
                # The devices work on this step while the host waits for the one before.
                _stop_if_diverged(workdir, step, before)
                before = bad_steps
                step += 1
                shown = keeper.after(step, state)
                progress.advance(batch_size, f"step {step} {shown}")
                if must_stop(step):
                    _stop_if_diverged(workdir, step, before)
                    keeper.stop(step, state)
            _stop_if_diverged(workdir, step, before)
    return state


@dataclass
class _Keeper:
    """What a run leaves behind while it goes: metrics, what the hooks write, checkpoints."""

    config: TrainConfig
    workdir: Path
    checkpoints: Checkpoints
    writer: MetricsWriter | None
    hooks: Sequence[Hook]
    speed: hardware.Throughput
    patience: Patience
    shown: str = ""
    enough: bool = False

    def recall(self, step: int) -> None:
        """Take up what was logged up to the step that the run goes on from."""
        self.patience.recall(self.workdir, step=step)
        self._agree()

    def _agree(self) -> None:
        """All processes end with the first one."""
        self.enough = bool(self.config.patience and processes.agreed(int(self.patience.over)))

    def is_done(self, step: int) -> bool:
        """Whether the run ends with this step."""
        return self.enough or step == self.config.num_steps

    def after(self, step: int, state: TrainState) -> str:
        """Log, look and save as the config says; a word for the progress display."""
        config = self.config
        self.speed.count()
        if step % config.log_every == 0:
            values = _means(state.window)
            self.shown = f"loss {values['loss']:.4f}" if "loss" in values else self.shown
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
                self.checkpoints.save(step, state, measured)
        return self.shown

    def stop(self, step: int, state: TrainState) -> None:
        """Save what is not saved yet, and end the program; :meth:`close` seals it.

        Raises:
            DiffpathError: always (exit code 143).
        """
        if step != (self.checkpoints.newest() or 0):
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

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        if self.writer is not None:
            self.writer.write(step, values)


def _global_shapes(part: Mapping[str, np.ndarray], batch_size: int, mesh: Mesh) -> Tree:
    """Shapes of the global batch that this process's ``part`` belongs to."""
    sharding_of_batch = sharding.batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct((batch_size, *value.shape[1:]), value.dtype, sharding=sharding_of_batch)
        for name, value in part.items()
    }


def _start(
    task: Task,
    optim_config: OptimConfig,
    config: TrainConfig,
    checkpoints: Checkpoints,
    done: int | None,
    batch: Tree,
    *,
    key: PRNGKey,
    mesh: Mesh,
    initial: Callable[[], Start | None],
) -> TrainState:
    """The state of checkpoint ``done``, or a fresh one, on the devices it belongs to."""

    def fresh_state(key: PRNGKey) -> TrainState:
        return init_state(task, optim_config, key=key, batch=batch, num_steps=config.num_steps)

    shapes = jax.eval_shape(fresh_state, key)
    places = sharding.state_shardings(shapes, mesh)
    if done is not None:
        like = jax.tree.map(lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p), shapes, places)
        state = checkpoints.restore(done, like)
        # A user who goes on after divergence, with other settings, gets the full number of tries again.
        return replace(state, bad_steps=jnp.where(state.bad_steps < MAX_BAD_STEPS, state.bad_steps, 0))
    state = jax.jit(fresh_state, out_shardings=places, compiler_options=hardware.options_for_one_call())(key)
    start = initial()
    if start is None:
        return state
    params = {**state.params, **_placed(start.params, places.params)}
    model_state = {**state.model_state, **_placed(start.model_state, places.model_state)}
    ema = jax.tree.map(jnp.copy, params) if optim_config.ema_decay else {}
    return replace(state, params=params, model_state=model_state, ema=ema)


def _placed(groups: Tree, places: Tree) -> Tree:
    """Arrays of the host on the devices that they belong to."""
    return {
        name: jax.tree.map(sharding.from_host, jax.tree.map(np.asarray, tree), places[name])
        for name, tree in groups.items()
    }


def _compile(
    task: Task,
    optim_config: OptimConfig,
    config: TrainConfig,
    state: TrainState,
    batch: Tree,
    key: PRNGKey,
    given: Tree,
    mesh: Mesh,
) -> tuple[Step, float]:
    """The compiled step, which reuses the memory of the state it is given, and the FLOP it takes (0 if unknown)."""
    step = make_train_step(task, optim_config, num_steps=config.num_steps, log_every=config.log_every)
    places = jax.tree.map(lambda array: array.sharding, state)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(places, sharding.replicated(mesh)))
    lowered = jitted.lower(state, batch, key, given)
    cost = lowered.cost_analysis() or {}
    return lowered.compile(), float(cost.get("flops", 0.0)) * loop_turns(optim_config.accumulate)


def _means(window: Tree) -> dict[str, float]:
    sums = jax.device_get(window)
    return {name: float(total / weight) for name, (total, weight) in sums.items() if weight > 0}


def _stop_if_diverged(workdir: Path, step: int, bad_steps: jax.Array) -> None:
    if int(bad_steps) >= MAX_BAD_STEPS:
        first = step - MAX_BAD_STEPS + 1
        raise DiffpathError(
            "loss",
            where=workdir,
            why=f"not finite in steps {first} to {step} (batches {first - 1} to {step - 1} of the data order)",
            fix="lower optim.learning_rate or set optim.clip_norm; the last checkpoint is finite",
            code=ExitCode.DIVERGED,
        )
