r"""Drawing from an image instead of from noise: variations, blends and repair, for every sampler.

A *variation* (Meng et al. 2022, "SDEdit", algorithm 1) starts at a level t of the schedule from the noised image,

    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps                                                       (1)

and a *blend* (Ho et al. 2020, "Denoising diffusion probabilistic models", section 4.3) from two images that have the
same noise, (1 - w) x_t + w y_t, which is equation 1 of (1 - w) x_0 + w y_0. *In-painting* tells the denoiser what is
known of the image: there its eps is the one that leads to x_0, so that x_t goes through equation 1 at every level
(Song et al. 2021, "Score-based generative modeling", appendix I.2). What is painted sees the known part only as far as
it is noised; to go over each step several times (Lugmayr et al. 2022, "RePaint", algorithm 1) brings the two together.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffpath_jax.diffusion.schedule import NoiseSchedule, eps_from_x0, q_sample
from diffpath_jax.shapes import Denoiser, DenoiserOutput, Images, Timesteps

# True where a pixel (or a cell of latents) is known.
Known = Bool[Array, "b h w 1"]


def below(schedule: NoiseSchedule, level: float, *, num_trained: int) -> NoiseSchedule:
    """Returns the steps of a schedule below a share of the trained one.

    Args:
        schedule: the (respaced) schedule.
        level: 0 (no step is left) to 1 (all are).
        num_trained: steps of the schedule that the model was trained with.
    """
    kept = int((np.asarray(schedule.timesteps) < level * num_trained).sum())
    return NoiseSchedule(schedule.betas[:kept], schedule.timesteps[:kept])


def blend(x: Images, y: Images, weight: Float[Array, "b"]) -> Images:
    """Returns ``(1 - w) x + w y``; x itself at w = 0."""
    w = weight.reshape(-1, 1, 1, 1)
    return (1 - w) * x + w * y


def at_top(schedule: NoiseSchedule, x_0: Images, eps: Images) -> Images:
    """Returns images at the highest level of a schedule (equation 1); as they are where it has no step."""
    if not schedule.num_steps:
        return x_0
    return q_sample(schedule, x_0, jnp.full(len(x_0), schedule.num_steps - 1), eps)


def known_cells(known: Known, size: tuple[int, int]) -> Bool[Array, "b h2 w2 1"]:
    """Returns which cells of latents are known: those all of whose pixels are.

    Args:
        known: of the pixels.
        size: height and width of the latents, which divide those of the image.
    """
    count, height, width, _ = known.shape
    cells = known.reshape(count, size[0], height // size[0], size[1], width // size[1], 1)
    return cells.all(axis=(2, 4))


def with_known(denoiser: Denoiser, schedule: NoiseSchedule, x_0: Images, known: Known) -> Denoiser:
    """Tell a denoiser a part of the image: there its eps leads to x_0, and a classifier moves nothing.

    Args:
        denoiser: with everything that it is guided by.
        schedule: the schedule that t is an index into.
        x_0: the image, where it is known.
        known: where it is.
    """

    def told(x_t: Images, t: Timesteps) -> DenoiserOutput:
        output = denoiser(x_t, t)
        eps = jnp.where(known, eps_from_x0(schedule, x_t, t, x_0), output.eps)
        score = None if output.score is None else jnp.where(known, 0, output.score)
        return output._replace(eps=eps, score=score)

    return told
