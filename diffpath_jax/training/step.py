"""One training step: a pure function of (state, batch, key), for every task.

Its key is ``fold_in(run key, step)``, so a resumed run repeats an uninterrupted one bit for bit, and so does a run on
another number of devices up to rounding.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, no_type_check, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from diffpath_jax.networks import target
from diffpath_jax.shapes import Batch, PRNGKey, Scalar, Tree, Weighted
from diffpath_jax.training import optim, posthoc_ema
from diffpath_jax.training.budget import SECONDS
from diffpath_jax.training.optim import OptimConfig
from diffpath_jax.training.posthoc_ema import TRACES
from diffpath_jax.training.tasks.task import LossAux, LossFn, Task


# JAX rebuilds this class around its own placeholders, which run-time type checks must let through.
@no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that a run knows, and all that a checkpoint holds. ``step`` is also the position in the data.

    Attributes:
        step: steps taken.
        params: parameters by group, float32.
        ema: their moving average; empty when none is kept.
        opt_state: optimiser state by group; under ``TRACES`` the averages of ``ema_lengths`` by length, where such are
            kept, and under ``SECONDS`` the time used, where there is a budget (there, and not beside, so that
            checkpoints without them stay what they are).
        model_state: other arrays that last from step to step, by name (BatchNorm statistics, losses by timestep).
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


@runtime_checkable
class Step(Protocol):
    """One optimisation step."""

    def __call__(
        self, state: TrainState, batch: Batch, run_key: PRNGKey, frozen_params: Tree | None = None, /
    ) -> tuple[TrainState, jax.Array]:
        """Returns the new state, and its ``bad_steps`` once more: readable after the state is donated.

        Args:
            state: before the step.
            batch: images or latents, and labels.
            run_key: random key of the whole run.
            frozen_params: parameters by group that are read and not trained.
        """
        ...


@runtime_checkable
class GroupLossFn(Protocol):
    """The loss as a function of one group's parameters."""

    def __call__(self, own: Tree, model_state: Tree, batch: Batch, key: PRNGKey, /) -> tuple[Scalar, LossAux]:
        """Returns the loss and what comes with it."""
        ...


@runtime_checkable
class Descent(Protocol):
    """The descent of every parameter group."""

    def __call__(
        self, state: TrainState, batch: Batch, key: PRNGKey, frozen_params: Tree, /
    ) -> tuple[TrainState, dict[str, Weighted], jax.Array]:
        """Returns the state with other parameters, numbers for the log, and whether all was finite."""
        ...


def make_train_step(task: Task, config: OptimConfig, *, num_steps: int, log_every: int, minutes: float = 0.0) -> Step:
    """Returns the optimisation step of every parameter group.

    A step whose loss or gradient is not finite changes nothing but the counters.

    Args:
        task: what to learn.
        config: optimiser.
        num_steps: steps of the run, which schedules follow.
        log_every: steps of a line of metrics.
        minutes: time of the run; above 0 schedules follow the share of it that ``SECONDS`` of the optimiser state is,
            where that is more than the share of steps.
    """
    descend = _descent(task, config, num_steps=num_steps, minutes=minutes)

    def step(
        state: TrainState, batch: Batch, run_key: PRNGKey, frozen_params: Tree | None = None
    ) -> tuple[TrainState, jax.Array]:
        moved, metrics, finite = descend(state, batch, jax.random.fold_in(run_key, state.step), frozen_params or {})
        ema = moved.ema
        if config.ema_decay:
            ema = optim.update_ema(ema, moved.params, decay=config.ema_decay, step=state.step)
        params, ema, model_state = task.after_step(moved.params, ema, moved.model_state)
        opt_state = _with_traces(moved.opt_state, params, step=state.step)
        moved = replace(moved, params=params, ema=ema, opt_state=opt_state, model_state=model_state)
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, state)
        bad_steps = jnp.where(finite, 0, state.bad_steps + 1)
        taken = replace(
            kept,
            step=state.step + 1,
            bad_steps=bad_steps,
            skipped=state.skipped + (~finite).astype(jnp.int32),
            window=_window(state, metrics, finite, log_every=log_every),
        )
        return taken, jnp.copy(bad_steps)

    return step


def _with_traces(opt_state: Tree, params: Tree, *, step: jax.Array) -> Tree:
    """Returns the state with the averages of ``ema_lengths``, if there are such, moved to the new parameters."""
    if TRACES not in opt_state:
        return opt_state
    traces = {
        length: posthoc_ema.update(trace, params, length=float(length), step=step)
        for length, trace in opt_state[TRACES].items()
    }
    return {**opt_state, TRACES: traces}


def _descent(task: Task, config: OptimConfig, *, num_steps: int, minutes: float) -> Descent:
    """Returns the descent of every parameter group along the gradient of its loss, one group after the other."""
    optimizer = _optimizer(config, num_steps=num_steps, minutes=minutes)
    relative = optim.relative_schedule(config, num_steps)

    def descend(
        state: TrainState, batch: Batch, key: PRNGKey, frozen_params: Tree
    ) -> tuple[TrainState, dict[str, Weighted], jax.Array]:
        params, opt_state, model_state = dict(state.params), dict(state.opt_state), state.model_state
        scale = relative(_scheduled_step(state, num_steps=num_steps, minutes=minutes))
        metrics = {"learning_rate": _once(config.learning_rate * scale)}
        finite = jnp.asarray(True)
        for number, (group, loss_fn) in enumerate(task.losses.items()):
            loss, aux, grads = _gradient(
                _of_group(loss_fn, {**frozen_params, **params}, group),
                params[group],
                model_state,
                batch,
                jax.random.fold_in(key, number),
                parts=config.accumulate,
            )
            norm = optax.global_norm(grads)
            finite &= jnp.isfinite(loss) & jnp.isfinite(norm)
            updates, opt_state[group] = optimizer.update(grads, opt_state[group], params[group])
            if minutes:
                updates = jax.tree.map(lambda update: scale * update, updates)
            params[group] = optax.apply_updates(params[group], updates)
            model_state = aux["model_state"]
            named = {"loss": _once(loss), "grad_norm": _once(norm), **aux["metrics"]}
            metrics |= {_prefix(task, group) + name: value for name, value in named.items()}
        return replace(state, params=params, opt_state=opt_state, model_state=model_state), metrics, finite

    return descend


def _optimizer(config: OptimConfig, *, num_steps: int, minutes: float) -> optax.GradientTransformation:
    """Returns the optimiser; under a budget in minutes at the peak of its schedule.

    Its updates, those of weight decay too, are in proportion to the learning rate, so that they can be scaled after.
    """
    if minutes:
        config = replace(config, decay="constant", warmup_steps=0)
    return optim.make_optimizer(config, num_steps)


def _scheduled_step(state: TrainState, *, num_steps: int, minutes: float) -> jax.Array:
    """Returns the step that schedules are at: under a budget in minutes not before the share of time that is used."""
    if not minutes:
        return state.step
    share = state.opt_state[SECONDS] / (60 * minutes)
    return jnp.maximum(state.step.astype(jnp.float32), jnp.minimum(share, 1.0) * num_steps)


def _window(
    state: TrainState, metrics: Mapping[str, Weighted], finite: jax.Array, *, log_every: int
) -> dict[str, Weighted]:
    """Returns the sums for the next line of metrics; a step that was not finite counts for nothing."""
    fresh = state.step % log_every == 0
    return {
        name: jnp.where(fresh, 0, state.window[name]) + jnp.where(finite, value, 0) for name, value in metrics.items()
    }


def _of_group(loss_fn: LossFn, params: Tree, group: str) -> GroupLossFn:
    """Returns the loss as a function of one group's parameters; the others stay as they are now."""
    others = dict(params)
    return lambda own, model_state, batch, key: loss_fn({**others, group: own}, model_state, batch, key)


def _gradient(
    loss_fn: GroupLossFn, own: Tree, model_state: Tree, batch: Batch, key: PRNGKey, *, parts: int
) -> tuple[Scalar, LossAux, Tree]:
    """Returns a loss, its aux and its gradient: with several ``parts``, worked off in turn, the means over them."""
    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
    if parts == 1:
        (loss, aux), grads = value_and_grad(own, model_state, batch, key)
        return loss, aux, grads
    # Part i takes every parts-th image, so that each device works on its own images throughout.
    split = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), dict(batch))

    def add(carry: tuple, numbered: tuple) -> tuple[tuple, None]:
        model_state, sums = carry
        number, part = numbered
        (loss, aux), grads = value_and_grad(own, model_state, part, jax.random.fold_in(key, number))
        return (aux["model_state"], jax.tree.map(jnp.add, sums, (loss, aux["metrics"], grads))), None

    first = jax.tree.map(lambda x: x[0], split)
    (loss, aux), grads = jax.eval_shape(value_and_grad, own, model_state, first, key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (loss, aux["metrics"], grads))
    turns = loop_turns(parts)
    numbered = (jnp.arange(parts), split)
    (model_state, sums), _ = jax.lax.scan(add, (model_state, zeros), numbered, unroll=parts // turns)
    loss, metrics, grads = sums
    aux = LossAux(model_state=model_state, metrics=metrics)
    return loss / parts, aux, jax.tree.map(lambda g: g / parts, grads)


def loop_turns(parts: int) -> int:
    """Returns the turns of the loop over the parts of a batch; XLA counts the work of one turn only.

    On CPUs there is one: weight gradients of convolutions are many times slower inside a loop.
    """
    return 1 if target.platform() == "cpu" else parts


def _once(value: ArrayLike) -> Weighted:
    """Returns a number as (sum, weight) of one observation."""
    return jnp.stack([jnp.asarray(value, jnp.float32), jnp.ones((), jnp.float32)])


def _prefix(task: Task, group: str) -> str:
    """Returns what stands before the names of a group's metrics, where there are several groups."""
    return "" if len(task.losses) == 1 else f"{group}/"


def init_state(
    task: Task, config: OptimConfig, *, key: PRNGKey, batch: Tree, num_steps: int, minutes: float = 0.0
) -> TrainState:
    """Returns a fresh state; ``batch`` gives only shapes."""
    params, model_state = task.init(key)
    optimizer = _optimizer(config, num_steps=num_steps, minutes=minutes)
    names = ["learning_rate"]
    for group, loss_fn in task.losses.items():
        _, aux = jax.eval_shape(loss_fn, {**task.frozen_params, **params}, model_state, batch, key)
        names += [_prefix(task, group) + name for name in ("loss", "grad_norm", *aux["metrics"])]
    traces = {str(length): jax.tree.map(jnp.zeros_like, params) for length in config.ema_lengths}
    return TrainState(
        step=_counter(),
        params=params,
        ema=jax.tree.map(jnp.copy, params) if config.ema_decay else {},
        opt_state={
            **{group: optimizer.init(params[group]) for group in task.losses},
            **({TRACES: traces} if traces else {}),
            **({SECONDS: jnp.zeros((), jnp.float32)} if minutes else {}),
        },
        model_state=model_state,
        bad_steps=_counter(),
        skipped=_counter(),
        window={name: jnp.zeros(2, jnp.float32) for name in names},
    )


def _counter() -> jax.Array:
    """Returns a zero of its own: the step may write over each."""
    return jnp.zeros((), jnp.int32)
