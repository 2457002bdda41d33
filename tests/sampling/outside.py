"""A sampler and a spacing of somebody else, in one file; run it as ``python outside.py sample ...``."""

import numpy as np

from diffpath_jax import cli
from diffpath_jax.diffusion.samplers.catalogue import SAMPLERS
from diffpath_jax.diffusion.samplers.kinds import SamplerKind
from diffpath_jax.diffusion.samplers.loop import stateless_sampler
from diffpath_jax.diffusion.samplers.spacing import SPACINGS, SpacingKind
from diffpath_jax.diffusion.schedule import at


def euler(schedule, settings):
    """Euler's method on y = x / alpha over s = sigma / alpha, whose slope is (y - x_0) / s."""
    alpha, alpha_p = np.sqrt(schedule.alpha_bar), np.sqrt(schedule.alpha_bar_prev)
    s, s_p = np.sqrt(1 / schedule.alpha_bar - 1), np.sqrt(1 / schedule.alpha_bar_prev - 1)

    def step(inputs):
        y = inputs.x / at(alpha, inputs.t, 4)
        y = y + at((s_p - s) / s, inputs.t, 4) * (y - inputs.x_0)
        return at(alpha_p, inputs.t, 4) * y

    return stateless_sampler(schedule, step)


def halving(schedule, count):
    """..., (T - 1) / 4, (T - 1) / 2, T - 1."""
    return (schedule.num_steps - 1) >> np.arange(count)[::-1]


HALVING = SpacingKind("halving", "half the time at each step", halving)
EULER = SamplerKind("euler", "Euler's method", "Euler 1768", order=1, make=euler, spacing=HALVING)


def register():
    SPACINGS.register(HALVING)
    SAMPLERS.register(EULER)


if __name__ == "__main__":
    register()
    cli.entry_point()
