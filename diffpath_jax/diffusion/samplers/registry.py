"""Rows by name: each stands beside its code, and others can be added from outside the package."""

from collections.abc import Iterable, Iterator, Mapping
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

    Args:
        noun: the word for a row in messages.
        rows: those that come with the package.
    """

    def __init__(self, noun: str, rows: Iterable[Row]) -> None:
        self.noun = noun
        self._rows: dict[str, Row] = {}
        for row in rows:
            self.register(row)

    def register(self, row: Row) -> Row:
        """Add a row.

        Raises:
            ValueError: the name is taken.
        """
        if row.name in self._rows:
            raise ValueError(f"there is a {self.noun} {row.name!r} already")
        self._rows[row.name] = row
        return row

    def __getitem__(self, name: str) -> Row:
        """The row of that name.

        Raises:
            KeyError: naming those that are known.
        """
        if name not in self._rows:
            raise KeyError(f"{self.noun} {name!r} is unknown; known are {', '.join(self._rows)}")
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        """Names."""
        return iter(self._rows)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._rows)
