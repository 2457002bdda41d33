"""um/px of a slide: where the number comes from, when it is refused, and what speaks against it."""

import math
from dataclasses import dataclass
from pathlib import Path

from diffpath_jax.io.errors import DiffpathError

# Below 0.05 um/px no light microscope resolves anything; above 20 um/px no nucleus is visible.
PLAUSIBLE_MPP = (0.05, 20.0)
# Cameras and stages are calibrated to a few per cent. Pixels twice as wide as high are a mistake in the file.
MAX_UNEQUAL = 1.1
# What rounding explains: 0.2525 beside 0.2527, or beside 0.25.
ROUNDING = 1.01
# An objective of 10X gives about 1 um/px, one of 20X about 0.5.
MPP_TIMES_POWER = 10.0
# Further off than this the number is nearer to that of an objective of twice or half the power.
MAX_OFF_POWER = math.sqrt(2)


@dataclass(frozen=True)
class Scale:
    """Physical scale of level 0.

    Attributes:
        x: um per pixel along the width.
        y: um per pixel along the height.
        source: where the numbers came from.
        doubts: what speaks against them, for a person to judge; the numbers are used as they are.
    """

    x: float
    y: float
    source: str
    doubts: tuple[str, ...] = ()


def find_scale(
    path: Path, stated: tuple[float, float] | None, objective: float | None, from_table: float | None
) -> Scale:
    """um/px of a slide: what the user gives, else what the slide states. Each axis is used as it is stated.

    Args:
        path: the slide, for errors.
        stated: um/px along x and y that the slide states, NaN for no number; None if it does not.
        objective: power of the objective that the slide states, if it does.
        from_table: um/px of both axes, from the user's table.

    Raises:
        DiffpathError: there is none, it is implausible, or its axes are further apart than :data:`MAX_UNEQUAL`.
    """
    wrong = _refusal(stated)
    if from_table is not None:
        both = (from_table, from_table)
        return Scale(*both, "table", _doubts(both, objective, beside=None if wrong else stated))
    if wrong or stated is None:
        fix = f"give a CSV with the columns slide,mpp and the row {path.name},<um per px> as --mpp_csv"
        raise DiffpathError("um/px", where=path, why=str(wrong), fix=fix)
    return Scale(*stated, "slide", _doubts(stated, objective, beside=None))


def _refusal(stated: tuple[float, float] | None) -> str | None:
    """Returns why what a slide states cannot be used; None if it can."""
    low, high = PLAUSIBLE_MPP
    if stated is None:
        return "the slide does not state it"
    text = f"{stated[0]:g} x {stated[1]:g}"
    if not all(low <= mpp <= high for mpp in stated):  # NaN fails too
        return f"{text} is not plausible"
    if max(stated) / min(stated) > MAX_UNEQUAL:
        return f"{text}: no scanner's pixels are so unequal"
    return None


def _doubts(
    used: tuple[float, float], objective: float | None, *, beside: tuple[float, float] | None
) -> tuple[str, ...]:
    """Returns what speaks against um/px: unequal axes, the objective, or what the slide states ``beside`` a table."""
    doubts = []
    if _ratio(*used) > ROUNDING:
        doubts.append(f"{used[0]:g} um/px along x and {used[1]:g} along y: fields are square in um, not in px")
    mean, power = math.sqrt(used[0] * used[1]), objective or 0.0
    if 0 < power < math.inf and _ratio(mean, MPP_TIMES_POWER / power) > MAX_OFF_POWER:
        doubts.append(f"{mean:.4g} um/px, but {power:g}X gives about {MPP_TIMES_POWER / power:.2g}")
    if beside and max(map(_ratio, used, beside)) > ROUNDING:
        doubts.append(f"{used[0]:g} um/px from the table, but the slide states {beside[0]:g} x {beside[1]:g}")
    return tuple(doubts)


def _ratio(one: float, other: float) -> float:
    """Returns the ratio of two positive numbers, at least 1."""
    return max(one, other) / min(one, other)
