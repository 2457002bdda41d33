"""DDPM: draw x_{t-1} from q(x_{t-1} | x_t, x_0), with the variances that have been proposed.

A classifier's score s grad log p(y | x_t) moves the mean by the variance times it (Dhariwal and Nichol 2021,
algorithm 1).
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from diffpath_jax.diffusion.samplers import spacing
from diffpath_jax.diffusion.samplers.kinds import SamplerKind
from diffpath_jax.diffusion.samplers.loop import Sampler, StepInput, stateless_sampler
from diffpath_jax.diffusion.schedule import NoiseSchedule, Table, at, eps_from_x0, learned_log_variance, posterior_mean
from diffpath_jax.io.registry import Registry
from diffpath_jax.shapes import Images


def _drawn(inputs: StepInput, mean: Images, variance: jax.Array) -> Images:
    """Returns a draw from N(mean + variance score, variance); at t = 0 its mean."""
    if inputs.score is not None:
        mean = mean + variance * inputs.score
    moves = (inputs.t > 0).reshape(inputs.t.shape + (1,) * (inputs.x.ndim - 1))
    return mean + jnp.where(moves, jnp.sqrt(variance) * inputs.noise, 0)


def ddpm(schedule: NoiseSchedule, *, variance: Table) -> Sampler:
    """Ancestral sampling (Ho et al. 2020, "Denoising diffusion probabilistic models", algorithm 2); of first order.

    Args:
        schedule: the schedule.
        variance: sigma_t^2; ``schedule.posterior_variance`` (fixed small) or ``schedule.betas`` (fixed large).
    """

    def step(inputs: StepInput) -> Images:
        mean = posterior_mean(schedule, inputs.x_0, inputs.x, inputs.t)
        return _drawn(inputs, mean, at(variance, inputs.t, inputs.x.ndim))

    return stateless_sampler(schedule, step)


def ddpm_learned(schedule: NoiseSchedule) -> Sampler:
    """Ancestral sampling with the variance that the network learnt (Nichol and Dhariwal 2021, equation 15)."""

    def step(inputs: StepInput) -> Images:
        if inputs.variance is None:
            raise ValueError("the network has no learned variance")
        mean = posterior_mean(schedule, inputs.x_0, inputs.x, inputs.t)
        return _drawn(inputs, mean, jnp.exp(learned_log_variance(schedule, inputs.variance, inputs.t)))

    return stateless_sampler(schedule, step)


def ddpm_author_code(schedule: NoiseSchedule) -> Sampler:
    """Ancestral sampling as the paper's own code has it, to measure what its slip does; use :func:`ddpm`.

    ``x_{t-1} = (x_t - beta_t / sqrt(1 - abar_{t-1}) eps) / sqrt(1 - beta_t) + sqrt(beta~_t) z``: eps is divided by
    the noise of the step before (1.449 times too large at t = 1), and at t = 0 that index wraps round to the last
    step. The authors do not clip x_0: their very numbers need no thresholding.
    """
    betas, before = schedule.betas, np.roll(schedule.alpha_bar, 1)

    def step(inputs: StepInput) -> Images:
        x, t, ndim = inputs.x, inputs.t, inputs.x.ndim
        eps = eps_from_x0(schedule, x, t, inputs.x_0)
        mean = (x - at(betas / np.sqrt(1 - before), t, ndim) * eps) / at(np.sqrt(1 - betas), t, ndim)
        return _drawn(inputs, mean, at(schedule.posterior_variance, t, ndim))

    return stateless_sampler(schedule, step)


@runtime_checkable
class _MakeDdpm(Protocol):
    def __call__(self, schedule: NoiseSchedule, /) -> Sampler: ...


@dataclass(frozen=True)
class VarianceKind:
    """A variance of ancestral steps.

    Attributes:
        name: the word that users choose it by.
        summary: a few words, for help.
        make: makes the ancestral sampler with it.
        learned: the network has to predict it.
    """

    name: str
    summary: str
    make: _MakeDdpm
    learned: bool = False


VARIANCES: Registry[VarianceKind] = Registry(
    "variance",
    (
        VarianceKind("small", "beta~, the posterior's", lambda s: ddpm(s, variance=s.posterior_variance)),
        VarianceKind("large", "beta", lambda s: ddpm(s, variance=s.betas)),
        VarianceKind("learned", "the network's", ddpm_learned, learned=True),
    ),
)
KINDS = (
    SamplerKind(
        "ddpm",
        summary="ancestral sampling",
        reference="Ho et al. 2020, Denoising diffusion probabilistic models",
        order=1,
        make=lambda schedule, settings: VARIANCES[settings.variance].make(schedule),
        spacing=spacing.EVEN,
        stochastic=True,
        options=("spacing", "variance"),
        takes_score=True,
    ),
    SamplerKind(
        "ddpm_author_code",
        summary="ancestral sampling with the slip of the paper's code",
        reference="github.com/AtlasAnalyticsLab/Diffusion4Path",
        order=1,
        make=lambda schedule, settings: ddpm_author_code(schedule),
        spacing=spacing.EVEN,
        stochastic=True,
        takes_score=True,
    ),
)
