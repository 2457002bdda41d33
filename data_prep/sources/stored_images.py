"""Sets of images that other programs keep in files of many, as sources: the kinds of them, and what is done with each.

A kind is one module: a function that lists what files say of their images, one that reads some of them, and a row that
is registered. ``--images`` takes whatever one of them knows, and folders of image files else.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from data_prep.sources import digests
from data_prep.sources.images import BATCH, ImageBatch, Picture
from data_prep.splits.patients import PatientTable
from data_prep.splits.splits import ALIASES
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.registry import Registry


@dataclass(frozen=True)
class StoredFile:
    """What a file says of its images.

    Attributes:
        file: its path.
        split: the split of all of them, if that is known.
        names: of each image.
        classes: names of the classes that they may have.
        patients: of each image; none where unknown.
    """

    file: Path
    split: str | None
    names: tuple[str, ...]
    classes: tuple[str, ...]
    patients: tuple[str, ...] | None


@runtime_checkable
class ReadRows(Protocol):
    """Reads images of a file."""

    def __call__(self, file: Path, rows: Sequence[int]) -> Iterator[tuple[str, bytes | np.ndarray]]:
        """Yields class and content (bytes of an image file, or pixels) of some images, whose numbers increase.

        Raises:
            DiffpathError: the file is damaged (exit code 5).
        """


@runtime_checkable
class ListFiles(Protocol):
    """Lists the files of a set."""

    def __call__(self, path: Path) -> Iterable[StoredFile]:
        """Returns what each file of the set says.

        Raises:
            DiffpathError: one is damaged, or does not say what its images are of.
        """


@runtime_checkable
class IsOwn(Protocol):
    """Tells the sets of a kind."""

    def __call__(self, path: Path) -> bool:
        """Returns whether what lies at a path is one."""


@dataclass(frozen=True)
class StoredKind:
    """A kind of sets.

    Attributes:
        name: as the help and errors name it.
        is_own: tells its sets.
        list_files: lists their files.
        read_rows: reads their images; a function of a module, so that other processes find it.
    """

    name: str
    is_own: IsOwn
    list_files: ListFiles
    read_rows: ReadRows


STORED: Registry[StoredKind] = Registry("kind of image sets", package="data_prep.sources")


@dataclass(frozen=True)
class StoredImages:
    """Some images of a file.

    Attributes:
        file: its path.
        rows: their numbers in it, increasing.
        own_names: of each.
        classes: names of the classes that they may have.
        patients: whose each is; none where that is unknown.
        read_rows: reads them.
    """

    file: Path
    rows: tuple[int, ...]
    own_names: tuple[str, ...]
    classes: tuple[str, ...]
    patients: tuple[str, ...] | None
    read_rows: ReadRows

    @property
    def where(self) -> Path:
        """The file."""
        return self.file

    @property
    def size(self) -> int:
        """Number of images."""
        return len(self.rows)

    @property
    def labels(self) -> Sequence[str]:
        """Classes that they may have."""
        return self.classes

    @property
    def knows_patients(self) -> bool:
        """True where the patient of each is known."""
        return self.patients is not None

    def stamp(self) -> digests.Stamp:
        """Stamp of the file."""
        return digests.stamp(self.file)

    def content(self, memory: Path) -> Any:
        """Digest of the file, which of its images are meant, and their patients."""
        (digest,) = digests.sha256_remembered([self.file], memory)
        return {"file": digest, "rows": list(self.rows), "patients": self.patients}

    def read(self, positions: Sequence[int] | None = None) -> Iterator[Picture]:
        """Every image, in order, or some of them."""
        chosen = range(self.size) if positions is None else positions
        content = self.read_rows(self.file, [self.rows[i] for i in chosen])
        for (_, patient), (label, image) in zip(self.names(chosen), content, strict=True):
            yield Picture(label, patient, image)

    def names(self, positions: Sequence[int]) -> Sequence[tuple[str, str]]:
        """Name and patient of some images."""
        return [(self.own_names[i], self.patients[i] if self.patients else "") for i in positions]


def kind_of(path: Path) -> StoredKind | None:
    """Returns the kind of the set at a path; none for a folder of image files."""
    return next((kind for kind in STORED.values() if path.exists() and kind.is_own(path)), None)


def find_batches(
    kind: StoredKind, path: Path, patients: PatientTable | None, *, mpp: float, keep_splits: bool
) -> tuple[ImageBatch, ...]:
    """Returns the images of a set in batches of one file and one split.

    Args:
        kind: of the set.
        path: where it lies.
        patients: the user's table, which names images as the set does; it wins over what the set says.
        mpp: um per pixel of the images.
        keep_splits: keep the splits of the set, if it has several; otherwise they are dealt out.

    Raises:
        DiffpathError: a file is damaged, the table does not name an image, or splits have other names.
    """
    files = list(kind.list_files(path))
    splits = {stored.split for stored in files}
    keep_splits = keep_splits and len(splits) > 1
    if keep_splits and (other := sorted(str(split) for split in splits - set(ALIASES))):
        fix = "give --fractions or --folds: all images are then dealt out anew"
        why = f"its splits {other} are none of {sorted(set(ALIASES.values()))}"
        raise DiffpathError("splits", where=path, why=why, fix=fix)
    batches = []
    for stored in files:
        own = ALIASES[stored.split] if keep_splits and stored.split else None
        for split, rows in _by_split(stored, patients, own).items():
            batches += [ImageBatch(_some(kind, stored, rows[i : i + BATCH]), split, mpp) for i in _starts(rows)]
    return tuple(batches)


def _starts(rows: Sequence[object]) -> range:
    return range(0, len(rows), BATCH)


def _by_split(
    stored: StoredFile, patients: PatientTable | None, split: str | None
) -> dict[str | None, list[tuple[int, str | None]]]:
    """Returns number and patient of the images of a file, by their split."""
    by_split: dict[str | None, list[tuple[int, str | None]]] = {}
    for row, name in enumerate(stored.names):
        if patients:
            owner = patients.owner(name, (name,))
            entry = owner.split or split, (row, owner.patient if patients.knows_patients else None)
        else:
            entry = split, (row, stored.patients[row] if stored.patients else None)
        by_split.setdefault(entry[0], []).append(entry[1])
    return by_split


def _some(kind: StoredKind, stored: StoredFile, members: Sequence[tuple[int, str | None]]) -> StoredImages:
    rows = tuple(row for row, _ in members)
    owners = tuple(patient for _, patient in members if patient is not None)
    names = tuple(stored.names[row] for row in rows)
    return StoredImages(stored.file, rows, names, stored.classes, owners or None, kind.read_rows)
