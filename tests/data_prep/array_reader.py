"""A format of slides from outside the package: the pixels of level 0 in a ``.npy`` file, at 0.5 um/px."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.slide.readers.registry import ReaderKind


@dataclass(frozen=True)
class ArrayReader:
    """Levels of pixels in memory."""

    levels: Sequence[np.ndarray]
    mpp: tuple[float, float] | None = (0.5, 0.5)
    objective: float | None = None
    bounds: tuple[float, float] = (0.0, 0.0)

    @property
    def dimensions(self) -> Sequence[tuple[int, int]]:
        return [(level.shape[1], level.shape[0]) for level in self.levels]

    @property
    def downsamples(self) -> Sequence[float]:
        return [self.levels[0].shape[0] / level.shape[0] for level in self.levels]

    def read_region(self, level: int, corner: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
        (x, y), (width, height) = corner, size
        return np.ascontiguousarray(self.levels[level][y : y + height, x : x + width])

    def close(self) -> None:
        pass


def blank(*sizes: tuple[int, int], bounds: tuple[float, float] = (0.0, 0.0)) -> ArrayReader:
    """White levels of these sizes, which take no memory."""
    white = np.uint8(255)
    return ArrayReader([np.broadcast_to(white, (height, width, 3)) for width, height in sizes], bounds=bounds)


def open_file(path: Path) -> ArrayReader:
    try:
        return ArrayReader([np.load(path)])
    except ValueError as error:
        raise OSError(str(error)) from error


KIND = ReaderKind("NumPy", (".npy",), open_file)
