"""What the user's tables say of slides, and all that a slide may be called there and by files that belong to it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.tables import composed, read_rows

V = TypeVar("V")
# Names that a note lists.
MAX_NAMES = 10


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


def files_of(slide: Path, files: Iterable[Path], suffixes: Sequence[str]) -> list[Path]:
    """Returns those of some files that are named as a slide, with one of some suffixes, written in any case."""
    names = names_of(slide)
    return [file for file in files if any(_is_called(composed(file.name), names, suffix) for suffix in suffixes)]


def _is_called(file: str, names: Sequence[str], suffix: str) -> bool:
    return file.lower().endswith(suffix) and file[: -len(suffix)] in names


def list_files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Returns the files of a folder with one of some suffixes, in the order of their names, but for hidden ones."""
    files = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return [path for path in files if path.name.lower().endswith(tuple(suffixes)) and path.is_file()]


def lookup(table: Mapping[str, V], names: Sequence[str], *, what: str, where: object) -> V | None:
    """Returns what a table says under one of some names, which are names of one thing; None where it has none.

    Args:
        table: by name.
        names: all that the thing may be called, the one that errors name first.
        what: is looked for, for errors.
        where: the table is, for errors.

    Raises:
        DiffpathError: it says two things.
    """
    said = [name for name in names if name in table]
    if any(table[name] != table[said[0]] for name in said):
        why = f"{names[0]} is meant by {' and '.join(map(repr, said))}, and they differ"
        raise DiffpathError(what, where=where, why=why, fix="keep one row for it")
    return table[said[0]] if said else None


def listed(names: Sequence[str]) -> str:
    """Returns how many names there are, and the first of them, for a note."""
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    # Names may hold line breaks, or bytes that are no text.
    readable = ["".join(c if c.isprintable() else repr(c)[1:-1] for c in name) for name in names[:MAX_NAMES]]
    return f"{len(names)} ({', '.join(readable)}{more})"
