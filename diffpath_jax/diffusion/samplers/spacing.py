"""The spacing of a sampler's steps: which of the T trained steps it visits, N distinct indices, lowest first.

``even`` includes both ends, ``leading`` leaves out the highest levels, ``trailing`` the lowest. A spacing that leaves
out the highest calls an image with a little signal pure noise: with few steps its colours turn out grey.
"""

import math
import re
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from diffpath_jax.diffusion.schedule import NoiseSchedule
from diffpath_jax.io.registry import Registry

StepIndices = Int[np.ndarray, "N"]
# Numbers of steps of several sections.
SECTIONS = re.compile(r"[1-9][0-9]*(,[1-9][0-9]*)+")
# Of Karras et al. 2022, table 1: how levels are spread, and least and most sigma / alpha. More noise than that, which a
# cosine schedule has, differs from pure noise by a hundredth; steps spent there are lost, and Heun's go astray.
RHO, LEAST_NOISE, MOST_NOISE = 7.0, 0.002, 80.0


@runtime_checkable
class SpacingFn(Protocol):
    """Chooses steps of a schedule."""

    def __call__(self, schedule: NoiseSchedule, count: int, /) -> StepIndices:
        """Returns ``count`` increasing indices into the schedule."""


@dataclass(frozen=True)
class SpacingKind:
    """A spacing that users can choose.

    Attributes:
        name: the word that they choose it by.
        summary: a few words, for help.
        choose: chooses the steps.
    """

    name: str
    summary: str
    choose: SpacingFn


def even(schedule: NoiseSchedule, count: int) -> StepIndices:
    """Evenly spread, both ends included (ADM's respacing); a single step is the noisiest."""
    return _distinct(np.linspace(schedule.num_steps - 1, 0, count)[::-1], schedule)


EVEN = SpacingKind("even", "evenly spread, both ends included", even)


def leading(schedule: NoiseSchedule, count: int) -> StepIndices:
    """0, k, 2k, ... with k = T // N: DDIM's own steps, which leave out the last for N < T."""
    return np.arange(count) * (schedule.num_steps // count)


LEADING = SpacingKind("leading", "0, k, 2k, ... with k = T // N", leading)


def strided(schedule: NoiseSchedule, count: int) -> StepIndices:
    """0, k, 2k, ... up to T - 1 with the least k that makes them N: ``ddimN`` of guided-diffusion.

    Raises:
        ValueError: no k does, or only k = T, which starts at the image.
    """
    stride = _stride(schedule, count)
    if stride is None:
        raise ValueError(f"no whole stride gives exactly {count} steps")
    return np.arange(0, schedule.num_steps, stride)


STRIDED = SpacingKind("strided", "0, k, 2k, ... with the least k that makes them N", strided)


def ddim(schedule: NoiseSchedule, count: int) -> StepIndices:
    """Steps for DDIM that start within two strides of the noisiest, whatever their number.

    ``leading`` where less than one stride is left over, as for every N that divides T; it starts far below the top
    elsewhere (334 of 1000 steps at t = 666), so otherwise ``strided``, and ``even`` where there is no such stride.
    """
    stride = schedule.num_steps // count
    if 0 < stride < schedule.num_steps and schedule.num_steps // stride == count:
        return leading(schedule, count)
    return even(schedule, count) if _stride(schedule, count) is None else strided(schedule, count)


DDIM = SpacingKind("ddim", "leading where that starts near the top, else strided, else even", ddim)


def trailing(schedule: NoiseSchedule, count: int) -> StepIndices:
    """T - 1, T - 1 - T / N, ...: starts at the noisiest (Lin et al. 2024, "Common diffusion noise schedules")."""
    return _distinct(np.round(np.arange(count, 0, -1)[::-1] * schedule.num_steps / count) - 1, schedule)


TRAILING = SpacingKind("trailing", "T - 1, T - 1 - T / N, ...", trailing)


def quadratic(schedule: NoiseSchedule, count: int) -> StepIndices:
    """Squares of even steps, up to 0.8 T (Song et al. 2021, "DDIM", appendix D): starts below the noisiest levels."""
    return _distinct(np.linspace(0, np.sqrt(0.8 * schedule.num_steps), count) ** 2, schedule)


QUADRATIC = SpacingKind("quadratic", "squares, up to 0.8 T", quadratic)


def log_snr(schedule: NoiseSchedule, count: int) -> StepIndices:
    """Even in log(alpha / sigma) (Lu et al. 2022, "DPM-Solver")."""
    return _at_levels(schedule, np.linspace(*_bounds(schedule), count)[::-1])


LOG_SNR = SpacingKind("log_snr", "even in log(alpha / sigma)", log_snr)


def karras(schedule: NoiseSchedule, count: int) -> StepIndices:
    """Even in (sigma / alpha)^(1/7) (Karras et al. 2022, "EDM", equation 5)."""
    most, least = np.exp(np.asarray(_bounds(schedule)) / RHO)
    return _at_levels(schedule, RHO * np.log(np.linspace(most, least, count)[::-1]))


KARRAS = SpacingKind("karras", "even in (sigma / alpha)^(1/7)", karras)


def author_code(schedule: NoiseSchedule, count: int) -> StepIndices:
    """1, 1 + k, 1 + 2k, ... with k = T // N: the steps of the paper's own DDIM.

    Raises:
        ValueError: they run past the last step, as they do for N = T.
    """
    indices = leading(schedule, count) + 1
    if indices[-1] >= schedule.num_steps:
        raise ValueError(f"the spacing of the authors' code has no {count} of {schedule.num_steps} steps")
    return indices


# Not registered: it belongs to one sampler alone.
AUTHOR_CODE = SpacingKind("author_code", "1, 1 + k, 1 + 2k, ... with k = T // N", author_code)

SPACINGS: Registry[SpacingKind] = Registry(
    "spacing", (EVEN, LEADING, STRIDED, DDIM, TRAILING, QUADRATIC, LOG_SNR, KARRAS)
)


def sections(*counts: int) -> SpacingKind:
    """Returns a spacing of several equal sections of the schedule, lowest first, each with its own number of steps.

    As ``space_timesteps`` of guided-diffusion (Nichol and Dhariwal 2021, section 4): the first T mod S of S sections
    are one longer, steps include both ends of a section, and a single step of a section is its lowest.
    """
    name = ",".join(str(count) for count in counts)

    def choose(schedule: NoiseSchedule, count: int) -> StepIndices:
        if sum(counts) != count:
            raise ValueError(f"the sections {name} have {sum(counts)}")
        sizes = [len(part) for part in np.array_split(np.arange(schedule.num_steps), len(counts))]
        starts = np.cumsum([0, *sizes[:-1]])
        return np.concatenate([start + _across(*pair) for start, *pair in zip(starts, sizes, counts, strict=True)])

    return SpacingKind(name, "steps of equal sections", choose)


def find(text: str) -> SpacingKind | None:
    """Returns the spacing of that name, or that of sections whose numbers of steps these are ("100,50,10")."""
    if SECTIONS.fullmatch(text):
        return sections(*(int(count) for count in text.split(",")))
    return SPACINGS.get(text)


def _across(size: int, count: int) -> StepIndices:
    """Returns ``count`` steps from 0 to ``size`` - 1."""
    if count > size:
        raise ValueError(f"a section of {size} cannot have {count}")
    stride = (size - 1) / max(count - 1, 1)
    # Added up one by one, as in the published code, so that what is rounded is the same to the last bit.
    return np.round(np.cumsum([0.0] + [stride] * (count - 1))).astype(int)


def _stride(schedule: NoiseSchedule, count: int) -> int | None:
    """Returns the least k < T for which 0, k, 2k, ... below T are ``count``; none where there is none."""
    stride = -(-schedule.num_steps // count)
    return stride if stride < schedule.num_steps and -(-schedule.num_steps // stride) == count else None


def _noise_level(schedule: NoiseSchedule) -> Float[np.ndarray, "T"]:
    """log(sigma / alpha), which grows with t."""
    return 0.5 * (np.log1p(-schedule.alpha_bar) - np.log(schedule.alpha_bar))


def _bounds(schedule: NoiseSchedule) -> tuple[float, float]:
    """The highest and lowest level to visit."""
    level = _noise_level(schedule)
    return min(level[-1], math.log(MOST_NOISE)), max(level[0], math.log(LEAST_NOISE))


def _at_levels(schedule: NoiseSchedule, levels: Float[np.ndarray, "N"]) -> StepIndices:
    return _distinct(np.interp(levels, _noise_level(schedule), np.arange(schedule.num_steps)), schedule)


def _distinct(times: Float[np.ndarray, "N"], schedule: NoiseSchedule) -> StepIndices:
    """The nearest indices; one that is taken already gives way upwards, and what then falls off the end downwards."""
    order = np.arange(len(times))
    # The least i_n >= round(t_n) that increase: i_n - n must not fall, so it is the maximum of round(t_m) - m, m <= n.
    # N - 1 - n more must follow i_n below T, so it is T - N + n at most; both together still increase.
    upwards = np.maximum.accumulate(np.round(times).astype(int) - order) + order
    return np.minimum(upwards, schedule.num_steps - len(times) + order)
