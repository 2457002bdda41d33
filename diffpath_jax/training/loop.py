"""The training loop, the only one: pixel and latent diffusion, classifiers and autoencoders all go through it."""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview
from jax.sharding import Mesh

from diffpath_jax.devices import hardware, processes, sharding
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import write_text
from diffpath_jax.io.progress import track
from diffpath_jax.shapes import PRNGKey, Tree
from diffpath_jax.training.budget import Budget
from diffpath_jax.training.checkpoint import Checkpoints
from diffpath_jax.training.loggers import TENSORBOARD
from diffpath_jax.training.metrics_log import open_log
from diffpath_jax.training.optim import OptimConfig, further_rates
from diffpath_jax.training.patience import Patience
from diffpath_jax.training.profiling import StepProfile
from diffpath_jax.training.programs import StepPrograms
from diffpath_jax.training.recorder import Hook, RunRecorder, TrainConfig
from diffpath_jax.training.step import TrainState, init_state, loop_turns, make_train_step
from diffpath_jax.training.tasks.task import Task


@runtime_checkable
class BatchesFn(Protocol):
    """This process's part of the data."""

    def __call__(self, start: int, /) -> Iterator[dict[str, np.ndarray]]:
        """Returns this process's part of each batch from number ``start`` on, without end."""
        ...


# Names, shapes and sizes of what a run trains.
PARAMETERS = "parameters.txt"
# A run stops after this many non-finite steps in a row; fewer are skipped and counted.
MAX_BAD_STEPS = 3


@dataclass(frozen=True)
class Start:
    """Weights that a run starts from; groups and names that are not here start afresh.

    Attributes:
        params: parameters by group, on the host.
        model_state: running statistics by name, on the host.
    """

    params: Tree
    model_state: Tree


@runtime_checkable
class StartFn(Protocol):
    """Gives what a new run starts from."""

    def __call__(self) -> Start | None:
        """Returns it, or none for the task's own initialisation."""


def no_start() -> None:
    """Returns none: the task's own initialisation."""


@dataclass(frozen=True)
class Trainer:
    """A training run, before it begins.

    Attributes:
        task: parameters and losses.
        optim: optimiser.
        config: length, logging and checkpoint intervals.
        batches: this process's part of the data.
        batch_size: images of a global batch.
        seed: random seed of parameters and noise.
        workdir: directory of checkpoints and metrics.
        mesh: devices.
        hooks: called every ``config.eval_every`` steps.
        start: gives what a new run starts from.
        peak: FLOP a second of all devices together, for the log; 0 where unknown.
        compatibility_digest: digest of what decides what the parameters mean; checkpoints of another are not read.
    """

    task: Task
    optim: OptimConfig
    config: TrainConfig
    batches: BatchesFn
    batch_size: int
    seed: int
    workdir: Path
    mesh: Mesh
    hooks: tuple[Hook, ...] = ()
    start: StartFn = no_start
    peak: float = 0.0
    compatibility_digest: str = ""

    def fit(self) -> TrainState:
        """Train to ``config.num_steps``, or until ``config.patience`` or ``config.minutes`` are over.

        A run starts from, in this order: the newest intact checkpoint of ``workdir``; ``start``; the task's
        own initialisation.

        Returns:
            The state after the last step.

        Raises:
            DiffpathError: the loss was not finite ``MAX_BAD_STEPS`` times in a row (exit code 6), or SIGTERM came
                (exit code 143, after a checkpoint).
        """
        checkpoints, budget = self._checkpoints(), Budget(self.config.minutes)
        init_key, run_key = jax.random.split(jax.random.key(self.seed))
        with processes.stop_noticed() as must_stop:
            restored = checkpoints.latest()
            checkpoints.discard_after(restored or 0)
            step = restored or 0
            data = self.batches(step)
            first = next(data)
            shapes = self._batch_shapes(first)
            state = self._start(checkpoints, restored, shapes, init_key)
            frozen_params = jax.tree.map(self._replicate, self.task.frozen_params)
            programs = StepPrograms(self._lower, turns=loop_turns(self.optim.accumulate))
            programs.of(state, shapes, run_key, frozen_params)
            recorder = self._recorder(checkpoints, state, budget)
            bad_steps_before = state.bad_steps.copy()
            size, end = self.batch_size, self.config.num_steps
            progress_bar = track("train", total=end * size, done=step * size, unit="img")
            with closing(recorder), progress_bar as progress:
                for batch in sharding.prefetch(itertools.chain([first], data), self.mesh):
                    if recorder.is_done(step):
                        break
                    with recorder.speed.pause():
                        program = programs.of(state, batch, run_key, frozen_params)
                    with jax.profiler.StepTraceAnnotation("train", step_num=step + 1):
                        state = replace(state, opt_state=budget.charge(state.opt_state))
                        state, bad_steps = program.step(state, batch, run_key, frozen_params)
                    # The devices work on this step while the host waits for the one before.
                    self._stop_if_diverged(step, bad_steps_before)
                    bad_steps_before = bad_steps
                    step += 1
                    recorder.speed.count(program.flops)
                    progress.advance(size, recorder.after(step, state))
                    if must_stop(step):
                        self._stop_if_diverged(step, bad_steps_before)
                        recorder.stop(step, state)
                self._stop_if_diverged(step, bad_steps_before)
        return state

    def _checkpoints(self) -> Checkpoints:
        return Checkpoints(
            self.workdir,
            keep=self.config.keep_checkpoints,
            keep_every=self.config.keep_every,
            keep_best=self.config.keep_best,
            compatibility_digest=self.compatibility_digest,
        )

    def _recorder(self, checkpoints: Checkpoints, state: TrainState, budget: Budget) -> RunRecorder:
        """Returns the recorder of a run that goes on from ``state``, whose parameters it lists in a file."""
        budget.recall(state.opt_state)
        budget.say_compiled()
        is_first = processes.is_first()
        if is_first:
            overview = parameter_overview.get_parameter_overview(state.params, include_stats=False)
            write_text(self.workdir / PARAMETERS, overview + "\n")
        recorder = RunRecorder(
            config=self.config,
            workdir=self.workdir,
            checkpoints=checkpoints,
            writer=open_log(self.workdir, resume_step=int(state.step), loggers=self.config.loggers)
            if is_first
            else None,
            profile=StepProfile(self.workdir / TENSORBOARD, after=self.config.profile_at if is_first else 0),
            hooks=self.hooks,
            speed=hardware.Throughput(images=self.batch_size, peak=self.peak),
            patience=Patience(self.config.keep_best, self.config.patience),
            # Under a budget AdamW's own rate tells the others, which are in proportion to it.
            rates=(lambda steps: {}) if budget.minutes else further_rates(self.optim, self.config.num_steps),
            budget=budget,
        )
        recorder.recall(int(state.step))
        return recorder

    def _replicate(self, array: np.ndarray) -> jax.Array:
        """Returns an array of the host on every device."""
        return sharding.from_host(np.asarray(array), sharding.replicated(self.mesh))

    def _batch_shapes(self, part: Mapping[str, np.ndarray]) -> Tree:
        """Returns the shapes of the global batch that this process's ``part`` belongs to."""
        place = sharding.batch_sharding(self.mesh)
        return {
            name: jax.ShapeDtypeStruct((self.batch_size, *value.shape[1:]), value.dtype, sharding=place)
            for name, value in part.items()
        }

    def _start(self, checkpoints: Checkpoints, restored: int | None, batch: Tree, key: PRNGKey) -> TrainState:
        """Returns the state of checkpoint ``restored``, or a fresh one, on the devices it belongs to."""

        def fresh_state(key: PRNGKey) -> TrainState:
            steps, minutes = self.config.num_steps, self.config.minutes
            return init_state(self.task, self.optim, key=key, batch=batch, num_steps=steps, minutes=minutes)

        shapes = jax.eval_shape(fresh_state, key)
        places = sharding.state_shardings(shapes, self.mesh)
        if restored is not None:
            like = jax.tree.map(lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p), shapes, places)
            state = checkpoints.restore(restored, like)
            # A user who goes on after divergence, with other settings, gets the full number of tries again.
            return replace(state, bad_steps=jnp.where(state.bad_steps < MAX_BAD_STEPS, state.bad_steps, 0))
        state = jax.jit(fresh_state, out_shardings=places, compiler_options=hardware.options_for_one_call())(key)
        start = self.start()
        if start is None:
            return state
        params = {**state.params, **_placed(start.params, places.params)}
        model_state = {**state.model_state, **_placed(start.model_state, places.model_state)}
        ema = jax.tree.map(jnp.copy, params) if self.optim.ema_decay else {}
        return replace(state, params=params, model_state=model_state, ema=ema)

    def _lower(self, state: TrainState, batch: Tree, key: PRNGKey, frozen_params: Tree) -> jax.stages.Lowered:
        """Returns the traced step for batches of such shapes."""
        return lower_step(self.task, self.optim, self.config, mesh=self.mesh, inputs=(state, batch, key, frozen_params))

    def _stop_if_diverged(self, step: int, bad_steps: jax.Array) -> None:
        if int(bad_steps) >= MAX_BAD_STEPS:
            first = step - MAX_BAD_STEPS + 1
            raise DiffpathError(
                "loss",
                where=self.workdir,
                why=f"not finite in steps {first} to {step} (batches {first - 1} to {step - 1} of the data order)",
                fix="lower optim.learning_rate or set optim.clip_norm; the last checkpoint is finite",
                code=ExitCode.DIVERGED,
            )


def lower_step(
    task: Task, optim: OptimConfig, config: TrainConfig, *, mesh: Mesh, inputs: tuple[TrainState, Tree, Any, Tree]
) -> jax.stages.Lowered:
    """Returns the traced step, which reuses the memory of the state that it is called with.

    Args:
        task: what to learn.
        optim: optimiser.
        config: length and logging interval.
        mesh: devices.
        inputs: state, global batch, key of the run and ``task.frozen_params``: arrays, or shapes with shardings.
    """
    step = make_train_step(task, optim, num_steps=config.num_steps, log_every=config.log_every, minutes=config.minutes)
    places = jax.tree.map(lambda array: array.sharding, inputs[0])
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(places, sharding.replicated(mesh)))
    return jitted.lower(*inputs)


def _placed(groups: Tree, places: Tree) -> dict[str, Tree]:
    """Arrays of the host on the devices that they belong to."""
    return {
        name: jax.tree.map(sharding.from_host, jax.tree.map(np.asarray, tree), places[name])
        for name, tree in groups.items()
    }
