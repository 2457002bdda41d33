"""Which images of several data sets are trained on: real ones, generated ones, so many of each."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from diffpath_jax.data.manifest import Dataset
from diffpath_jax.io.errors import DiffpathError

# Images of each class.
Counts = Mapping[str, int]


def mixture_counts(datasets: Sequence[Dataset], split: str, amounts: Sequence[float]) -> list[Counts]:
    """Images of each class that are taken from each data set.

    Args:
        datasets: the data sets; all have the classes of the first.
        split: which of their splits; a data set of which nothing is taken need not have it.
        amounts: of each, in units of the first one's images, class by class; empty takes each data set whole.

    Raises:
        DiffpathError: not as many amounts as data sets, nothing at all is taken, or more than there is.
    """
    if not amounts:
        return [_there(dataset, split) for dataset in datasets]
    if len(amounts) != len(datasets):
        why = f"{len(amounts)} amounts for {len(datasets)} data sets"
        raise _wrong(str(datasets[0].directory), why, "give one for each data set of data.train")
    first = _there(datasets[0], split)
    counts: list[Counts] = [{name: round(amount * count) for name, count in first.items()} for amount in amounts]
    if not any(sum(own.values()) for own in counts):
        raise _wrong(str(datasets[0].directory), "it takes no image at all", "give an amount above 0")
    for dataset, own in zip(datasets, counts, strict=True):
        _check_enough(dataset, split, own)
    return counts


def _there(dataset: Dataset, split: str) -> dict[str, int]:
    """Images of every class in a split, in the order of the labels."""
    dataset.shards(split)  # says so where there is no such split
    return {name: dataset.class_counts[split].get(name, 0) for name in dataset.schema.classes}


def _check_enough(dataset: Dataset, split: str, counts: Counts) -> None:
    there = _there(dataset, split) if any(counts.values()) else {}
    for name, count in counts.items():
        if count > there.get(name, 0):
            why = f"{count} images of class {name!r} are asked for, and its {split} split has {there[name]}"
            raise _wrong(str(dataset.directory), why, "ask for less, or make a larger data set")


def _wrong(where: str, why: str, fix: str) -> DiffpathError:
    return DiffpathError("key 'data.mixture'", where=where, why=why, fix=fix)


def choose(labels: Sequence[Int[np.ndarray, "_"]], counts: Sequence[Counts], *, seed: int) -> Int[np.ndarray, "n"]:
    """Numbers of the chosen images, in the order in which the data sets follow each other.

    The images of a class are drawn in an order that belongs to the seed, the data set and the class alone, so that a
    larger amount holds all images of a smaller one.

    Args:
        labels: of the images of each data set.
        counts: of each data set, class by class in the order of the labels.
        seed: of the draw.
    """
    chosen, start = [np.zeros(0, int)], 0
    for number, (own, wanted) in enumerate(zip(labels, counts, strict=True)):
        for label, count in enumerate(wanted.values()):
            order = np.random.default_rng([seed, number, label]).permutation(np.flatnonzero(own == label))
            chosen.append(start + np.sort(order[:count]))
        start += len(own)
    return np.concatenate(chosen)


def total(counts: Iterable[Counts]) -> Int[np.ndarray, "classes"]:
    """Images of each class, of all data sets together."""
    return np.array([[*own.values()] for own in counts]).sum(axis=0)


def members(labels: Int[np.ndarray, "n"]) -> Iterator[Int[np.ndarray, "_"]]:
    """Numbers of the images of each class that occurs."""
    return (np.flatnonzero(labels == label) for label in np.unique(labels))
