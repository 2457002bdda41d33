"""The one loop of all samplers: a ``lax.scan`` in which each turn asks the denoiser once.

A sampler knows a denoiser, a schedule and keys; it does not know pixels from latents, guidance, or any network.
Noise comes from one key an image, so an image does not depend on its batch or device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffpath_jax.diffusion import schedule as diffusion
from diffpath_jax.diffusion.samplers.thresholding import Limit, clip
from diffpath_jax.diffusion.schedule import NoiseSchedule
from diffpath_jax.shapes import Denoiser, Images, PRNGKeys, Timesteps


class Evaluation(NamedTuple):
    """What is known when the denoiser has been asked.

    Attributes:
        x: x_t, what it was asked about.
        x_0: its estimate of the clean image, within the limits of the sampler.
        variance: learned variance as a fraction, or none.
        score: gradient that is to move the mean of an ancestral step, or none.
        t: index into the schedule, the same for all images.
        number: how many times the denoiser was asked before.
        noise: fresh standard normal noise; costs nothing where it is not used.
    """

    x: Images
    x_0: Images
    variance: Images | None
    score: Images | None
    t: Timesteps
    number: jax.Array
    noise: Images


# What a method carries from one turn to the next.
Memory = tuple[jax.Array, ...]


@dataclass(frozen=True, eq=False)
class Method:
    """How a sampler moves over a schedule.

    Attributes:
        schedule: the (respaced) schedule.
        visits: (E,) index into the schedule of each question to the denoiser, in order.
        remember: x_T -> what the method carries on its first turn.
        advance: (evaluation, memory) -> (the x to ask about next, memory); after the last turn, the image.
    """

    schedule: NoiseSchedule
    visits: Int[np.ndarray, "E"]
    remember: Callable[[jax.Array], Memory]
    advance: Callable[[Evaluation, Memory], tuple[jax.Array, Memory]]

    @property
    def evaluations(self) -> int:
        """Questions to the denoiser, E."""
        return len(self.visits)


def one_step_method(schedule: NoiseSchedule, rule: Callable[[Evaluation], jax.Array]) -> Method:
    """A method without memory: ``rule`` makes x_{t-1}, from t = T-1 down to 0."""
    return one_question_a_step(schedule, lambda x: (), lambda now, memory: (rule(now), memory))


def one_question_a_step(
    schedule: NoiseSchedule,
    remember: Callable[[jax.Array], Memory],
    advance: Callable[[Evaluation, Memory], tuple[jax.Array, Memory]],
) -> Method:
    """A method that asks once at each t, from T-1 down to 0, and remembers what it was told."""
    return Method(schedule, np.arange(schedule.num_steps - 1, -1, -1), remember, advance)


def image_noise(keys: PRNGKeys, number: int | Array, shape: tuple[int, int, int]) -> Images:
    """Standard normal noise, drawn for each image from its own key and ``number``."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, number), shape))(keys)


def sample(
    denoiser: Denoiser,
    method: Method,
    *,
    keys: PRNGKeys,
    shape: tuple[int, int, int],
    x_T: Images | None = None,
    limit: Limit = clip,
    film_frames: int = 0,
) -> tuple[Images, Float[Array, "frames b h w c"]]:
    """Draw images: x_T ~ N(0, I), then ``method`` down its schedule.

    Args:
        denoiser: eps as a function of (x_t, t), t an index into the method's schedule.
        method: one of this package.
        keys: one key an image.
        shape: (height, width, channels) of an image in model space.
        x_T: what to start from instead of noise, at the highest noise level of the schedule. With a schedule cut off
            above some level and images noised to it, this gives variations of the images.
        limit: keeps each estimate of x_0 within bounds (pixel models; latents have none).
        film_frames: how many intermediate estimates of x_0 to return, evenly spread and the last included.

    Returns:
        The images, and the film (estimates of x_0, noisiest first).
    """
    frames = jnp.asarray(np.round(np.linspace(0, method.evaluations - 1, film_frames)).astype(int))
    visits = jnp.asarray(method.visits)

    def turn(carry: tuple, number: jax.Array) -> tuple[tuple, None]:
        x, memory, film = carry
        t = jnp.full(len(keys), visits[number])
        found = denoiser(x, t)
        x_0 = limit(diffusion.x0_from_eps(method.schedule, x, t, found.eps))
        if film_frames:
            film = jnp.where((frames == number).reshape(-1, 1, 1, 1, 1), x_0, film)
        # x_T takes number 0, the last turn number 1: where there is one turn a step, step t takes t + 1.
        noise = image_noise(keys, method.evaluations - number, shape)
        x, memory = method.advance(Evaluation(x, x_0, found.variance, found.score, t, number, noise), memory)
        return (x, memory, film), None

    start = image_noise(keys, 0, shape) if x_T is None else x_T
    film = jnp.zeros((film_frames, *start.shape))
    carry = (start, method.remember(start), film)
    (x, _, film), _ = jax.lax.scan(turn, carry, jnp.arange(method.evaluations))
    return x, film
