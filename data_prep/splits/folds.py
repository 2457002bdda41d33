"""Cross-validation: for each fold a data set of its own, whose shards are those of the folds under other names.

The job's directory holds every record once, in splits ``fold0``, ``fold1`` and so on. Below it, ``fold0/`` is the data
set whose test split is fold 0, whose validation split is the fold after it (with more than two folds), and which trains
on the rest. Its shards are hard links, so K data sets take the room of one, and are read like any other.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_prep.splits.splits import fold_name
from diffpath_jax.data.details import Details
from diffpath_jax.data.manifest import Shard
from diffpath_jax.data.writer import shard_name
from diffpath_jax.io.files import replace_file


@dataclass(frozen=True)
class View:
    """The description of a data set.

    Attributes:
        directory: where it lies.
        shards: of each split.
        labels: of each split's records.
        details: provenance.
    """

    directory: Path
    shards: Mapping[str, Sequence[Shard]]
    labels: Mapping[str, Sequence[int]]
    details: Details


def parts(number: int, folds: int) -> dict[str, list[str]]:
    """Returns the folds that are the splits of the data set that tests on one of them.

    Args:
        number: the fold that is tested on.
        folds: how many there are.
    """
    test, val = number, (number + 1) % folds
    held_out = (test, val) if folds > 2 else (test,)
    train = [fold_name(fold) for fold in range(folds) if fold not in held_out]
    return {"train": train, "val": [fold_name(val)] if folds > 2 else [], "test": [fold_name(test)]}


def clear(out: Path, folds: int) -> None:
    """Remove the data sets of an earlier run: from here on, until all is written again, there is none."""
    for number in range(folds):
        shutil.rmtree(out / fold_name(number), ignore_errors=True)


def views(all_folds: View, name: str, folds: int) -> Iterator[View]:
    """Lay out the data set of each fold, but for its description.

    Args:
        all_folds: the data set whose splits are the folds.
        name: dataset name.
        folds: how many there are; with 0, nothing is done.
    """
    for number in range(folds):
        directory = all_folds.directory / fold_name(number)
        directory.mkdir()
        made_of = parts(number, folds)
        shards = {
            split: _linked(all_folds, directory, name, split, chosen) for split, chosen in made_of.items() if chosen
        }
        labels = {split: [i for fold in chosen for i in all_folds.labels[fold]] for split, chosen in made_of.items()}
        said = "; ".join(f"{split} is {', '.join(chosen)}" for split, chosen in made_of.items() if chosen)
        proof = f"{all_folds.details.split_proof}; here {said}"
        yield View(directory, shards, labels, replace(all_folds.details, fold=number, split_proof=proof))


def _linked(all_folds: View, directory: Path, name: str, split: str, folds: Sequence[str]) -> tuple[Shard, ...]:
    shards = [shard for fold in folds for shard in all_folds.shards.get(fold, ())]
    linked = []
    for index, shard in enumerate(shards):
        file = shard_name(name, split, index, len(shards))
        _link(all_folds.directory / shard.file, directory / file)
        linked.append(Shard(file, shard.count, shard.sha256))
    return tuple(linked)


def _link(path: Path, link: Path) -> None:
    """A second name for a file, or where the file system has none, a second file."""
    try:
        os.link(path, link)
    except OSError:
        with replace_file(link) as temporary:
            shutil.copyfile(path, temporary)
