"""Which of the T trained steps a sampler visits: N distinct indices, lowest first.

``even`` includes both ends, ``leading`` leaves out the highest levels, ``trailing`` the lowest. A grid that leaves out
the highest calls an image with a little signal pure noise: with few steps its colours turn out grey.
"""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from diffpath_jax.diffusion.schedule import NoiseSchedule

Kept = Int[np.ndarray, "N"]
Grid = Callable[[NoiseSchedule, int], Kept]
# Of Karras et al. 2022, table 1: how levels are spread, and least and most sigma / alpha. More noise than that, which a
# cosine schedule has, differs from pure noise by a hundredth; steps spent there are lost, and Heun's go astray.
RHO, LEAST_NOISE, MOST_NOISE = 7.0, 0.002, 80.0


def even(schedule: NoiseSchedule, count: int) -> Kept:
    """Evenly spread, both ends included (ADM's respacing); a single step is the noisiest."""
    return _distinct(np.linspace(schedule.num_steps - 1, 0, count)[::-1], schedule)


def leading(schedule: NoiseSchedule, count: int) -> Kept:
    """0, k, 2k, ... with k = T // N: DDIM's own grid, which leaves out the last step for N < T."""
    return np.arange(count) * (schedule.num_steps // count)


def trailing(schedule: NoiseSchedule, count: int) -> Kept:
    """T - 1, T - 1 - T / N, ...: starts at the noisiest (Lin et al. 2024, "Common diffusion noise schedules")."""
    return _distinct(np.round(np.arange(count, 0, -1)[::-1] * schedule.num_steps / count) - 1, schedule)


def quadratic(schedule: NoiseSchedule, count: int) -> Kept:
    """Squares of an even grid, up to 0.8 T (Song et al. 2021, "DDIM", appendix D): starts below the noisiest levels."""
    return _distinct(np.linspace(0, np.sqrt(0.8 * schedule.num_steps), count) ** 2, schedule)


def log_snr(schedule: NoiseSchedule, count: int) -> Kept:
    """Even in log(alpha / sigma) (Lu et al. 2022, "DPM-Solver")."""
    return _at_levels(schedule, np.linspace(*_bounds(schedule), count)[::-1])


def karras(schedule: NoiseSchedule, count: int) -> Kept:
    """Even in (sigma / alpha)^(1/7) (Karras et al. 2022, "EDM", equation 5)."""
    most, least = np.exp(np.asarray(_bounds(schedule)) / RHO)
    return _at_levels(schedule, RHO * np.log(np.linspace(most, least, count)[::-1]))


def author_code(schedule: NoiseSchedule, count: int) -> Kept:
    """1, 1 + k, 1 + 2k, ... with k = T // N: the grid of the paper's own DDIM.

    Raises:
        ValueError: it runs past the last step, as it does for N = T.
    """
    kept = leading(schedule, count) + 1
    if kept[-1] >= schedule.num_steps:
        raise ValueError(f"the grid of the authors' code has no {count} of {schedule.num_steps} steps")
    return kept


def _noise_level(schedule: NoiseSchedule) -> Float[np.ndarray, "T"]:
    """log(sigma / alpha), which grows with t."""
    return 0.5 * (np.log1p(-schedule.alpha_bar) - np.log(schedule.alpha_bar))


def _bounds(schedule: NoiseSchedule) -> tuple[float, float]:
    """The highest and lowest level to visit."""
    level = _noise_level(schedule)
    return min(level[-1], math.log(MOST_NOISE)), max(level[0], math.log(LEAST_NOISE))


def _at_levels(schedule: NoiseSchedule, levels: Float[np.ndarray, "N"]) -> Kept:
    return _distinct(np.interp(levels, _noise_level(schedule), np.arange(schedule.num_steps)), schedule)


def _distinct(times: Float[np.ndarray, "N"], schedule: NoiseSchedule) -> Kept:
    """The nearest indices; one that is taken already gives way upwards, and what then falls off the end downwards."""
    order = np.arange(len(times))
    upwards = np.maximum.accumulate(np.round(times).astype(int) - order) + order
    return np.minimum(upwards, schedule.num_steps - len(times) + order)
