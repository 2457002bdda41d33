"""Columns of a user's table beside the images of a data set: site, scanner, stain, age, whatever patients differ in.

A column is a category, whose values are words, or a number. Records hold a number for each: that of the word, or the
share of the way from the least number of the table to the greatest; NaN where nothing is known.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float32

from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.names import check_names
from diffpath_jax.io.tables import header, read_rows

# Table of `diffpath prep` that says which file and which patient stand behind a record's hash of the slide.
PATCHES = Path("private") / "patches.parquet"
# Columns by which a row may name what it is of, and those of the table of patches that hold the names.
KEYS = {"slide": "slide_file", "patient": "patient"}
MAX_VALUES = 1000
# What a model may be told of an image under a name of its own.
TAKEN = ("label", "class", "mpp", "features", "columns")
Values = Float32[np.ndarray, "columns"]


@dataclass(frozen=True)
class Column:
    """A column of the records of a data set.

    Attributes:
        name: of the column.
        values: its words, in order; none for a number.
        low: least number of the table.
        high: greatest one.
    """

    name: str
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0

    def encode(self, text: str) -> float:
        """Returns what records hold for a word of the table.

        Raises:
            ValueError: it is none of the column's.
        """
        if not text:
            return math.nan
        if self.values:
            if text not in self.values:
                raise ValueError(f"{text!r} is none of {', '.join(self.values)}")
            return float(self.values.index(text))
        return (float(text) - self.low) / (self.high - self.low)

    def decode(self, number: float) -> str | float:
        """Returns the word of the table, or the number."""
        if self.values:
            return self.values[round(number)]
        return self.low + number * (self.high - self.low)

    def as_json(self) -> dict[str, Any]:
        """Returns what is stored, lists for tuples."""
        return {**asdict(self), "values": list(self.values)}

    def __str__(self) -> str:
        """The column in words."""
        return f"{self.name} ({', '.join(self.values) if self.values else f'{self.low:g} to {self.high:g}'})"


def column_of(name: str, texts: Sequence[str]) -> Column:
    """Returns a column that holds some texts: a number where all are, but for those that are empty.

    Raises:
        ValueError: its name is no plain word, or it holds nothing, one number alone, or more words than are useful.
    """
    check_names(name)
    known = sorted({text for text in texts if text})
    try:
        numbers = [float(text) for text in known]
    except ValueError:
        numbers = []
    if numbers and all(map(math.isfinite, numbers)):
        if min(numbers) == max(numbers):
            raise ValueError(f"all its numbers are {min(numbers):g}")
        return Column(name, low=min(numbers), high=max(numbers))
    if not known or len(known) > MAX_VALUES:
        raise ValueError(f"it has {len(known)} values" if known else "it is empty")
    return Column(name, tuple(known))


def read_columns(table: Path, names: Sequence[str], directory: Path) -> tuple[tuple[Column, ...], dict[str, Values]]:
    """Reads columns of a table for the slides of a data set.

    Args:
        table: CSV with a column ``slide`` or ``patient``, and those.
        names: of the columns.
        directory: of the data set, whose private table says whose each slide is.

    Returns:
        The columns, and the values of each slide by the hash that records have for it.

    Raises:
        DiffpathError: a table is missing or not as it should be, or has no row, or two different ones, for a slide.
    """
    if len(set(names)) < len(names):
        raise DiffpathError("columns", where=table, why=f"{','.join(names)} names one twice", fix="name each once")
    if taken := [name for name in names if name in TAKEN]:
        why, fix = "a model knows something else by this name", "give the column another one"
        raise DiffpathError(f"column {taken[0]!r}", where=table, why=why, fix=fix)
    key = next((name for name in KEYS if name in header(table)), "slide")
    rows: dict[str, list[str]] = {}
    for row in read_rows(table, columns=(key, *names), may_be_empty=names):
        texts = [row[name] for name in names]
        if rows.setdefault(row[key], texts) != texts:
            why, fix = f"{row[key]} stands twice with other values", f"give each {key} one row"
            raise DiffpathError("table", where=table, why=why, fix=fix)
    behind = {slide: _row_of(name, rows, table, key) for slide, name in _names(directory, KEYS[key]).items()}
    columns = []
    for number, name in enumerate(names):
        try:
            columns.append(column_of(name, [texts[number] for texts in behind.values()]))
        except ValueError as error:
            raise DiffpathError(f"column {name!r}", where=table, why=str(error), fix="leave it out") from error
    encoded = {
        slide: np.array([column.encode(text) for column, text in zip(columns, texts, strict=True)], np.float32)
        for slide, texts in behind.items()
    }
    return tuple(columns), encoded


def _names(directory: Path, column: str) -> Mapping[str, str]:
    """Returns the name of the file, or of the patient, behind each hash of a slide."""
    path = directory / PATCHES
    if not path.is_file():
        fix = "name a data set of `diffpath prep` with its folder private/"
        raise DiffpathError("data set", where=directory, why="nothing says whose its slides are", fix=fix)
    found = pq.read_table(path, columns=["slide", column])
    return dict(zip(found["slide"].to_pylist(), found[column].to_pylist(), strict=True))


def _row_of(name: str, rows: Mapping[str, list[str]], table: Path, key: str) -> list[str]:
    for called in (name, Path(name).stem):
        if called in rows:
            return rows[called]
    raise DiffpathError(key, where=table, why=f"no row for {name}", fix="add the row")
