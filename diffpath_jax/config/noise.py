"""From the section ``noise`` to a noise schedule."""

from diffpath_jax.config.sections import NoiseConfig
from diffpath_jax.diffusion.schedule import (
    NoiseSchedule,
    cosine_schedule,
    linear_schedule,
    scaled_linear_schedule,
    shift,
)


def schedule(config: NoiseConfig) -> NoiseSchedule:
    """The noise schedule a model is trained with."""
    made = _named(config)
    return made if config.snr_factor == 1 else shift(made, config.snr_factor)


def _named(config: NoiseConfig) -> NoiseSchedule:
    """Returns the schedule as it was published."""
    if config.schedule == "cosine":
        return cosine_schedule(config.num_steps)
    make = {"linear": linear_schedule, "scaled_linear": scaled_linear_schedule}
    return make[config.schedule](config.num_steps, beta_start=config.beta_start, beta_end=config.beta_end)
