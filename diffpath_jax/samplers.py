"""Samplers: one ``lax.scan`` over a schedule, and a step rule for each method.

A sampler knows a denoiser, a schedule and keys; it does not know pixels from latents, guidance, or any network.
Noise comes from one key an image, so an image does not depend on its batch or device.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffpath_jax import diffusion
from diffpath_jax.diffusion import NoiseSchedule, Table
from diffpath_jax.shapes import Denoiser, Images, PRNGKeys, Timesteps

# (x_t, estimate of x_0, learned variance or none, t, fresh noise) -> x_{t-1}
StepRule = Callable[[jax.Array, jax.Array, jax.Array | None, jax.Array, jax.Array], jax.Array]


def image_noise(keys: PRNGKeys, number: int | Array, shape: tuple[int, int, int]) -> Images:
    """Standard normal noise, drawn for each image from its own key and ``number``."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, number), shape))(keys)


def sample(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    rule: StepRule,
    *,
    keys: PRNGKeys,
    shape: tuple[int, int, int],
    clip_x0: bool = True,
    film_frames: int = 0,
) -> tuple[Images, Float[Array, "frames b h w c"]]:
    """Draw images: x_T ~ N(0, I), then ``rule`` from t = T-1 down to 0.

    Args:
        denoiser: eps as a function of (x_t, t), t an index into ``schedule``.
        schedule: the (respaced) schedule.
        rule: one of the step rules below.
        keys: one key an image.
        shape: (height, width, channels) of an image in model space.
        clip_x0: clip each estimate of x_0 to [-1, 1] (pixel models; not for latents).
        film_frames: how many intermediate estimates of x_0 to return, evenly spread and the last included.

    Returns:
        The images, and the film (estimates of x_0, noisiest first).
    """
    steps = schedule.num_steps
    frames = jnp.asarray(np.round(np.linspace(steps - 1, 0, film_frames)).astype(int))

    def body(carry: tuple[jax.Array, jax.Array], t: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        x_t, film = carry
        batch_t = jnp.full(len(keys), t)
        eps, variance = denoiser(x_t, batch_t)
        x_0 = diffusion.x0_from_eps(schedule, x_t, batch_t, eps)
        if clip_x0:
            x_0 = jnp.clip(x_0, -1, 1)
        if film_frames:
            film = jnp.where((frames == t).reshape(-1, 1, 1, 1, 1), x_0, film)
        # x_T takes number 0, step t takes number t + 1: every number is used once.
        noise = image_noise(keys, t + 1, shape)
        return (rule(x_t, x_0, variance, batch_t, noise), film), None

    x_T = image_noise(keys, 0, shape)
    film = jnp.zeros((film_frames, *x_T.shape))
    (x, film), _ = jax.lax.scan(body, (x_T, film), jnp.arange(steps - 1, -1, -1))
    return x, film


def ddpm_rule(schedule: NoiseSchedule, *, variance: Table) -> StepRule:
    """Ancestral sampling (Ho et al. 2020, algorithm 2): draw from q(x_{t-1} | x_t, x_0); no noise at t = 0.

    Args:
        schedule: the schedule.
        variance: sigma_t^2; ``schedule.posterior_variance`` (fixed small) or ``schedule.betas`` (fixed large).
    """
    sigma = np.sqrt(variance) * (np.arange(schedule.num_steps) > 0)

    def rule(x_t: Images, x_0: Images, learned: Images | None, t: Timesteps, noise: Images) -> Images:
        return diffusion.posterior_mean(schedule, x_0, x_t, t) + diffusion.at(sigma, t, x_t.ndim) * noise

    return rule


def ddpm_learned_rule(schedule: NoiseSchedule) -> StepRule:
    """Ancestral sampling with the variance that the network learnt (Nichol and Dhariwal 2021, equation 15)."""

    def rule(x_t: Images, x_0: Images, learned: Images | None, t: Timesteps, noise: Images) -> Images:
        if learned is None:
            raise ValueError("the network has no learned variance")
        sigma = jnp.exp(0.5 * diffusion.learned_log_variance(schedule, learned, t))
        moves = (t > 0).reshape(t.shape + (1,) * (x_t.ndim - 1))
        return diffusion.posterior_mean(schedule, x_0, x_t, t) + jnp.where(moves, sigma * noise, 0)

    return rule


def ddpm_author_code_rule(schedule: NoiseSchedule) -> StepRule:
    """Ancestral sampling as the paper's own code has it, to measure what its slip does; use :func:`ddpm_rule`.

    ``x_{t-1} = (x_t - beta_t / sqrt(1 - abar_{t-1}) eps) / sqrt(1 - beta_t) + sqrt(beta~_t) z``: eps is divided by
    the noise of the step before (1.449 times too large at t = 1), and at t = 0 that index wraps round to the last
    step. The authors do not clip x_0, so ``clip_x0`` must be off for their very numbers.
    """
    betas, before = schedule.betas, np.roll(schedule.alpha_bar, 1)
    sigma = np.sqrt(schedule.posterior_variance)

    def rule(x_t: Images, x_0: Images, learned: Images | None, t: Timesteps, noise: Images) -> Images:
        at = diffusion.at
        eps = diffusion.eps_from_x0(schedule, x_t, t, x_0)
        mean = (x_t - at(betas / np.sqrt(1 - before), t, x_t.ndim) * eps) / at(np.sqrt(1 - betas), t, x_t.ndim)
        return mean + at(sigma, t, x_t.ndim) * noise

    return rule


def ddim_rule(schedule: NoiseSchedule, *, eta: float) -> StepRule:
    """DDIM (Song et al. 2021, equations 12 and 16).

    With p the step before t on the schedule:
    ``sigma_t = eta sqrt((1 - abar_p) / (1 - abar_t)) sqrt(1 - abar_t / abar_p)`` and
    ``x_p = sqrt(abar_p) x_0 + sqrt(1 - abar_p - sigma_t^2) eps + sigma_t z``. eta = 0 is deterministic; eta = 1 on
    the full grid is DDPM with the posterior variance. eps is taken from the (clipped) x_0, so that both agree.
    """
    now, before = schedule.alpha_bar, schedule.alpha_bar_prev
    sigma = eta * np.sqrt((1 - before) / (1 - now)) * np.sqrt(1 - now / before)
    direction = np.sqrt(np.maximum(1 - before - sigma**2, 0))

    def rule(x_t: Images, x_0: Images, learned: Images | None, t: Timesteps, noise: Images) -> Images:
        eps = diffusion.eps_from_x0(schedule, x_t, t, x_0)
        at = diffusion.at
        mean = at(np.sqrt(before), t, x_t.ndim) * x_0 + at(direction, t, x_t.ndim) * eps
        return mean + at(sigma, t, x_t.ndim) * noise

    return rule


def scale_eps(denoiser: Denoiser, *, slope: float = 0.0, offset: float = 1.0) -> Denoiser:
    """Epsilon scaling (Ning et al. 2024, "Elucidating the exposure bias in diffusion models", ADM-ES).

    ``eps / lambda_t`` with ``lambda_t = slope t + offset``, t the index on the (respaced) schedule; uniform
    scaling means slope 0. Wraps any denoiser, guided ones included, before x_0 is formed and clipped; a learned
    variance is left alone.
    """
    if offset <= 0 or slope < 0:
        raise ValueError(f"lambda_t = {slope} t + {offset} must be positive for every t")

    def scaled(x_t: Images, t: Timesteps) -> tuple[Images, Images | None]:
        eps, variance = denoiser(x_t, t)
        scale = slope * t.astype(jnp.float32) + offset
        return eps / scale.reshape(t.shape + (1,) * (x_t.ndim - 1)), variance

    return scaled
