"""Distributions over timesteps for training: uniform, in proportion to the loss, or of log SNR."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import ndtr

from diffpath_jax.diffusion.schedule import NoiseSchedule, Table
from diffpath_jax.shapes import PRNGKey, Timesteps, Tree

TimestepName = Literal["uniform", "loss_aware", "laplace", "logit_normal"]


@runtime_checkable
class InitFn(Protocol):
    """Makes the first state."""

    def __call__(self) -> Tree:
        """Returns a dict of arrays, empty where nothing is learnt."""


@runtime_checkable
class DrawFn(Protocol):
    """Draws timesteps."""

    def __call__(self, state: Tree, key: PRNGKey, count: int, /) -> tuple[Timesteps, Float[Array, "b"]]:
        """Returns ``count`` timesteps and the factor of each loss, whose mean then estimates the objective.

        The objective is the sum of losses under the distribution: the uniform one for what learns from losses, whose
        factors say so; its own where it is chosen once and for all, with factors of 1.
        """


@runtime_checkable
class UpdateFn(Protocol):
    """Learns from losses."""

    def __call__(self, state: Tree, t: Timesteps, losses: Float[Array, "b"], /) -> Tree:
        """Returns the state after losses at some timesteps."""


@runtime_checkable
class Cumulative(Protocol):
    """A cumulative distribution function."""

    def __call__(self, x: Float[np.ndarray, "n"], /) -> Float[np.ndarray, "n"]:
        """Returns the probability of at most each value."""
        ...


@dataclass(frozen=True)
class TimestepSampler:
    """A distribution over timesteps that may learn from the losses it sees.

    Attributes:
        init: makes its first state.
        draw: draws timesteps.
        update: learns from the losses at some timesteps.
    """

    init: InitFn
    draw: DrawFn
    update: UpdateFn


def uniform(num_steps: int) -> TimestepSampler:
    """Every timestep alike."""

    def draw(state: Tree, key: PRNGKey, count: int) -> tuple[Timesteps, Float[Array, "b"]]:
        return jax.random.randint(key, (count,), 0, num_steps), jnp.ones(count)

    return TimestepSampler(dict, draw, lambda state, t, values: state)


def loss_aware(num_steps: int, *, history: int = 10, uniform_share: float = 1e-3) -> TimestepSampler:
    """Importance sampling (Nichol and Dhariwal 2021, "Improved DDPM", section 3.3).

    ``p_t`` is proportional to ``sqrt(E[L_t^2])`` over the last ``history`` losses of each timestep, mixed with a
    ``uniform_share`` of the uniform distribution; the factor is ``1 / (T p_t)``. Uniform until every timestep has
    ``history`` losses.
    """

    def init() -> Tree:
        return {
            "losses": jnp.zeros((num_steps, history), jnp.float32),
            "counts": jnp.zeros(num_steps, jnp.int32),
        }

    def draw(state: Tree, key: PRNGKey, count: int) -> tuple[Timesteps, Float[Array, "b"]]:
        root = jnp.sqrt(jnp.square(state["losses"]).mean(axis=1))
        learnt = (1 - uniform_share) * root / jnp.maximum(root.sum(), 1e-20) + uniform_share / num_steps
        warm = (state["counts"] >= history).all()
        p = jnp.where(warm, learnt, 1 / num_steps)
        t = jax.random.categorical(key, jnp.log(p), shape=(count,))
        return t, 1 / (num_steps * p[t])

    def update(state: Tree, t: Timesteps, values: Float[Array, "b"]) -> Tree:
        def note(state: Tree, seen: tuple[jax.Array, jax.Array]) -> tuple[Tree, None]:
            # The newest loss comes last; the oldest is shifted out.
            step, value = seen
            row = jnp.concatenate([state["losses"][step, 1:], value[None]])
            return {
                "losses": state["losses"].at[step].set(row),
                "counts": state["counts"].at[step].add(1),
            }, None

        return jax.lax.scan(note, state, (t, values.astype(jnp.float32)))[0]

    return TimestepSampler(init, draw, update)


def fixed(probabilities: Table) -> TimestepSampler:
    """Timesteps of a distribution that stays as it is, and is that of the objective."""
    logits = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))

    def draw(state: Tree, key: PRNGKey, count: int) -> tuple[Timesteps, Float[Array, "b"]]:
        t = jax.random.categorical(key, jnp.asarray(logits, jnp.float32), shape=(count,))
        return t, jnp.ones(count)

    return TimestepSampler(dict, draw, lambda state, t, values: state)


def log_snr_probabilities(schedule: NoiseSchedule, distribution: Cumulative) -> Table:
    """Returns the probability of each timestep under a distribution of ``log(abar / (1 - abar))``.

    Each timestep has that of its cell, which reaches half-way to the log SNR of its neighbours; the cells of the first
    and the last are open. So the probabilities add up to 1 whatever the schedule covers.
    """
    log_snr = np.log(schedule.alpha_bar) - np.log1p(-schedule.alpha_bar)
    middles = (log_snr[1:] + log_snr[:-1]) / 2
    cumulative = np.concatenate([[1.0], distribution(middles), [0.0]])
    return cumulative[:-1] - cumulative[1:]


@dataclass(frozen=True)
class LogSnr:
    """A distribution of log SNR.

    Attributes:
        centre: where it is highest.
        width: b of a Laplace distribution, the standard deviation of a normal one.
    """

    centre: float
    width: float


def laplace(schedule: NoiseSchedule, log_snr: LogSnr) -> TimestepSampler:
    """Log SNR of a Laplace distribution (Hang et al. 2024, "Improved noise schedule": around 0, b = 0.5)."""

    def cumulative(x: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        away = (x - log_snr.centre) / log_snr.width
        tail = np.exp(-np.abs(away)) / 2
        return np.where(away < 0, tail, 1 - tail)

    return fixed(log_snr_probabilities(schedule, cumulative))


def logit_normal(schedule: NoiseSchedule, log_snr: LogSnr) -> TimestepSampler:
    """Log SNR of a normal distribution: abar is logit-normal.

    Esser et al. 2024, "Scaling rectified flow transformers", draw the logit of their time so, with m and s: here
    ``centre = -2 m`` and ``width = 2 s``.
    """

    def cumulative(x: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        return ndtr((x - log_snr.centre) / log_snr.width)

    return fixed(log_snr_probabilities(schedule, cumulative))


TIMESTEP_SAMPLERS: dict[TimestepName, Callable[[NoiseSchedule, LogSnr], TimestepSampler]] = {
    "uniform": lambda schedule, _: uniform(schedule.num_steps),
    "loss_aware": lambda schedule, _: loss_aware(schedule.num_steps),
    "laplace": laplace,
    "logit_normal": logit_normal,
}
