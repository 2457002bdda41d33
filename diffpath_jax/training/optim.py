"""Optimiser, learning-rate schedule, and the exponential moving average of the parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from diffpath_jax.ranges import AverageLengths, Natural, NonNegativeReal, Positive, Share
from diffpath_jax.shapes import Tree


@dataclass(frozen=True)
class OptimConfig:
    """Settings of the optimiser.

    Attributes:
        learning_rate: peak learning rate of AdamW.
        muon_learning_rate: peak learning rate of Muon, which then moves the kernels of convolutions and dense layers
            while AdamW moves the rest; 0 uses AdamW throughout. Muon needs fewer steps, and more work in each.
        decay: learning rate after the warm-up: constant, or half a cosine or a line down to 0.
        warmup_steps: steps of linear warm-up from 0.
        weight_decay: decoupled weight decay (AdamW).
        b1: Adam's first moment decay.
        b2: Adam's second moment decay.
        clip_norm: largest global gradient norm; 0 clips nothing.
        accumulate: equal parts in which a batch is worked off, one after the other, before each update: less memory.
        ema_decay: decay of the moving average of the parameters; 0 keeps none.
        ema_lengths: lengths of averages that are kept besides, of which one of any length is made afterwards
            (published: 0.05, 0.1); each takes the memory of the parameters. See :mod:`posthoc_ema`.
    """

    learning_rate: NonNegativeReal = 1e-4
    muon_learning_rate: NonNegativeReal = 0.0
    decay: Literal["constant", "cosine", "linear"] = "constant"
    warmup_steps: Natural = 0
    weight_decay: NonNegativeReal = 0.0
    b1: Share = 0.9
    b2: Share = 0.999
    clip_norm: NonNegativeReal = 0.0
    accumulate: Positive = 1
    ema_decay: Share = 0.9999
    ema_lengths: AverageLengths = ()


def relative_schedule(config: OptimConfig, num_steps: int) -> optax.Schedule:
    """Returns the share of the peak learning rate at each step."""
    if config.decay == "cosine":
        start = 0.0 if config.warmup_steps else 1.0
        return optax.warmup_cosine_decay_schedule(start, 1.0, config.warmup_steps, num_steps)
    if config.decay == "linear":
        rise = optax.linear_schedule(0.0, 1.0, config.warmup_steps)
        fall = optax.linear_schedule(1.0, 0.0, num_steps - config.warmup_steps)
        return optax.join_schedules([rise, fall], [config.warmup_steps])
    if config.warmup_steps:
        return optax.linear_schedule(0.0, 1.0, config.warmup_steps)
    return optax.constant_schedule(1.0)


@runtime_checkable
class RatesFn(Protocol):
    """Gives learning rates besides AdamW's."""

    def __call__(self, steps: Sequence[int], /) -> dict[str, float]:
        """Returns the mean of each over some steps, by its name in the log."""
        ...


def further_rates(config: OptimConfig, num_steps: int) -> RatesFn:
    """Returns what gives Muon's learning rate, where it is used; AdamW's is among the metrics of a step."""
    relative = relative_schedule(config, num_steps)

    def rates(steps: Sequence[int]) -> dict[str, float]:
        if not config.muon_learning_rate:
            return {}
        shares = [float(relative(step)) for step in steps]
        return {"muon_learning_rate": config.muon_learning_rate * sum(shares) / len(shares)}

    return rates


def make_optimizer(config: OptimConfig, num_steps: int) -> optax.GradientTransformation:
    """Returns AdamW, or Muon with AdamW (Jordan et al. 2024), after clipping by global norm where asked for."""
    relative = relative_schedule(config, num_steps)

    def scaled(peak: float) -> optax.Schedule:
        return lambda step: peak * relative(step)

    if config.muon_learning_rate:
        chosen = optax.contrib.muon(
            scaled(config.muon_learning_rate),
            weight_decay=config.weight_decay,
            adam_b1=config.b1,
            adam_b2=config.b2,
            adam_weight_decay=config.weight_decay,
            adam_learning_rate=scaled(config.learning_rate),
            muon_weight_dimension_numbers=_kernel_dimensions,
        )
    else:
        chosen = optax.adamw(scaled(config.learning_rate), b1=config.b1, b2=config.b2, weight_decay=config.weight_decay)
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    return optax.chain(*clip, chosen)


def _kernel_dimensions(params: Tree) -> Tree:
    """Returns kernels as matrices (all inputs by outputs); nothing for what Muon leaves to AdamW."""

    def of(path: tuple, leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        if path[-1] != jax.tree_util.DictKey("kernel"):
            return None
        *inputs, output = range(leaf.ndim)
        return optax.contrib.MuonDimensionNumbers(reduction_axis=tuple(inputs), output_axis=output)

    return jax.tree_util.tree_map_with_path(of, params)


def update_ema(average: Tree, params: Tree, *, decay: float, step: jax.Array) -> Tree:
    """Move the float32 average towards the parameters.

    The decay is ``min(decay, (1 + step) / (10 + step))``, so that the average forgets its start quickly.
    """
    rate = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, p: a + (1 - rate) * (p.astype(jnp.float32) - a), average, params)
