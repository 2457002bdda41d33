"""Rows by name: whatever users choose by a word is one row beside its code, and others add theirs from outside."""

import functools
import importlib
import importlib.metadata
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, Protocol, TypeVar, runtime_checkable


@runtime_checkable
class Named(Protocol):
    """A row of a registry."""

    @property
    def name(self) -> str:
        """The word that users choose it by."""


Row = TypeVar("Row", bound=Named)


class Registry(Mapping[str, Row], Generic[Row]):
    """Rows by name, in the order in which they were registered.

    Modules that register rows of their own when they are imported need no list: those of ``package``, and those that
    installed packages name as entry points of a group, are imported when the rows are first asked for.

    Args:
        noun: the word for a row in messages.
        rows: those that come with the package.
        unique: what no two rows may share besides the name, by the word for it.
        package: name of the package whose modules register rows; empty for none.
        entry_points: the group of entry points that name modules of other packages; empty for none.
    """

    def __init__(
        self,
        noun: str,
        rows: Iterable[Row] = (),
        *,
        unique: Mapping[str, Callable[[Row], object]] | None = None,
        package: str = "",
        entry_points: str = "",
    ) -> None:
        self.noun = noun
        self._unique: dict[str, Callable[[Row], object]] = {"name": lambda row: row.name, **(unique or {})}
        self._discover = functools.cache(lambda: _import_all(package, entry_points))
        self._rows: dict[str, Row] = {}
        for row in rows:
            self.register(row)

    def register(self, row: Row) -> Row:
        """Add a row; the same one once more changes nothing.

        Raises:
            ValueError: another row has its name, or something else that is unique.
        """
        for other in self._rows.values():
            if other != row and any(key(other) == key(row) for key in self._unique.values()):
                shared = " or the ".join(self._unique)
                raise ValueError(
                    f"there is a {self.noun} {other.name!r} already, and {row.name!r} has the {shared} of it"
                )
        self._rows[row.name] = row
        return row

    def __getitem__(self, name: str) -> Row:
        """The row of that name.

        Raises:
            KeyError: naming those that are known.
        """
        self._discover()
        if name not in self._rows:
            raise KeyError(f"{self.noun} {name!r} is unknown; known are {', '.join(self._rows)}")
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        """Names."""
        self._discover()
        return iter(self._rows)

    def __len__(self) -> int:
        """Number of rows."""
        self._discover()
        return len(self._rows)


def _import_all(package: str, entry_points: str) -> None:
    if package:
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            importlib.import_module(f"{package}.{module.name}")
    if entry_points:
        for entry in importlib.metadata.entry_points(group=entry_points):
            entry.load()
