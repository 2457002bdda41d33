"""DDIM: the family between DDPM and a deterministic path."""

import numpy as np

from diffpath_jax.diffusion.samplers import spacing
from diffpath_jax.diffusion.samplers.kinds import SamplerKind
from diffpath_jax.diffusion.samplers.loop import Sampler, StepInput, stateless_sampler
from diffpath_jax.diffusion.schedule import NoiseSchedule, at, eps_from_x0, x0_from_eps
from diffpath_jax.shapes import Images


def ddim(schedule: NoiseSchedule, *, eta: float, final_alpha_bar: float = 1.0) -> Sampler:
    """DDIM (Song et al. 2021, "Denoising diffusion implicit models", equations 12 and 16); of first order.

    With p the step before t on the schedule:
    ``sigma_t = eta sqrt((1 - abar_p) / (1 - abar_t)) sqrt(1 - abar_t / abar_p)`` and
    ``x_p = sqrt(abar_p) x_0 + sqrt(1 - abar_p - sigma_t^2) eps + sigma_t z``. eta = 0 is deterministic; eta = 1 on
    the full grid is DDPM with the posterior variance. eps is taken from the thresholded x_0, so that both agree.
    A score g (of a classifier, left to the step) moves that eps by -sqrt(1 - abar_t) g, and x_0 with it, which is not
    thresholded again.

    Args:
        schedule: the schedule.
        eta: share of DDPM's noise.
        final_alpha_bar: abar at the end of the last step: 1 is the image; the authors' code and latent
            diffusion's end at the first level of the trained schedule instead.
    """
    now_bar, before = schedule.alpha_bar, schedule.alpha_bar_prev.copy()
    before[0] = final_alpha_bar
    sigma = eta * np.sqrt((1 - before) / (1 - now_bar)) * np.sqrt(np.maximum(1 - now_bar / before, 0))
    direction = np.sqrt(np.maximum(1 - before - sigma**2, 0))

    def step(inputs: StepInput) -> Images:
        x, x_0, t, ndim = inputs.x, inputs.x_0, inputs.t, inputs.x.ndim
        eps = eps_from_x0(schedule, x, t, x_0)
        if inputs.score is not None:
            eps = eps - at(np.sqrt(1 - now_bar), t, ndim) * inputs.score
            x_0 = x0_from_eps(schedule, x, t, eps)
        mean = at(np.sqrt(before), t, ndim) * x_0 + at(direction, t, ndim) * eps
        return mean + at(sigma, t, ndim) * inputs.noise if eta else mean

    return stateless_sampler(schedule, step)


KINDS = (
    SamplerKind(
        "ddim",
        summary="deterministic, or with a share of DDPM's noise",
        reference="Song et al. 2021, Denoising diffusion implicit models",
        order=1,
        make=lambda schedule, settings: ddim(schedule, eta=settings.eta),
        spacing=spacing.DDIM,
        options=("spacing", "eta", "repeats"),
    ),
    SamplerKind(
        "ddim_guided_diffusion",
        summary="DDIM that adds a classifier's gradient after clipping, as guided-diffusion's code does",
        reference="github.com/openai/guided-diffusion, of Dhariwal and Nichol 2021, Diffusion models beat GANs",
        order=1,
        make=lambda schedule, settings: ddim(schedule, eta=settings.eta),
        spacing=spacing.DDIM,
        options=("spacing", "eta"),
        takes_score=True,
    ),
    SamplerKind(
        "ddim_author_code",
        summary="DDIM on the steps of the paper's code, which ends at its first noise level",
        reference="github.com/AtlasAnalyticsLab/Diffusion4Path",
        order=1,
        make=lambda schedule, settings: ddim(schedule, eta=settings.eta, final_alpha_bar=settings.trained.alpha_bar[0]),
        spacing=spacing.AUTHOR_CODE,
        options=("eta",),
    ),
)
