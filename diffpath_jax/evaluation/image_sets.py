"""Sets of images to measure: data sets and sample sets, folders of images, and stored statistics of either."""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.linalg
from jaxtyping import Float, Int, UInt8

from diffpath_jax.data import marking, npz_images, validation
from diffpath_jax.data.image_files import list_images, read_image
from diffpath_jax.data.manifest import MANIFEST, Dataset, open_dataset
from diffpath_jax.data.pipeline import Records
from diffpath_jax.evaluation.record import ImageSetRecord, SetRecord
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import sha256_file, sha256_json, shareable

# Images that are held at once.
BLOCK = 512
STATISTICS = ".npz"
# Twice the covariance of 8,192 features in double precision.
MAX_STATISTICS_BYTES = 2**30
# Largest difference between a covariance and its transpose, in units of its largest number.
ASYMMETRY = 1e-6


@dataclass(frozen=True)
class ImageSet:
    """Images of one size, with what is known of them.

    Attributes:
        where: directory.
        split: part of it; empty for a folder.
        kind: ``real``, ``generated``, or ``folder`` where nothing says which.
        digest: SHA-256 of what it holds.
        dataset: digest of the data set that it is a part of; empty for a folder.
        image_px: (height, width).
        classes: class names; none where images have no class.
        labels: (n,) index into ``classes``.
        patients: patient of each image; empty where unknown.
        mpp: um per pixel; none where unknown.
        training_data: of a generated set, digests of the data sets that its model was trained on.
        fetch: indices -> images.
        optimism: why numbers of this split are better than those of new patients will be; empty for no reason.
        references: what is wrong with the images that generated ones start from; empty for nothing.
    """

    where: Path
    split: str
    kind: str
    digest: str
    dataset: str
    image_px: tuple[int, int]
    classes: tuple[str, ...]
    labels: Int[np.ndarray, "n"]
    patients: tuple[str, ...]
    mpp: float | None
    training_data: tuple[str, ...]
    fetch: Callable[[Sequence[int] | np.ndarray], np.ndarray]
    optimism: str = ""
    references: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    def blocks(self) -> Iterator[UInt8[np.ndarray, "b h w 3"]]:
        """Yields all images, some at a time."""
        for start in range(0, len(self), BLOCK):
            yield self.fetch(range(start, min(start + BLOCK, len(self))))

    def of_class(self, name: str) -> Int[np.ndarray, "m"]:
        """Returns the indices of the images of a class; none where the set does not have it."""
        return np.flatnonzero(self.labels == self.classes.index(name)) if name in self.classes else np.zeros(0, int)

    def subset(self, indices: Int[np.ndarray, "m"]) -> "ImageSet":
        """Returns some of the images as a set of their own."""
        return replace(
            self,
            digest=sha256_json([self.digest, indices.tolist()]),
            labels=self.labels[indices],
            patients=tuple(self.patients[i] for i in indices),
            fetch=lambda chosen: self.fetch(indices[list(chosen)]),
        )

    def about(self) -> ImageSetRecord:
        """Returns what ``metrics.json`` says of the set."""
        return ImageSetRecord(
            where=shareable(self.where),
            split=self.split,
            kind=self.kind,
            digest=self.digest,
            dataset=self.dataset,
            n=len(self),
            image_px=self.image_px,
            mpp=self.mpp,
            patients=len(set(self.patients) - {""}),
        )


@dataclass(frozen=True)
class Statistics:
    """Mean and covariance of the features of a set that is not at hand.

    Attributes:
        where: the file.
        digest: SHA-256 of its bytes.
        mean: (d,).
        covariance: (d, d).
    """

    where: Path
    digest: str
    mean: Float[np.ndarray, "d"]
    covariance: Float[np.ndarray, "d d"]

    def about(self) -> SetRecord:
        """Returns what ``metrics.json`` says of the statistics."""
        return SetRecord(shareable(self.where), split="", kind="statistics", digest=self.digest, dataset="", n=None)


def open_set(path: Path, *, split: str) -> ImageSet | Statistics:
    """Returns what lies at a path: a data set, a folder, or an ``.npz`` file of images or of ``mu`` and ``sigma``.

    Args:
        path: the directory or file.
        split: part of a data set; a folder has none.

    Raises:
        DiffpathError: nothing that can be measured, no such split, or it is damaged (exit code 5).
    """
    if path.suffix == STATISTICS:
        return from_npz(path) if npz_images.holds_images(path) else read_statistics(path)
    if (path / MANIFEST).exists():
        return from_dataset(open_dataset(path), split)
    if path.is_dir():
        return from_folder(path)
    why = "a file that holds no statistics" if path.exists() else "no such directory or file"
    fix = "name a data set, a sample set, a folder of images, or an .npz file of images or statistics"
    raise DiffpathError("images", where=path, why=why, fix=fix)


def from_dataset(dataset: Dataset, split: str) -> ImageSet:
    """Returns a split of a data set.

    Raises:
        DiffpathError: there is no such split, or it is empty.
    """
    count, records = dataset.count(split), Records([dataset], split)
    if not count:
        raise DiffpathError(f"split {split!r}", where=dataset.directory, why="it is empty", fix="name another split")
    known = [(record.label, record.patient) for record in dataset.read(split)]
    return ImageSet(
        where=dataset.directory,
        split=split,
        kind=dataset.details.kind,
        digest=sha256_json([dataset.digest, split]),
        dataset=dataset.digest,
        image_px=dataset.schema.image_px,
        classes=dataset.schema.classes,
        labels=np.array([label for label, _ in known]),
        patients=tuple(patient for _, patient in known),
        mpp=dataset.details.mpp,
        training_data=dataset.details.training_data or (),
        fetch=lambda indices: np.stack([records[int(index)]["image"] for index in indices]),
        optimism=validation.optimism(dataset, split, called=shareable(dataset.directory)),
        references=dataset.details.references,
    )


def joined(parts: Sequence[ImageSet]) -> ImageSet:
    """Returns several splits of one data set as one set."""
    ends = np.cumsum([len(part) for part in parts])

    def fetch(indices: Sequence[int] | np.ndarray) -> np.ndarray:
        which = np.searchsorted(ends, indices, side="right")
        starts = ends - [len(part) for part in parts]
        pairs = zip(which, np.asarray(indices) - starts[which], strict=True)
        return np.concatenate([parts[part].fetch([index]) for part, index in pairs])

    return replace(
        parts[0],
        split="+".join(part.split for part in parts),
        digest=sha256_json([part.digest for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        patients=tuple(name for part in parts for name in part.patients),
        fetch=fetch,
    )


def from_folder(folder: Path) -> ImageSet:
    """Returns a folder of images, one folder a class, or all in one place without classes.

    Raises:
        DiffpathError: there are none, they differ in size, or one is damaged (exit code 5).
    """
    by_class = list_images(folder)
    paths = [path for files in by_class.values() for path in files]
    size = read_image(paths[0]).shape

    def read(index: int) -> UInt8[np.ndarray, "h w 3"]:
        image = read_image(paths[index])
        if image.shape != size:
            height, width = image.shape[:2]
            why = f"it has {width} x {height} px, but {paths[0].name} has {size[1]} x {size[0]}"
            raise DiffpathError("image", where=paths[index], why=why, fix="measure images of one size")
        return image

    labels = np.repeat(np.arange(len(by_class)), [len(files) for files in by_class.values()])
    return ImageSet(
        where=folder,
        split="",
        kind="folder",
        digest=sha256_json([[str(path.relative_to(folder)), sha256_file(path)] for path in paths]),
        dataset="",
        image_px=size[:2],
        classes=() if "" in by_class else tuple(by_class),
        labels=labels,
        patients=("",) * len(paths),
        mpp=None,
        training_data=(),
        fetch=lambda indices: np.stack([read(int(index)) for index in indices]),
    )


def from_npz(path: Path) -> ImageSet:
    """Returns the images of an ``.npz`` file, as :mod:`diffpath_jax.data.npz_images` reads them.

    Raises:
        DiffpathError: it is damaged (exit code 5).
    """
    stored = npz_images.open_npz(path)
    count, *size = stored.shape
    return ImageSet(
        where=path,
        split="",
        kind=marking.GENERATED if stored.generated else "folder",
        digest=sha256_file(path),
        dataset="",
        image_px=(size[0], size[1]),
        classes=stored.classes,
        labels=np.zeros(count, int) if stored.labels is None else stored.labels,
        patients=("",) * count,
        mpp=None,
        training_data=(),
        fetch=lambda indices: np.stack(list(stored.read(indices))),
    )


def read_statistics(path: Path) -> Statistics:
    """Reads mean and covariance as the public FID tools store them: arrays ``mu`` and ``sigma``, read without pickle.

    Raises:
        DiffpathError: no such file, or it holds something else (exit code 5).
    """
    if not path.is_file():
        why = "it is a directory" if path.is_dir() else "no such file"
        raise DiffpathError("statistics", where=path, why=why, fix="name a file of statistics")
    try:
        _check_sizes(path)
        with np.load(path, allow_pickle=False) as arrays:
            mean, covariance = (_real(arrays[name]) for name in ("mu", "sigma"))
        _check_moments(mean, covariance)
    except npz_images.UNREADABLE as error:
        why = f"not statistics of a set ({' '.join(str(error).split())[:120]})"
        fix = "give an .npz file with arrays mu (d) and sigma (d x d)"
        raise DiffpathError("statistics", where=path, why=why, fix=fix, code=ExitCode.DAMAGED) from error
    return Statistics(path, sha256_file(path), mean, covariance)


def _check_sizes(path: Path) -> None:
    """Refuse an archive that says it is larger, unpacked, than any statistics; no more than it says is read."""
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > MAX_STATISTICS_BYTES:
        raise ValueError(f"unpacked it has {size / 2**30:.1f} GiB")


def _real(array: np.ndarray) -> np.ndarray:
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"an array is of type {array.dtype}, not of real numbers")
    return array.astype(np.float64)


def _check_moments(mean: np.ndarray, covariance: np.ndarray) -> None:
    if mean.ndim != 1 or covariance.shape != 2 * mean.shape:
        raise ValueError(f"mu has shape {mean.shape} and sigma {covariance.shape}")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError("some numbers are not finite")
    if np.abs(covariance - covariance.T).max() > ASYMMETRY * np.abs(covariance).max():
        raise ValueError("sigma is not symmetric")
    values = scipy.linalg.eigvalsh(covariance)
    if values[0] < -ASYMMETRY * abs(values[-1]):
        raise ValueError("sigma is no covariance: a variance is negative")


def with_counts(pool: ImageSet, other: ImageSet, *, seed: int) -> ImageSet:
    """Returns a random part of a set with as many images of each class as another set has, or as there are."""
    return pool.subset(chosen_with_counts(pool, other, seed=seed))


def chosen_with_counts(pool: ImageSet, other: ImageSet, *, seed: int) -> Int[np.ndarray, "m"]:
    """Returns the indices of the images of :func:`with_counts`, increasing."""
    rng = np.random.default_rng(seed)
    if not other.classes:
        return np.sort(rng.permutation(len(pool))[: len(other)])
    parts = [rng.permutation(pool.of_class(name))[: len(other.of_class(name))] for name in pool.classes]
    return np.sort(np.concatenate(parts))
