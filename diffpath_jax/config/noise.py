"""From the section ``noise`` to a noise schedule."""

from diffpath_jax.config.sections import NoiseConfig
from diffpath_jax.diffusion import schedule as diffusion
from diffpath_jax.diffusion.schedule import NoiseSchedule


def schedule(config: NoiseConfig) -> NoiseSchedule:
    """The noise schedule a model is trained with."""
    if config.schedule == "cosine":
        return diffusion.cosine_schedule(config.num_steps)
    make = {"linear": diffusion.linear_schedule, "scaled_linear": diffusion.scaled_linear_schedule}
    return make[config.schedule](config.num_steps, beta_start=config.beta_start, beta_end=config.beta_end)
