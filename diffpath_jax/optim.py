"""Optimiser, learning-rate schedule, and the exponential moving average of the parameters."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from diffpath_jax.shapes import Tree


@dataclass(frozen=True)
class OptimConfig:
    """Settings of the optimiser.

    Attributes:
        learning_rate: peak learning rate.
        decay: what follows the warm-up.
        warmup_steps: steps of linear warm-up from 0.
        weight_decay: decoupled weight decay (AdamW).
        b1: Adam's first moment decay.
        b2: Adam's second moment decay.
        clip_norm: largest global gradient norm; 0 clips nothing.
        ema_decay: decay of the moving average of the parameters; 0 keeps none.
    """

    learning_rate: float = 1e-4
    decay: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    clip_norm: float = 0.0
    ema_decay: float = 0.9999


def learning_rate_schedule(config: OptimConfig, num_steps: int) -> optax.Schedule:
    """Learning rate at each step."""
    if config.decay == "cosine":
        return optax.warmup_cosine_decay_schedule(
            0.0 if config.warmup_steps else config.learning_rate,
            config.learning_rate,
            config.warmup_steps,
            num_steps,
        )
    if config.warmup_steps:
        return optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.constant_schedule(config.learning_rate)


def make_optimizer(config: OptimConfig, num_steps: int) -> optax.GradientTransformation:
    """AdamW, after clipping by global norm where asked for."""
    adamw = optax.adamw(
        learning_rate_schedule(config, num_steps),
        b1=config.b1,
        b2=config.b2,
        weight_decay=config.weight_decay,
    )
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    return optax.chain(*clip, adamw)


def update_ema(average: Tree, params: Tree, *, decay: float, step: jax.Array) -> Tree:
    """Move the float32 average towards the parameters.

    The decay is ``min(decay, (1 + step) / (10 + step))``, so that the average forgets its start quickly.
    """
    rate = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, p: a + (1 - rate) * (p.astype(jnp.float32) - a), average, params)
