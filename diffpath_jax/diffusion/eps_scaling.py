"""Epsilon scaling: a wrapper of denoisers, so it goes with every sampler and with guidance."""

import jax.numpy as jnp

from diffpath_jax.shapes import Denoiser, DenoiserOutput, Images, Timesteps


def scale_eps(denoiser: Denoiser, *, slope: float = 0.0, offset: float = 1.0) -> Denoiser:
    """Epsilon scaling (Ning et al. 2024, "Elucidating the exposure bias in diffusion models", ADM-ES).

    ``eps / lambda_t`` with ``lambda_t = slope t + offset``, t the index on the (respaced) schedule; uniform
    scaling means slope 0. Wraps any denoiser, guided ones included, before x_0 is formed and thresholded; a learned
    variance and a score for the mean are left alone.
    """
    if offset <= 0 or slope < 0:
        raise ValueError(f"lambda_t = {slope} t + {offset} must be positive for every t")
    if (slope, offset) == (0.0, 1.0):
        return denoiser

    def scaled(x_t: Images, t: Timesteps) -> DenoiserOutput:
        output = denoiser(x_t, t)
        scale = slope * t.astype(jnp.float32) + offset
        return output._replace(eps=output.eps / scale.reshape(t.shape + (1,) * (x_t.ndim - 1)))

    return scaled
