"""What a model is told of an image: in a user's words, and as its network takes it.

Columns of a user's table are one condition of the network, and go by their own names everywhere else.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.networks.conditions import COLUMNS, CONDITIONS, FEATURES, LABEL, SCALE
from diffpath_jax.runs.run import Run

# What an image is drawn from: the value of each condition, by name; of what is not there the network is told nothing.
Told = Mapping[str, float | int | tuple[float, ...]]
# The same as users say it.
Said = Mapping[str, str | float | int]


def for_each_class(run: Run, others: Told | None = None) -> tuple[Told, ...]:
    """Returns conditions of one class of a run after the other, with the same values of ``others``.

    A model of several magnifications is told that of its first data set, where ``others`` have none.
    """
    scale = {SCALE.name: run.mpp} if SCALE.name in run.config.network.conditions else {}
    return tuple({LABEL.name: label, **scale, **(others or {})} for label in range(len(run.classes)))


def drawn_mpp(run: Run, told: Told) -> float:
    """Returns the um/px of images that are drawn under some conditions."""
    mpp = told.get(SCALE.name, run.mpp)
    return run.mpp if isinstance(mpp, tuple) else float(mpp)


def told_of(said: Said, run: Run) -> Told:
    """Returns conditions besides the class as a network takes them.

    Args:
        said: words, as on the command line; or numbers.
        run: the model.

    Raises:
        DiffpathError: the model is not told it, or a word is no value of it.
    """
    columns = [column.name for column in run.columns]
    parsers = {name: CONDITIONS[name].parse for name in run.config.network.conditions if name != LABEL.name}
    known = [*(name for name, parse in parsers.items() if parse), *columns]
    told: dict[str, float | int | tuple[float, ...]] = {}
    for name, value in said.items():
        if name not in known:
            raise _unknown(name, known, run)
        parse = parsers.get(name)
        try:
            if name not in columns:
                told[name] = parse(value) if parse and isinstance(value, str) else _number(value)
        except ValueError as error:
            raise DiffpathError("condition", where=run.workdir, why=str(error), fix="change it") from error
    if any(name in columns for name in said):
        told[COLUMNS.name] = _row(said, run)
    return told


def _unknown(name: str, known: Sequence[str], run: Run) -> DiffpathError:
    """Returns what is said of a condition that the model is not told, or not by a word."""
    why, fix = f"the model is not told {name!r}", f"it takes {', '.join(known)}"
    if name == FEATURES.name and name in run.config.network.conditions:
        why, fix = f"no word says {name}", "name images with `like`"
    elif not known:
        fix = "it takes the class alone: leave it out"
    return DiffpathError("condition", where=run.workdir, why=why, fix=fix)


def _number(value: str | float | int) -> float | int:
    return float(value) if isinstance(value, str) else value


def _row(said: Said, run: Run) -> tuple[float, ...]:
    """Returns a value for each column, NaN where nothing is said of it."""
    try:
        return tuple(column.encode(str(said.get(column.name, ""))) for column in run.columns)
    except ValueError as error:
        raise DiffpathError("condition", where=run.workdir, why=str(error), fix="change it") from error


def named(told: Told, run: Run) -> dict[str, str | float | int]:
    """Returns conditions besides the class by the names that users know them by, without what is not known."""
    named: dict[str, str | float | int] = {}
    for name, value in told.items():
        if isinstance(value, tuple):
            pairs = zip(run.columns, value, strict=True)
            named |= {column.name: column.decode(number) for column, number in pairs if not math.isnan(number)}
        elif name != LABEL.name:
            named[name] = value
    return named


def conditions_of(indices: Int[np.ndarray, "n"], conditions: Sequence[Told]) -> dict[str, np.ndarray]:
    """Returns the conditions of images by their indices, as arrays by name."""
    numbers = indices % len(conditions)
    return {
        name: np.asarray([told[name] for told in conditions], CONDITIONS[name].null(0).dtype)[numbers]
        for name in conditions[0]
    }
