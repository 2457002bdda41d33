"""From shards to batches: shuffled, endless, augmented, split over processes, and resumable to the record."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import grain
import numpy as np

from diffpath_jax.data import records
from diffpath_jax.data.manifest import Dataset
from diffpath_jax.errors import DiffpathError, ExitCode

Augmentation = Literal["none", "dihedral"]


class Records:
    """Random access to the records of one or several data sets, as images with labels."""

    def __init__(self, datasets: Sequence[Dataset], split: str) -> None:
        self._parts = [(d.schema, grain.sources.ArrayRecordDataSource(d.paths(split))) for d in datasets]
        self._names = [d.directory for d in datasets]
        self._ends = np.cumsum([len(source) for _, source in self._parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __repr__(self) -> str:
        """Stable text: grain compares it when it restores an iterator."""
        return f"Records({self._ends.tolist()})"

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        part = int(np.searchsorted(self._ends, index, side="right"))
        schema, source = self._parts[part]
        offset = index - (int(self._ends[part - 1]) if part else 0)
        try:
            record = records.decode(source[offset], schema)
        except Exception as error:
            raise DiffpathError(
                f"record {offset}",
                where=self._names[part],
                why=f"cannot be read ({error})",
                fix="write the data set again",
                code=ExitCode.DAMAGED,
            ) from error
        return {"image": record.image, "label": np.asarray(record.label, np.int32)}


@dataclass(frozen=True)
class Dihedral(grain.transforms.RandomMap):
    """One of the 8 flips and quarter turns: tissue has no up."""

    def random_map(self, element: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Turn and flip the image."""
        turns, flip = int(rng.integers(4)), int(rng.integers(2))
        image = np.rot90(element["image"], turns)
        return {**element, "image": np.ascontiguousarray(image[:, ::-1] if flip else image)}


def training_batches(
    source: Records,
    *,
    batch_size: int,
    seed: int,
    augment: Augmentation,
    workers: int,
    process: tuple[int, int] = (0, 1),
) -> grain.DatasetIterator:
    """Endless shuffled batches; the iterator's state can be saved and restored exactly.

    Args:
        source: records to draw from.
        batch_size: images of the global batch.
        seed: of shuffling and augmentation.
        augment: what is done to each image.
        workers: processes that decode (0 decodes in threads); batches depend on this number.
        process: (index, count) of this process among those that share the batch.

    Raises:
        ValueError: the batch cannot be divided over the processes.
    """
    index, count = process
    if batch_size % count:
        raise ValueError(f"batch of {batch_size} cannot be divided over {count} processes")
    dataset: Any = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
    dataset = dataset[index::count]
    if augment == "dihedral":
        dataset = dataset.random_map(Dihedral())
    dataset = dataset.batch(batch_size // count, drop_remainder=True)
    iterable = dataset.to_iter_dataset(grain.ReadOptions(num_threads=1 if workers else 2, prefetch_buffer_size=4))
    if workers:
        iterable = iterable.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(iterable)


def read_arrays(dataset: Dataset, split: str, *, limit: int | None = None) -> dict[str, np.ndarray]:
    """The images and labels of a split, or an evenly spread part of it, as two arrays."""
    source = Records([dataset], split)
    count = len(source) if limit is None else min(limit, len(source))
    chosen = [source[int(i)] for i in np.linspace(0, len(source) - 1, count).round()]
    return {
        "image": np.stack([item["image"] for item in chosen]),
        "label": np.array([item["label"] for item in chosen], np.int32),
    }
