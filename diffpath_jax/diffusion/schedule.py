r"""Gaussian diffusion: the one home of the noise schedule and of every formula that needs it.

The forward process (Ho et al. 2020, "Denoising diffusion probabilistic models") is

    q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I),    abar_t = prod_{s<=t} (1 - beta_s)            (1)
    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps                                                       (2)

and its posterior, with abar_{-1} = 1,

    q(x_{t-1} | x_t, x_0) = N(c0_t x_0 + ct_t x_t, beta~_t I)                                           (3)
    c0_t = beta_t sqrt(abar_{t-1}) / (1 - abar_t),  ct_t = (1 - abar_{t-1}) sqrt(1 - beta_t) / (1 - abar_t)
    beta~_t = beta_t (1 - abar_{t-1}) / (1 - abar_t)                                                    (4)

A network may predict eps, x_0, or v (Salimans and Ho 2022, "Progressive distillation", appendix D),

    v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0                                                         (5)

Tables are float64 numpy and are cast where they meet arrays.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffpath_jax.shapes import Images, Timesteps

Prediction = Literal["eps", "x0", "v"]
Table = Float[np.ndarray, "T"]


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """A discrete noise schedule, possibly a respaced one.

    Attributes:
        betas: (T,) noise added at each step.
        timesteps: (T,) the time of the original schedule that the network is fed at each step.
    """

    betas: Table
    timesteps: Int[np.ndarray, "T"]

    def __post_init__(self) -> None:
        if not (np.all(self.betas > 0) and np.all(self.betas < 1)):
            raise ValueError("every beta must lie strictly between 0 and 1")

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.betas)

    @cached_property
    def alpha_bar(self) -> Table:
        """abar_t of equation 1."""
        return np.cumprod(1 - self.betas)

    @cached_property
    def alpha_bar_prev(self) -> Table:
        """abar_{t-1}, with abar_{-1} = 1."""
        return np.concatenate([[1.0], self.alpha_bar[:-1]])

    @cached_property
    def posterior_variance(self) -> Table:
        """beta~_t of equation 4; 0 at t = 0."""
        return self.betas * (1 - self.alpha_bar_prev) / (1 - self.alpha_bar)

    @cached_property
    def posterior_log_variance(self) -> Table:
        """Log beta~_t; at t = 0, where that is minus infinity, the value of t = 1."""
        if self.num_steps == 1:
            return np.log(self.betas)
        return np.log(np.concatenate([self.posterior_variance[1:2], self.posterior_variance[1:]]))


def _full(betas: Table) -> NoiseSchedule:
    return NoiseSchedule(betas, np.arange(len(betas)))


def linear_schedule(num_steps: int, *, beta_start: float, beta_end: float) -> NoiseSchedule:
    """Betas on a line (Ho et al. 2020: T = 1000 from 1e-4 to 2e-2)."""
    return _full(np.linspace(beta_start, beta_end, num_steps))


def scaled_linear_schedule(num_steps: int, *, beta_start: float, beta_end: float) -> NoiseSchedule:
    """Square roots of betas on a line (latent diffusion: T = 1000 from .0015 to .0195)."""
    return _full(np.linspace(math.sqrt(beta_start), math.sqrt(beta_end), num_steps) ** 2)


def cosine_schedule(num_steps: int, *, max_beta: float = 0.999, offset: float = 0.008) -> NoiseSchedule:
    """Cosine abar (Nichol and Dhariwal 2021, "Improved DDPM", equation 17), betas capped at ``max_beta``."""
    time = np.arange(num_steps + 1) / num_steps
    alpha_bar = np.cos((time + offset) / (1 + offset) * math.pi / 2) ** 2
    return _full(np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], max_beta))


def respace(schedule: NoiseSchedule, kept: Int[np.ndarray, "N"]) -> NoiseSchedule:
    """Keep some steps: a new schedule whose betas give the kept abar (Nichol and Dhariwal 2021, section 4).

    Args:
        schedule: a schedule.
        kept: increasing indices into it.
    """
    if len(kept) == 0 or np.any(np.diff(kept) <= 0) or kept[0] < 0 or kept[-1] >= schedule.num_steps:
        raise ValueError(f"kept steps must increase within 0..{schedule.num_steps - 1}")
    alpha_bar = schedule.alpha_bar[kept]
    betas = 1 - alpha_bar / np.concatenate([[1.0], alpha_bar[:-1]])
    return NoiseSchedule(betas, schedule.timesteps[kept])


def shift(schedule: NoiseSchedule, factor: float) -> NoiseSchedule:
    """Multiply ``sqrt(abar / (1 - abar))`` by a factor at every t.

    Hoogeboom et al. 2023, "Simple diffusion", section 3.1: an image of d px keeps what noise leaves of one of 64 px
    with the factor 64 / d, as noise on neighbouring pixels averages out.
    """
    snr = factor**2 * schedule.alpha_bar / (1 - schedule.alpha_bar)
    alpha_bar = snr / (1 + snr)
    betas = 1 - alpha_bar / np.concatenate([[1.0], alpha_bar[:-1]])
    return NoiseSchedule(betas, schedule.timesteps)


def at(table: Table, t: jax.Array, ndim: int) -> jax.Array:
    """``table[t]`` in float32, shaped to multiply a batch of rank ``ndim``."""
    return jnp.asarray(table, jnp.float32)[t].reshape(t.shape + (1,) * (ndim - 1))


def q_sample(schedule: NoiseSchedule, x_0: Images, t: Timesteps, eps: Images) -> Images:
    """Noise images (equation 2)."""
    signal = at(np.sqrt(schedule.alpha_bar), t, x_0.ndim)
    return signal * x_0 + at(np.sqrt(1 - schedule.alpha_bar), t, x_0.ndim) * eps


def x0_from_eps(schedule: NoiseSchedule, x_t: Images, t: Timesteps, eps: Images) -> Images:
    """Solve equation 2 for x_0."""
    noise = at(np.sqrt(1 - schedule.alpha_bar), t, x_t.ndim)
    return (x_t - noise * eps) / at(np.sqrt(schedule.alpha_bar), t, x_t.ndim)


def eps_from_x0(schedule: NoiseSchedule, x_t: Images, t: Timesteps, x_0: Images) -> Images:
    """Solve equation 2 for eps."""
    signal = at(np.sqrt(schedule.alpha_bar), t, x_t.ndim)
    return (x_t - signal * x_0) / at(np.sqrt(1 - schedule.alpha_bar), t, x_t.ndim)


def v_from_x0_eps(schedule: NoiseSchedule, x_0: Images, t: Timesteps, eps: Images) -> Images:
    """Equation 5."""
    signal = at(np.sqrt(schedule.alpha_bar), t, x_0.ndim)
    return signal * eps - at(np.sqrt(1 - schedule.alpha_bar), t, x_0.ndim) * x_0


def eps_from_v(schedule: NoiseSchedule, x_t: Images, t: Timesteps, v: Images) -> Images:
    """Solve equations 2 and 5 for eps: eps = sqrt(abar) v + sqrt(1 - abar) x_t."""
    signal = at(np.sqrt(schedule.alpha_bar), t, x_t.ndim)
    return signal * v + at(np.sqrt(1 - schedule.alpha_bar), t, x_t.ndim) * x_t


def posterior_mean(schedule: NoiseSchedule, x_0: Images, x_t: Images, t: Timesteps) -> Images:
    """Mean of equation 3."""
    betas, alpha_bar, previous = schedule.betas, schedule.alpha_bar, schedule.alpha_bar_prev
    of_x0 = betas * np.sqrt(previous) / (1 - alpha_bar)
    of_xt = (1 - previous) * np.sqrt(1 - betas) / (1 - alpha_bar)
    return at(of_x0, t, x_t.ndim) * x_0 + at(of_xt, t, x_t.ndim) * x_t


def split_variance(output: Float[Array, "b h w all"], channels: int) -> tuple[Images, Images | None]:
    """A network's prediction, and the variance fraction that follows it in further channels, if any."""
    return output[..., :channels], output[..., channels:] if output.shape[-1] > channels else None


def learned_log_variance(schedule: NoiseSchedule, fraction: Images, t: Timesteps) -> Images:
    """Log variance of a step as a network chose it (Nichol and Dhariwal 2021, equation 15).

    ``v log beta_t + (1 - v) log beta~_t`` with ``v = (fraction + 1) / 2``; beta~_0 is replaced by beta~_1.
    """
    v = (fraction + 1) / 2
    largest, smallest = np.log(schedule.betas), schedule.posterior_log_variance
    return v * at(largest, t, fraction.ndim) + (1 - v) * at(smallest, t, fraction.ndim)


def training_target(prediction: Prediction, schedule: NoiseSchedule, x_0: Images, t: Timesteps, eps: Images) -> Images:
    """Returns the target of the network: eps, x_0 or v."""
    targets: dict[str, Callable[[], Images]] = {
        "eps": lambda: eps,
        "x0": lambda: x_0,
        "v": lambda: v_from_x0_eps(schedule, x_0, t, eps),
    }
    return targets[prediction]()


def to_eps(prediction: Prediction, schedule: NoiseSchedule, x_t: Images, t: Timesteps, output: Images) -> Images:
    """Returns the eps that a network's output stands for."""
    forms: dict[str, Callable[[], Images]] = {
        "eps": lambda: output,
        "x0": lambda: eps_from_x0(schedule, x_t, t, output),
        "v": lambda: eps_from_v(schedule, x_t, t, output),
    }
    return forms[prediction]()
