"""What the distances of a stage say: how far each contestant is over the floor, and next to the best of the others."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from benchmarks import measure

LEVEL = 0.95


def over_floor(space: Mapping) -> dict[str, list[float]]:
    """Returns the distances of each contestant less the floor, a number a seed."""
    found: dict[str, list[float]] = {}
    for run, distance in space["distances"].items():
        found.setdefault(run.rpartition(" ")[0], []).append(distance - space["floor"])
    return found


def half_width(values: Sequence[float]) -> float | None:
    """Returns that of the interval of a mean over seeds (Student's t); none of one seed."""
    if len(values) < 2:
        return None
    return float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * stats.sem(values))


def ratio(values: Sequence[float], others: Sequence[float]) -> dict[str, float | None]:
    """Returns the ratio of two geometric means, with its interval where there are seeds enough (Welch's t of logs).

    Distances err in proportion. One at the floor, or below, has no logarithm: then there is no ratio.
    """
    if min(*values, *others) <= 0:
        return {"ratio": None, "low": None, "high": None}
    a, b = np.log(values), np.log(others)
    found = a.mean() - b.mean()
    if min(len(a), len(b)) < 2:
        return {"ratio": float(np.exp(found)), "low": None, "high": None}
    interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval(LEVEL)
    return {"ratio": float(np.exp(found)), "low": float(np.exp(interval.low)), "high": float(np.exp(interval.high))}


def compared(space: Mapping, *, ours: str = "ours", theirs: str = "theirs") -> dict[str, object]:
    """Returns each of our contestants next to the best of theirs in a space; empty where one side is missing.

    Args:
        space: distances and the floor.
        ours: what the names of our contestants begin with.
        theirs: what those of the others begin with.
    """
    excess = over_floor(space)
    others = {name: values for name, values in excess.items() if name.startswith(theirs)}
    if not others:
        return {}
    best = min(others, key=lambda name: np.mean(others[name]))
    own = {name: ratio(values, others[best]) for name, values in excess.items() if name.startswith(ours)}
    return {"best_of_theirs": best, "ratios": own}


def rows(spaces: Mapping[str, Mapping]) -> list[measure.Row]:
    """Returns a row for each contestant: its distance over the floor in every space, with the interval over seeds."""
    tables = {
        title + ("" if space["counts"] else " (does not count)"): over_floor(space) for title, space in spaces.items()
    }
    names = dict.fromkeys(name for table in tables.values() for name in table)
    return [{"contestant": name} | {title: _said(table[name]) for title, table in tables.items()} for name in names]


def _said(values: Sequence[float]) -> str:
    half = half_width(values)
    return _shown(float(np.mean(values)), 3) + (f" ± {_shown(half, 2)}" if half is not None else "")


def _shown(value: float, digits: int) -> str:
    """Returns a number with so many digits, and never as a power of ten."""
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"
