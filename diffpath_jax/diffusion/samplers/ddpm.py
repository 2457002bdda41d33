"""DDPM: draw x_{t-1} from q(x_{t-1} | x_t, x_0), with the variances that have been proposed.

A classifier's score s grad log p(y | x_t) moves the mean by the variance times it (Dhariwal and Nichol 2021,
algorithm 1).
"""

import jax
import jax.numpy as jnp
import numpy as np

from diffpath_jax.diffusion import schedule as diffusion
from diffpath_jax.diffusion.samplers.loop import Evaluation, Method, one_step_method
from diffpath_jax.diffusion.schedule import NoiseSchedule, Table, at
from diffpath_jax.shapes import Images


def _drawn(now: Evaluation, mean: Images, variance: jax.Array) -> Images:
    """From N(mean + variance score, variance); without noise at t = 0."""
    if now.score is not None:
        mean = mean + variance * now.score
    moves = (now.t > 0).reshape(now.t.shape + (1,) * (now.x.ndim - 1))
    return mean + jnp.where(moves, jnp.sqrt(variance) * now.noise, 0)


def ddpm(schedule: NoiseSchedule, *, variance: Table) -> Method:
    """Ancestral sampling (Ho et al. 2020, algorithm 2).

    Args:
        schedule: the schedule.
        variance: sigma_t^2; ``schedule.posterior_variance`` (fixed small) or ``schedule.betas`` (fixed large).
    """

    def rule(now: Evaluation) -> Images:
        mean = diffusion.posterior_mean(schedule, now.x_0, now.x, now.t)
        return _drawn(now, mean, at(variance, now.t, now.x.ndim))

    return one_step_method(schedule, rule)


def ddpm_learned(schedule: NoiseSchedule) -> Method:
    """Ancestral sampling with the variance that the network learnt (Nichol and Dhariwal 2021, equation 15)."""

    def rule(now: Evaluation) -> Images:
        if now.variance is None:
            raise ValueError("the network has no learned variance")
        mean = diffusion.posterior_mean(schedule, now.x_0, now.x, now.t)
        return _drawn(now, mean, jnp.exp(diffusion.learned_log_variance(schedule, now.variance, now.t)))

    return one_step_method(schedule, rule)


def ddpm_author_code(schedule: NoiseSchedule) -> Method:
    """Ancestral sampling as the paper's own code has it, to measure what its slip does; use :func:`ddpm`.

    ``x_{t-1} = (x_t - beta_t / sqrt(1 - abar_{t-1}) eps) / sqrt(1 - beta_t) + sqrt(beta~_t) z``: eps is divided by
    the noise of the step before (1.449 times too large at t = 1), and at t = 0 that index wraps round to the last
    step. The authors do not clip x_0, so there must be no limit for their very numbers.
    """
    betas, before = schedule.betas, np.roll(schedule.alpha_bar, 1)

    def rule(now: Evaluation) -> Images:
        eps = diffusion.eps_from_x0(schedule, now.x, now.t, now.x_0)
        ndim = now.x.ndim
        mean = (now.x - at(betas / np.sqrt(1 - before), now.t, ndim) * eps) / at(np.sqrt(1 - betas), now.t, ndim)
        return _drawn(now, mean, at(schedule.posterior_variance, now.t, ndim))

    return one_step_method(schedule, rule)
