"""The training loop, the only one: pixel and latent diffusion, classifiers and autoencoders all go through it.

A step is a pure function of (state, batch, key). Its key is ``fold_in(run key, step)``, so a resumed run repeats an
uninterrupted one bit for bit, and so does a run on another number of devices up to rounding.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, no_type_check

import grain
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.typing import ArrayLike

from diffpath_jax import optim, sharding
from diffpath_jax.build import TrainConfig
from diffpath_jax.checkpoint import Checkpoints
from diffpath_jax.errors import DiffpathError, ExitCode
from diffpath_jax.optim import OptimConfig
from diffpath_jax.progress import track
from diffpath_jax.shapes import Batch, PRNGKey, Tree
from diffpath_jax.task import Loss, Task
from diffpath_jax.writers import MetricsWriter

# A run stops after this many non-finite steps in a row; fewer are skipped and counted.
MAX_BAD_STEPS = 3


# JAX rebuilds this class around its own placeholders, which run-time type checks must let through.
@no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that a run knows, and all that a checkpoint holds besides the position in the data.

    Attributes:
        step: steps taken.
        params: parameters by group, float32.
        ema: their moving average; empty when none is kept.
        opt_state: optimiser state by group.
        model_state: what the network itself remembers (BatchNorm).
        bad_steps: non-finite steps in a row.
        skipped: non-finite steps in all.
        window: sums for the next line of metrics; kept here so that a resumed run logs the same line.
    """

    step: jax.Array
    params: Tree
    ema: Tree
    opt_state: Tree
    model_state: Tree
    bad_steps: jax.Array
    skipped: jax.Array
    window: Tree


# (state, batch, run key) -> (new state, its bad_steps once more: readable after the state itself is donated)
Step = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, jax.Array]]
# Called with (state); returns numbers for the log.
Hook = Callable[[TrainState], Mapping[str, float]]


def make_train_step(task: Task, config: OptimConfig, *, num_steps: int, log_every: int) -> Step:
    """One optimisation step of every parameter group.

    A step whose loss or gradient is not finite changes nothing but the counters.
    """
    optimizer = optim.make_optimizer(config, num_steps)
    relative = optim.relative_schedule(config, num_steps)

    def step(state: TrainState, batch: Batch, run_key: PRNGKey) -> tuple[TrainState, jax.Array]:
        key = jax.random.fold_in(run_key, state.step)
        params, opt_state, model_state = dict(state.params), dict(state.opt_state), state.model_state
        metrics: dict[str, jax.Array] = {"learning_rate": _once(config.learning_rate * relative(state.step))}
        finite = jnp.asarray(True)
        for number, (group, loss_fn) in enumerate(task.losses.items()):

            def of_group(
                own: Tree,
                model_state: Tree = model_state,
                group: str = group,
                loss_fn: Loss = loss_fn,
                loss_key: PRNGKey = jax.random.fold_in(key, number),  # noqa: B008
            ) -> tuple[jax.Array, dict[str, Any]]:
                return loss_fn({**params, group: own}, model_state, batch, loss_key)

            (loss, aux), grads = jax.value_and_grad(of_group, has_aux=True)(params[group])
            norm = optax.global_norm(grads)
            finite &= jnp.isfinite(loss) & jnp.isfinite(norm)
            updates, opt_state[group] = optimizer.update(grads, opt_state[group], params[group])
            params[group] = optax.apply_updates(params[group], updates)
            model_state = aux["model_state"]
            prefix = "" if len(task.losses) == 1 else f"{group}/"
            named = {"loss": _once(loss), "grad_norm": _once(norm), **aux["metrics"]}
            metrics |= {prefix + name: value for name, value in named.items()}
        ema = (
            optim.update_ema(state.ema, params, decay=config.ema_decay, step=state.step)
            if config.ema_decay
            else state.ema
        )
        moved = replace(state, params=params, ema=ema, opt_state=opt_state, model_state=model_state)
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, state)
        bad = (~finite).astype(jnp.int32)
        fresh = state.step % log_every == 0
        bad_steps = jnp.where(finite, 0, state.bad_steps + 1)
        taken = replace(
            kept,
            step=state.step + 1,
            bad_steps=bad_steps,
            skipped=state.skipped + bad,
            window={
                name: jnp.where(fresh, 0, state.window[name]) + jnp.where(finite, value, 0)
                for name, value in metrics.items()
            },
        )
        return taken, jnp.copy(bad_steps)

    return step


def _once(value: ArrayLike) -> jax.Array:
    """A number as (sum, weight) of one observation."""
    return jnp.stack([jnp.asarray(value, jnp.float32), jnp.ones((), jnp.float32)])


def init_state(task: Task, config: OptimConfig, *, key: PRNGKey, batch: Tree, num_steps: int) -> TrainState:
    """A fresh state; ``batch`` gives only shapes."""
    params, model_state = task.init(key)
    optimizer = optim.make_optimizer(config, num_steps)
    counter = jnp.zeros((), jnp.int32)
    names = ["learning_rate"]
    for group, loss_fn in task.losses.items():
        prefix = "" if len(task.losses) == 1 else f"{group}/"
        _, aux = jax.eval_shape(loss_fn, params, model_state, batch, key)
        names += [prefix + name for name in ("loss", "grad_norm", *aux["metrics"])]
    return TrainState(
        step=counter,
        params=params,
        ema=jax.tree.map(jnp.copy, params) if config.ema_decay else {},
        opt_state={group: optimizer.init(params[group]) for group in task.losses},
        model_state=model_state,
        bad_steps=counter,
        skipped=counter,
        window={name: jnp.zeros(2, jnp.float32) for name in names},
    )


def fit(
    task: Task,
    optim_config: OptimConfig,
    config: TrainConfig,
    *,
    batches: grain.DatasetIterator,
    batch_size: int,
    seed: int,
    workdir: Path,
    mesh: Mesh,
    hooks: Sequence[Hook] = (),
) -> TrainState:
    """Train to ``config.num_steps``, from the newest intact checkpoint of ``workdir`` if it has one.

    Args:
        task: what to learn.
        optim_config: optimiser.
        config: length, logging and checkpoint intervals.
        batches: this process's part of each global batch; moved to the checkpoint's position.
        batch_size: images of a global batch, for the progress display.
        seed: of parameters and noise.
        workdir: where checkpoints and metrics go.
        mesh: devices.
        hooks: called every ``config.eval_every`` steps.

    Raises:
        DiffpathError: the loss was not finite ``MAX_BAD_STEPS`` times in a row (exit code 6), or SIGTERM came
            (exit code 143, after a checkpoint).
    """
    checkpoints = Checkpoints(workdir, keep=config.keep_checkpoints)
    init_key, run_key = jax.random.split(jax.random.key(seed))
    state, step = _start(
        task, optim_config, config, checkpoints, batches=batches, batch_size=batch_size, key=init_key, mesh=mesh
    )
    step_fn = jax.jit(
        make_train_step(task, optim_config, num_steps=config.num_steps, log_every=config.log_every),
        donate_argnums=0,
    )
    writer = MetricsWriter(workdir, resume_step=step)
    shown = ""
    before = state.bad_steps.copy()
    total = config.num_steps * batch_size
    with (
        _sigterm_noticed() as terminated,
        track("train", total=total, done=step * batch_size, unit="img") as progress,
    ):
        try:
            while step < config.num_steps and not terminated.is_set():
                batch = sharding.shard_batch(next(batches), mesh)
                state, bad_steps = step_fn(state, batch, run_key)
                # The device works on this step while the host waits for the one before.
                _stop_if_diverged(workdir, step, before)
                before = bad_steps
                step += 1
                if step % config.log_every == 0:
                    values = _means(state.window)
                    shown = f"loss {values['loss']:.4f}" if "loss" in values else shown
                    writer.write(step, {**values, "skipped_steps": float(state.skipped)})
                if config.eval_every and step % config.eval_every == 0:
                    for hook in hooks:
                        writer.write(step, hook(state))
                if step % config.checkpoint_every == 0 or step == config.num_steps:
                    checkpoints.save(step, state, batches)
                progress.advance(batch_size, f"step {step} {shown}")
            _stop_if_diverged(workdir, step, before)
            if terminated.is_set():
                if step != (checkpoints.newest() or 0):
                    checkpoints.save(step, state, batches)
                raise DiffpathError(
                    "training",
                    where=workdir,
                    why=f"SIGTERM at step {step}; a checkpoint is saved",
                    fix="run the same command to go on",
                    code=ExitCode.TERMINATED,
                )
        finally:
            checkpoints.close()
            writer.close()
    return state


def _start(
    task: Task,
    optim_config: OptimConfig,
    config: TrainConfig,
    checkpoints: Checkpoints,
    *,
    batches: grain.DatasetIterator,
    batch_size: int,
    key: PRNGKey,
    mesh: Mesh,
) -> tuple[TrainState, int]:
    """A fresh state, or that of the newest intact checkpoint with ``batches`` moved to where it was."""
    # Look at one batch for its shapes without moving the data.
    position = batches.get_state()
    example = next(batches)
    batches.set_state(position)
    shapes = {
        name: jax.ShapeDtypeStruct((batch_size, *value.shape[1:]), value.dtype) for name, value in example.items()
    }

    def fresh_state(key: PRNGKey) -> TrainState:
        return init_state(task, optim_config, key=key, batch=shapes, num_steps=config.num_steps)

    state = jax.jit(fresh_state, out_shardings=sharding.replicated(mesh))(key)
    done = checkpoints.latest()
    checkpoints.discard_after(done or 0)
    if done is None:
        return state, 0
    state = checkpoints.restore(done, state, batches)
    # A user who goes on after divergence, with other settings, gets the full number of tries again.
    return replace(state, bad_steps=jnp.where(state.bad_steps < MAX_BAD_STEPS, state.bad_steps, 0)), done


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


@contextmanager
def _sigterm_noticed() -> Iterator[threading.Event]:
    """An event that SIGTERM sets; the step under way is finished first."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)
