"""Sets of images as one ``.npz`` file, as guided-diffusion samples and its evaluator reads them.

``arr_0`` are the images, (n, height, width, 3) uint8 RGB; ``arr_1``, where there is one, their labels, (n,) integers.
Files written here name the ``classes`` too, and say of generated images that they are. Neither way needs the memory of
the whole set.
"""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8

from diffpath_jax.data import marking
from diffpath_jax.data.manifest import Dataset
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import replace_file

SUFFIX = ".npz"
IMAGES, LABELS, CLASSES = "arr_0", "arr_1", "classes"
# What numpy and zipfile raise over damaged archives.
UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, MemoryError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)
# Labels and class names of any set fit in so many bytes.
_MAX_TABLE_BYTES = 2**28
_FIX = f"give an .npz file with {IMAGES}: uint8, (n, height, width, 3), and perhaps {LABELS}: n labels"


@runtime_checkable
class _Readable(Protocol):
    """An open file."""

    def read(self, length: int = -1, /) -> bytes:
        """Returns the next bytes."""


@dataclass(frozen=True)
class NpzImages:
    """A set of images in a file.

    Attributes:
        path: the file.
        shape: (n, height, width).
        labels: (n,) index into ``classes``; none where it states none.
        classes: names of classes: as stated, or the numbers of the labels; none without labels.
        generated: it says that its images are.
    """

    path: Path
    shape: tuple[int, int, int]
    labels: Int[np.ndarray, "n"] | None
    classes: tuple[str, ...]
    generated: bool

    def read(self, rows: Sequence[int] | np.ndarray) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """Yields some of the images, by their numbers.

        Raises:
            DiffpathError: the file is damaged (exit code 5).
        """
        _, height, width = self.shape
        size = height * width * 3
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{IMAGES}.npy") as file:
                _header(file)
                start = file.tell()
                for row in rows:
                    file.seek(start + int(row) * size)
                    yield np.frombuffer(file.read(size), np.uint8).reshape(height, width, 3)
        except UNREADABLE as error:
            raise _damaged(self.path, error) from error


def holds_images(path: Path) -> bool:
    """Returns whether a file is an archive with an array of images."""
    try:
        with zipfile.ZipFile(path) as archive:
            return f"{IMAGES}.npy" in archive.namelist()
    except UNREADABLE:
        return False


def open_npz(path: Path) -> NpzImages:
    """Returns what a file holds; its images are not read.

    Raises:
        DiffpathError: no such file, or it holds something else (exit code 5).
    """
    if not path.is_file():
        raise DiffpathError("images", where=path, why="no such file", fix=_FIX)
    try:
        with zipfile.ZipFile(path) as archive:
            with archive.open(f"{IMAGES}.npy") as file:
                shape, fortran, dtype = _header(file)
            sizes = {member.filename.removesuffix(".npy"): member.file_size for member in archive.infolist()}
        if len(shape) != 4 or shape[-1] != 3 or fortran or dtype != np.uint8 or not all(shape):
            raise ValueError(f"{IMAGES} has shape {shape} and type {dtype}")
        tables = [name for name in sizes if name in (LABELS, CLASSES, marking.COLUMN)]
        if sum(sizes[name] for name in tables) > _MAX_TABLE_BYTES:
            raise ValueError("its labels are larger than any set's")
        with np.load(path, allow_pickle=False) as arrays:
            labels, classes = _labels({name: arrays[name] for name in tables}, shape[0])
        return NpzImages(path, shape[:3], labels, classes, marking.COLUMN in tables)
    except UNREADABLE as error:
        raise _damaged(path, error) from error


def _labels(tables: dict[str, np.ndarray], count: int) -> tuple[Int[np.ndarray, "n"] | None, tuple[str, ...]]:
    """Returns labels as indices, and the names of their classes."""
    if LABELS not in tables:
        return None, ()
    labels = tables[LABELS]
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{LABELS} has shape {labels.shape} and type {labels.dtype}, and there are {count} images")
    if CLASSES not in tables:
        numbers, indices = np.unique(labels, return_inverse=True)
        return indices, tuple(map(str, numbers.tolist()))
    classes = tuple(map(str, tables[CLASSES].tolist()))
    if not (labels.min() >= 0 and labels.max() < len(classes)):
        raise ValueError(f"labels from {labels.min()} to {labels.max()} of {len(classes)} classes")
    return labels.astype(int), classes


def _header(file: _Readable) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Returns shape, order and type of the array that a file holds, and leaves the file at its first number."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def _damaged(path: Path, error: BaseException) -> DiffpathError:
    why = f"not a set of images ({' '.join(str(error).split())[:120]})"
    return DiffpathError("images", where=path, why=why, fix=_FIX, code=ExitCode.DAMAGED)


def write_npz(dataset: Dataset, split: str, path: Path) -> int:
    """Write a split of a data set.

    Returns:
        The number of images.

    Raises:
        DiffpathError: no such split, or latents.
    """
    height, width = dataset.schema.image_px
    count = dataset.count(split)
    labels = np.array([record.label for record in dataset.read(split)], np.int64)
    tables = {LABELS: labels, CLASSES: np.array(dataset.schema.classes)}
    if marking.is_generated(dataset.details):
        tables[marking.COLUMN] = np.array(marking.SOURCE_TYPE)
    with replace_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with archive.open(_member(IMAGES), "w", force_zip64=True) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (count, height, width, 3)}
            np.lib.format.write_array_header_1_0(file, header)
            for record in dataset.read(split):
                file.write(record.image.tobytes())
        for name, array in tables.items():
            with archive.open(_member(name), "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return count


def _member(name: str) -> zipfile.ZipInfo:
    """Returns an array's place in an archive; without a date, so that the same set gives the same bytes."""
    return zipfile.ZipInfo(f"{name}.npy")
