"""The one loop of all samplers: a ``lax.scan`` in which each turn calls the denoiser once.

A sampler knows a denoiser, a schedule and keys; it does not know pixels from latents, guidance, or any network.
Noise comes from one key an image, so an image does not depend on its batch or device.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffpath_jax.diffusion.samplers.thresholding import Threshold, clip
from diffpath_jax.diffusion.schedule import NoiseSchedule, x0_from_eps
from diffpath_jax.shapes import Denoiser, Images, PRNGKeys, Timesteps


class StepInput(NamedTuple):
    """Everything a sampler's step may depend on, after a call of the denoiser.

    Attributes:
        x: x_t, the input of the call.
        x_0: estimate of the clean image, thresholded.
        variance: learned variance as a fraction, or none.
        score: gradient of a classifier, times its scale, where it is left to the step; or none.
        t: index into the schedule, the same for all images.
        call: number of calls of the denoiser before this one.
        noise: fresh standard normal noise; costs nothing where it is not used.
    """

    x: Images
    x_0: Images
    variance: Images | None
    score: Images | None
    t: Timesteps
    call: jax.Array
    noise: Images


# Arrays that a sampler carries from one call of the denoiser to the next.
SamplerState = tuple[jax.Array, ...]


@runtime_checkable
class InitFn(Protocol):
    """Makes the state before the first call."""

    def __call__(self, x_T: Images, /) -> SamplerState:
        """Returns the state that goes with the starting noise."""


@runtime_checkable
class StepFn(Protocol):
    """Goes on from a call of the denoiser."""

    def __call__(self, inputs: StepInput, state: SamplerState, /) -> tuple[Images, SamplerState]:
        """Returns the input of the next call (after the last call the image) and the new state."""


@runtime_checkable
class StatelessStepFn(Protocol):
    """A step that depends on nothing but the last call of the denoiser."""

    def __call__(self, inputs: StepInput, /) -> Images:
        """Returns x_{t-1}."""


@dataclass(frozen=True, eq=False)
class Sampler:
    """A way down a schedule, from noise to an image.

    Attributes:
        schedule: the (respaced) schedule.
        step_indices: (E,) index into the schedule of each call of the denoiser, in order.
        init: makes the state before the first call.
        step: goes on from each call.
    """

    schedule: NoiseSchedule
    step_indices: Int[np.ndarray, "E"]
    init: InitFn
    step: StepFn

    @property
    def num_evaluations(self) -> int:
        """Calls of the denoiser, E (NFE)."""
        return len(self.step_indices)


def stateless_sampler(schedule: NoiseSchedule, step: StatelessStepFn) -> Sampler:
    """A sampler without state, whose ``step`` makes x_{t-1}, from t = T-1 down to 0."""
    return single_call_sampler(schedule, lambda x_T: (), lambda inputs, state: (step(inputs), state))


def single_call_sampler(schedule: NoiseSchedule, init: InitFn, step: StepFn) -> Sampler:
    """A sampler that calls the denoiser once at each t, from T-1 down to 0."""
    return Sampler(schedule, np.arange(schedule.num_steps - 1, -1, -1), init, step)


def no_steps(schedule: NoiseSchedule) -> Sampler:
    """A sampler that leaves its start as it is."""
    return stateless_sampler(NoiseSchedule(schedule.betas[:0], schedule.timesteps[:0]), lambda inputs: inputs.x)


def image_noise(keys: PRNGKeys, number: int | Array, shape: tuple[int, int, int]) -> Images:
    """Standard normal noise, drawn for each image from its own key and ``number``."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, number), shape))(keys)


class Drawing(NamedTuple):
    """Images on their way, between two calls of the denoiser.

    Attributes:
        x: input of the next call; after the last, the images.
        state: of the sampler.
        trajectory: the estimates of x_0 that are kept, as far as they are there.
    """

    x: Images
    state: SamplerState
    trajectory: Float[Array, "frames b h w c"]


def begin(
    sampler: Sampler,
    *,
    keys: PRNGKeys,
    shape: tuple[int, int, int],
    x_T: Images | None = None,
    trajectory_frames: int = 0,
) -> Drawing:
    """Returns images before the first call of the denoiser; arguments are those of :func:`sample`."""
    start = image_noise(keys, 0, shape) if x_T is None else x_T
    frames = (trajectory_frames, *start.shape)
    trajectory = jnp.zeros(frames) if sampler.num_evaluations else jnp.broadcast_to(start, frames)
    return Drawing(start, sampler.init(start), trajectory)


def advance(
    denoiser: Denoiser,
    sampler: Sampler,
    drawing: Drawing,
    calls: Int[Array, "_"],
    *,
    keys: PRNGKeys,
    threshold: Threshold,
) -> Drawing:
    """Returns images after some more calls of the denoiser, by their numbers; other arguments as in :func:`sample`."""
    count = len(drawing.trajectory)
    frames = jnp.asarray(np.round(np.linspace(0, sampler.num_evaluations - 1, count)).astype(int))
    step_indices = jnp.asarray(sampler.step_indices)

    def turn(drawing: Drawing, call: jax.Array) -> tuple[Drawing, None]:
        x, state, trajectory = drawing
        t = jnp.full(len(keys), step_indices[call])
        output = denoiser(x, t)
        x_0 = threshold(x0_from_eps(sampler.schedule, x, t, output.eps))
        if count:
            trajectory = jnp.where((frames == call).reshape(-1, 1, 1, 1, 1), x_0, trajectory)
        # x_T takes number 0, the last turn number 1: where there is one turn a step, step t takes t + 1.
        _, height, width, channels = x.shape
        noise = image_noise(keys, sampler.num_evaluations - call, (height, width, channels))
        x, state = sampler.step(StepInput(x, x_0, output.variance, output.score, t, call, noise), state)
        return Drawing(x, state, trajectory), None

    return jax.lax.scan(turn, drawing, calls)[0]


def sample(
    denoiser: Denoiser,
    sampler: Sampler,
    *,
    keys: PRNGKeys,
    shape: tuple[int, int, int],
    x_T: Images | None = None,
    threshold: Threshold = clip,
    trajectory_frames: int = 0,
) -> tuple[Images, Float[Array, "frames b h w c"]]:
    """Draw images: x_T ~ N(0, I), then ``sampler`` down its schedule.

    Args:
        denoiser: eps as a function of (x_t, t), t an index into the sampler's schedule.
        sampler: one of this package.
        keys: one key an image.
        shape: (height, width, channels) of an image in model space.
        x_T: start instead of noise, at the highest noise level of the schedule; see
            :mod:`diffpath_jax.diffusion.starts`.
        threshold: keeps each estimate of x_0 within bounds (pixel models; latents have none).
        trajectory_frames: number of estimates of x_0 to return, evenly spread over the calls and the last included.

    Returns:
        The images, and the trajectory (estimates of x_0, noisiest first).
    """
    drawing = begin(sampler, keys=keys, shape=shape, x_T=x_T, trajectory_frames=trajectory_frames)
    if sampler.num_evaluations:
        calls = jnp.arange(sampler.num_evaluations)
        drawing = advance(denoiser, sampler, drawing, calls, keys=keys, threshold=threshold)
    return drawing.x, drawing.trajectory
