"""The protocol of an open slide, and the formats that can be opened.

A format is one module: a class that is a :class:`Reader`, and a line that registers it. Modules of this folder are
found by themselves; another package registers its own when it is imported, or names a module that does as an entry
point of the group ``diffpath.slide_readers``. Of several with one suffix, the one that was registered last reads it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from diffpath_jax.io.registry import Registry


@runtime_checkable
class Reader(Protocol):
    """An open slide. Level 0 has the most pixels; positions and sizes are (x, y) and (width, height)."""

    @property
    def dimensions(self) -> Sequence[tuple[int, int]]:
        """Pixels of each level."""

    @property
    def downsamples(self) -> Sequence[float]:
        """Level-0 pixels to a pixel of each level, ascending, from 1."""

    @property
    def mpp(self) -> tuple[float, float] | None:
        """Scale of level 0 along x and y in um/px as the file states it, NaN where that is no number; None for none."""

    @property
    def objective(self) -> float | None:
        """Power of the objective, e.g. 40; None if the file does not state it."""

    @property
    def bounds(self) -> tuple[float, float]:
        """Level-0 position of the corner of what viewers such as QuPath show; (0, 0) for all of the slide."""

    def read_region(self, level: int, corner: tuple[int, int], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the RGB pixels of a rectangle, white where the slide has none.

        Args:
            level: which.
            corner: top left, in pixels of the level.
            size: in pixels of the level.

        Raises:
            OSError: the file cannot be read there.
        """

    def close(self) -> None:
        """Let go of the file."""


@runtime_checkable
class KnowsCentre(Protocol):
    """A reader that may know where on the glass its picture lies."""

    @property
    def centre_um(self) -> tuple[float, float] | None:
        """Middle of level 0 in um from the centre of the glass, right and down; None if the file does not say it."""


@runtime_checkable
class OpenReader(Protocol):
    """Opens a file in a process that will read it."""

    def __call__(self, path: Path) -> Reader:
        """Returns the open slide.

        Raises:
            OSError: it cannot be read; the text says why.
            DiffpathError: it cannot be read, and there is something to do about it.
        """


def _whole(path: Path) -> None:
    """Every file is a slide."""


@dataclass(frozen=True)
class ReaderKind:
    """A format, or several, that one reader reads.

    Attributes:
        name: as errors name it.
        suffixes: of its files, in lower case.
        open: opens a file; a function of a module, so that other processes find it.
        slide_of: what tells the slide that a file is a part of, where any of its files opens all of it; none for a file
            that is a slide of its own.
    """

    name: str
    suffixes: tuple[str, ...]
    open: OpenReader
    slide_of: Callable[[Path], str | None] = _whole


READERS: Registry[ReaderKind] = Registry(
    "slide reader", package="data_prep.slide.readers", entry_points="diffpath.slide_readers"
)


def suffixes() -> tuple[str, ...]:
    """Returns the suffixes of all files that some reader reads."""
    return tuple(dict.fromkeys(suffix for kind in READERS.values() for suffix in kind.suffixes))


def kind_of(path: Path) -> ReaderKind | None:
    """Returns the reader of a file, by its name; None if there is none."""
    return next((kind for kind in reversed([*READERS.values()]) if path.name.lower().endswith(kind.suffixes)), None)
