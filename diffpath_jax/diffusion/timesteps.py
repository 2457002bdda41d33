"""Distributions over timesteps for training: uniform, or in proportion to the loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffpath_jax.shapes import PRNGKey, Timesteps, Tree

TimestepName = Literal["uniform", "loss_aware"]


@runtime_checkable
class InitFn(Protocol):
    """Makes the first state."""

    def __call__(self) -> Tree:
        """Returns a dict of arrays, empty where nothing is learnt."""


@runtime_checkable
class DrawFn(Protocol):
    """Draws timesteps."""

    def __call__(self, state: Tree, key: PRNGKey, count: int, /) -> tuple[Timesteps, Float[Array, "b"]]:
        """Returns ``count`` timesteps and the factor that makes each loss an unbiased estimate."""


@runtime_checkable
class UpdateFn(Protocol):
    """Learns from losses."""

    def __call__(self, state: Tree, t: Timesteps, losses: Float[Array, "b"], /) -> Tree:
        """Returns the state after losses at some timesteps."""


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


TIMESTEP_SAMPLERS: dict[TimestepName, Callable[[int], TimestepSampler]] = {"uniform": uniform, "loss_aware": loss_aware}
