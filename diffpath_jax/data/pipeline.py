"""From shards to batches: shuffled, endless, augmented, split over processes, and resumable at any batch."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import grain
import numpy as np
from absl import flags
from jaxtyping import Int

from diffpath_jax.data import mixture, records
from diffpath_jax.data.crops import Crops
from diffpath_jax.data.manifest import Dataset
from diffpath_jax.data.symmetries import SYMMETRIES, Augmentation, symmetric
from diffpath_jax.io.errors import DiffpathError, ExitCode

TRAIN = "train"


@runtime_checkable
class Source(Protocol):
    """Random access to records."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, np.ndarray]: ...


# What is read of a record besides its image (or latents) and its label: name -> value.
Readers = Mapping[str, Callable[[records.PatchRecord | records.LatentRecord], np.ndarray]]


class Records:
    """Random access to the records of one or several data sets, as images (or latents) with labels and what is read."""

    def __init__(self, datasets: Sequence[Dataset], split: str, read: Readers | None = None) -> None:
        self._read = read or {}
        self._parts = [(d.schema, grain.sources.ArrayRecordDataSource(d.paths(split))) for d in datasets]
        self._names = [d.directory for d in datasets]
        self._ends = np.cumsum([len(source) for _, source in self._parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def labels(self) -> list[Int[np.ndarray, "_"]]:
        """Labels of the records of each data set."""
        every = [records.label(source[i]) for _, source in self._parts for i in range(len(source))]
        return np.split(np.array(every), self._ends[:-1])

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        part = int(np.searchsorted(self._ends, index, side="right"))
        schema, source = self._parts[part]
        offset = index - (int(self._ends[part - 1]) if part else 0)
        try:
            if schema.latent_shape:
                latent = records.decode_latent(source[offset], schema)
                return {"latent": latent.latent, **self._conditions(latent)}
            record = records.decode(source[offset], schema)
            return {"image": record.image, **self._conditions(record)}
        except Exception as error:
            raise DiffpathError(
                f"record {offset}",
                where=self._names[part],
                why=f"cannot be read ({error})",
                fix="write the data set again",
                code=ExitCode.DAMAGED,
            ) from error

    def _conditions(self, record: records.PatchRecord | records.LatentRecord) -> dict[str, np.ndarray]:
        read = {name: function(record) for name, function in self._read.items()}
        return {"label": np.asarray(record.label, np.int32), **read}


class Chosen:
    """Some of the records of another source, by their numbers."""

    def __init__(self, source: Source, numbers: Int[np.ndarray, "n"]) -> None:
        self._source, self._numbers = source, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self._source[int(self._numbers[index])]


class Balanced:
    """Endless records of a source, each of a class drawn evenly, and drawn evenly from that class.

    Record n is a function of the seed and n alone.
    """

    def __init__(self, source: Source, classes: Sequence[Int[np.ndarray, "_"]], *, seed: int) -> None:
        self._source, self._classes, self._seed = source, classes, seed

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([self._seed, index])
        own = self._classes[int(rng.integers(len(self._classes)))]
        return self._source[int(own[int(rng.integers(len(own)))])]


@dataclass(frozen=True)
class Symmetry(grain.transforms.RandomMap):
    """Draw one of an image's symmetric copies.

    Attributes:
        group: ``none``; ``hflip``, left and right (ADM, the authors' DDPM); ``flips``, both flips (the authors' LDM);
            ``dihedral``, the 8 flips and quarter turns: tissue has no up.
    """

    group: Augmentation

    def random_map(self, element: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Turn and flip the image; stored latents are turned and flipped already."""
        if "image" not in element:
            return element
        numbers = SYMMETRIES[self.group]
        return {**element, "image": symmetric(element["image"], numbers[int(rng.integers(len(numbers)))])}


@dataclass(frozen=True)
class Crop(grain.transforms.MapWithIndex):
    """Cut batches; attributes are arguments of :meth:`Crops.cut`."""

    crops: Crops
    part: tuple[int, int]
    batch_size: int

    def map_with_index(self, index: int, element: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Cut batch ``index``."""
        return self.crops.cut(element, index, part=self.part, batch_size=self.batch_size)


def training_source(
    datasets: Sequence[Dataset], *, amounts: Sequence[float], balanced: bool, seed: int, read: Readers | None = None
) -> Records | Chosen | Balanced:
    """The records of the ``train`` splits that are trained on.

    Args:
        datasets: where they lie.
        amounts: images of each; see :func:`diffpath_jax.data.mixture.mixture_counts`.
        balanced: draw every class equally often.
        seed: of the choice and of a balanced draw.
        read: what is read of a record besides its image and its label.

    Raises:
        DiffpathError: the amounts do not fit the data sets.
    """
    if not amounts and not balanced:
        return Records(datasets, TRAIN, read)
    counts = mixture.mixture_counts(datasets, TRAIN, amounts)
    used = [pair for pair in zip(datasets, counts, strict=True) if sum(pair[1].values())]
    source = Records([dataset for dataset, _ in used], TRAIN, read)
    labels = source.labels()
    chosen = mixture.choose(labels, [counts for _, counts in used], seed=seed)
    if not balanced:
        return Chosen(source, chosen)
    of_chosen = np.concatenate(labels)[chosen]
    return Balanced(source, [chosen[own] for own in mixture.members(of_chosen)], seed=seed)


def training_batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    augment: Augmentation,
    workers: int,
    crops: Crops | None = None,
    start: int = 0,
    process: tuple[int, int] = (0, 1),
) -> Iterator[dict[str, np.ndarray]]:
    """Endless shuffled batches. Batch ``n`` is a function of the arguments alone, so a position is just a number.

    Args:
        source: records to draw from.
        batch_size: images of the global batch.
        seed: of shuffling and augmentation.
        augment: what is done to each image.
        workers: processes that decode; 0 decodes in threads. The batches are the same.
        crops: sides that batches are cut to; none for whole images.
        start: number of the first batch.
        process: (index, count) of this process. Each loads a run of consecutive images of the global batch, so the
            global batch is the same for any number of processes.

    Raises:
        ValueError: the batch cannot be divided over the processes.
    """
    index, count = process
    if batch_size % count:
        raise ValueError(f"batch of {batch_size} cannot be divided over {count} processes")
    dataset: Any = grain.MapDataset.source(source).seed(seed)
    if not isinstance(source, Balanced):
        dataset = dataset.shuffle().repeat()
    dataset = dataset.random_map(Symmetry(augment))
    part = batch_size // count
    dataset = dataset.batch(part, drop_remainder=True)[index::count]
    if crops is not None:
        dataset = dataset.map_with_index(Crop(crops, (index * part, (index + 1) * part), batch_size))
    iterable = dataset[start:].to_iter_dataset(
        grain.ReadOptions(num_threads=1 if workers else 2, prefetch_buffer_size=4)
    )
    if workers:
        # grain starts its processes with absl's flags, which this program does not use and so has never parsed.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        iterable = iterable.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(iterable)


def read_arrays(
    dataset: Dataset, split: str, *, limit: int | None = None, read: Readers | None = None
) -> dict[str, np.ndarray]:
    """The images (or latents) of a split, or an evenly spread part of it, their labels and what is read, as arrays."""
    source = Records([dataset], split, read)
    count = len(source) if limit is None else min(limit, len(source))
    chosen = [source[int(i)] for i in np.linspace(0, len(source) - 1, count).round()]
    return {name: np.stack([item[name] for item in chosen]) for name in chosen[0]}
