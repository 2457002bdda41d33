"""What the user's tables say of slides, and all that a slide may be called there."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.tables import composed, read_rows

V = TypeVar("V")


def read_table(path: Path, *, columns: tuple[str, str]) -> dict[str, str]:
    """Read two columns of a CSV as a mapping from the first to the second.

    Raises:
        DiffpathError: as :func:`read_rows`, or a key has two different values.
    """
    key, value = columns
    table: dict[str, str] = {}
    for row in read_rows(path, columns=columns):
        if table.setdefault(row[key], row[value]) != row[value]:
            why = f"{row[key]} stands twice with other values"
            raise DiffpathError("table", where=path, why=why, fix=f"give each {key} one {value}")
    return table


def names_of(path: Path) -> tuple[str, ...]:
    """Returns all that a slide may be called in tables and by annotation files: with its suffixes, and without."""
    names = (path.name, path.stem, path.stem.removesuffix(".ome"))
    return tuple(dict.fromkeys(composed(name) for name in names))


def lookup(table: Mapping[str, V], names: Sequence[str]) -> V | None:
    """Returns what a table says of the first of some names that it has; None for none."""
    return next((table[name] for name in names if name in table), None)
