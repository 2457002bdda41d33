"""Steps that are made several times, so that what is painted and what is known come to agree."""

import jax.numpy as jnp
import numpy as np

from diffpath_jax.diffusion.samplers.loop import Sampler, SamplerState, StepInput
from diffpath_jax.diffusion.schedule import at
from diffpath_jax.shapes import Images


def repeated(sampler: Sampler, times: int) -> Sampler:
    """Make each step ``times`` times, and between them go back up by one step of the forward process.

    ``x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) z`` (Lugmayr et al. 2022, "RePaint", algorithm 1, line 9; a jump is
    one step long here). Of an unknown part of an image each round draws given the known part of the round before.

    Args:
        sampler: without a state, one call of the denoiser a step, and no noise of its own: z is that of the loop.
        times: how often; 1 is the sampler itself.
    """
    if times == 1:
        return sampler
    keep, spread = np.sqrt(1 - sampler.schedule.betas), np.sqrt(sampler.schedule.betas)

    def step(inputs: StepInput, state: SamplerState) -> tuple[Images, SamplerState]:
        x, state = sampler.step(inputs, state)
        again = at(keep, inputs.t, x.ndim) * x + at(spread, inputs.t, x.ndim) * inputs.noise
        return jnp.where(inputs.call % times == times - 1, x, again), state

    return Sampler(sampler.schedule, np.repeat(sampler.step_indices, times), sampler.init, step)
