"""Image files in folders, one folder a class, as sources."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.sources import digests
from data_prep.sources.images import BATCH, ImageBatch, Picture
from data_prep.splits.patients import Owner, PatientTable
from data_prep.splits.splits import ALIASES
from data_prep.tables import listed
from diffpath_jax.data.image_files import list_images, other_files
from diffpath_jax.io.errors import DiffpathError

# No patch takes more, whatever its format.
MAX_FILE_BYTES = 2**28


@dataclass(frozen=True)
class ImageFiles:
    """Some image files of one class.

    Attributes:
        folder: folder of all classes.
        files: their paths below it.
        label: their class.
        patients: whose each is; nothing where that is unknown.
    """

    folder: Path
    files: tuple[str, ...]
    label: str
    patients: tuple[str, ...] | None

    @property
    def where(self) -> Path:
        """The first of them."""
        return self.folder / self.files[0]

    @property
    def size(self) -> int:
        """Number of files."""
        return len(self.files)

    @property
    def labels(self) -> Sequence[str]:
        """Their class."""
        return (self.label,)

    @property
    def knows_patients(self) -> bool:
        """True where the patient of each is known."""
        return self.patients is not None

    def stamp(self) -> digests.Stamp:
        """Stamps of all files that are there."""
        return [number for file in self.files for number in _stamp(self.folder / file)]

    def content(self, memory: Path) -> Any:
        """Digests of the files, none for one that cannot be read, with class and patients."""
        paths = [self.folder / file for file in self.files]
        try:
            file_digests = digests.sha256_remembered(paths, memory)
        except DiffpathError:
            file_digests = [_sha256(path) for path in paths]
        return {"files": file_digests, "label": self.label, "patients": self.patients}

    def read(self, positions: Sequence[int] | None = None) -> Iterator[Picture]:
        """Every file, in order, or some of them."""
        for file, patient in self.names(range(self.size) if positions is None else positions):
            yield Picture(self.label, patient, _bytes_of(self.folder / file))

    def names(self, positions: Sequence[int]) -> Sequence[tuple[str, str]]:
        """Path and patient of some files."""
        return [(self.files[i], self.patients[i] if self.patients else "") for i in positions]


def _stamp(path: Path) -> digests.Stamp:
    """Stamp of a file; empty while it cannot be read."""
    try:
        return digests.stamp(path)
    except DiffpathError:
        return []


def _sha256(path: Path) -> str:
    """SHA-256 of a file; empty while it cannot be read."""
    try:
        return digests.sha256(path)
    except DiffpathError:
        return ""


def _bytes_of(path: Path) -> bytes | DiffpathError:
    """The bytes of a file, or why there are none."""
    fix = "replace it or take it out"
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return DiffpathError("image", where=path, why="its file is too large for a patch", fix=fix)
        return path.read_bytes()
    except OSError as error:
        return DiffpathError("image", where=path, why=f"cannot be read ({error.strerror})", fix=fix)


def find_batches(
    folder: Path, patients: PatientTable | None, *, mpp: float, keep_splits: bool
) -> tuple[ImageBatch, ...]:
    """Returns the images of a folder in batches of one class and one split.

    Args:
        folder: holds a folder for each class, or a folder for each split with these in it (``train/tumour/1.png``).
        patients: the user's table; the splits that it states win over those of folders.
        mpp: um per pixel of the images.
        keep_splits: keep the splits of folders; otherwise they are dealt out.

    Raises:
        DiffpathError: there are none, they do not lie in folders of classes, the table does not name one, or folders
            say in another way than this how they are split.
    """
    groups = _images_by_split_and_class(folder)
    names = Counter(path.name for paths in groups.values() for path in paths)
    batches = []
    for (folder_split, label), paths in groups.items():
        by_split: dict[str | None, list[tuple[str, str]]] = {}
        for path in paths:
            file = path.relative_to(folder).as_posix()
            # Two classes may have a file of one name each.
            called = (file, path.name) if names[path.name] == 1 else (file,)
            owner = patients.owner(file, called) if patients else Owner("", None)
            split = owner.split or (folder_split if keep_splits else None)
            if keep_splits and split is None:
                _check_folders(folder, path)
            by_split.setdefault(split, []).append((file, owner.patient))
        for split, members in by_split.items():
            for batch in _in_batches(members):
                files, owners = zip(*batch, strict=True)
                known = owners if patients and patients.knows_patients else None
                batches.append(ImageBatch(ImageFiles(folder, files, label, known), split, mpp))
    return tuple(batches)


def _images_by_split_and_class(folder: Path) -> dict[tuple[str | None, str], list[Path]]:
    """Returns the images of each class, and of each split where all folders are called as splits are.

    Raises:
        DiffpathError: there are none, or some lie in no folder of a class.
    """
    if not folder.is_dir():
        fix = "check the path given to --images"
        raise DiffpathError("images", where=folder, why="no such directory", fix=fix)
    by_folder = list_images(folder)
    if not {name.lower() for name in by_folder} <= set(ALIASES):
        _check_classes(folder, by_folder)
        return {(None, label): paths for label, paths in by_folder.items()}
    groups: dict[tuple[str | None, str], list[Path]] = {}
    for name in by_folder:
        by_class = list_images(folder / name)
        _check_classes(folder / name, by_class)
        for label, paths in by_class.items():
            groups.setdefault((ALIASES[name.lower()], label), []).extend(paths)
    return groups


def _check_classes(folder: Path, by_class: Mapping[str, Sequence[Path]]) -> None:
    """Refuse images that lie beside the folders of classes.

    Raises:
        DiffpathError: there are some.
    """
    if "" in by_class:
        fix = "put them into a folder for each class, or for each split with folders of classes in it"
        raise DiffpathError("images", where=folder, why="they lie in no folder that names their class", fix=fix)


def _check_folders(folder: Path, path: Path) -> None:
    """Refuse an image whose folders name a split in a place where it would not be seen: ``tumour/test/1.png``.

    Raises:
        DiffpathError: it is so.
    """
    folders = path.relative_to(folder).parts[:-1]
    named = [name for name in folders if name.lower() in ALIASES]
    if len(folders) > 1 and named:
        why = f"a folder of {path.relative_to(folder).as_posix()} is called {named[0]!r}, and others are not of splits"
        fix = "lay all of them out as SPLIT/CLASS/FILE, or deal them out anew with --fractions"
        raise DiffpathError("splits", where=folder, why=why, fix=fix)


def notes(folder: Path, batches: Sequence[ImageBatch]) -> Iterator[str]:
    """Yields notes on what of a folder is not used: files of other formats, and names of folders.

    Args:
        folder: as for :func:`find_batches`.
        batches: what that found.
    """
    if others := [path.relative_to(folder).as_posix() for path in other_files(folder)]:
        yield f"files of other formats in {folder} are left out: {listed(others)}"
    images = [batch.images for batch in batches if isinstance(batch.images, ImageFiles)]
    innermost = {Path(file).parent for each in images for file in each.files if Path(file).parent.name != each.label}
    if innermost:
        unused = sorted(path.as_posix() for path in innermost)
        yield f"folders below those of classes, whose names are not used: {listed(unused)}"


def _in_batches(members: Sequence[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Runs of files. Where one ends is in the files' names, so that a file more or less changes its own batch only."""
    batch: list[tuple[str, str]] = []
    for file, patient in members:
        batch.append((file, patient))
        name = hashlib.sha256(file.encode(errors="surrogateescape")).digest()
        if int.from_bytes(name[:4]) % BATCH == 0:
            yield batch
            batch = []
    if batch:
        yield batch
