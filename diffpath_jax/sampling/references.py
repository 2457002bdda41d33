"""Images of a data set that samples are made from: which one each sample gets, and whether the model knows them.

Sample n of a class gets the n-th image of that class, in an order of the seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from diffpath_jax.data.manifest import Dataset
from diffpath_jax.data.pipeline import TRAIN, Records, Source
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.runs.run import Run

# What is known of images: the model was not trained on them; it was; nobody knows; they are no real images.
Origin = Literal["held out", "training", "unknown", "generated"]


@dataclass(frozen=True, eq=False)
class References:
    """Images of one split of a data set, by class.

    Attributes:
        images: of the split.
        order: numbers of the images of each class of the model, in the order in which they are used.
        digest: of the data set.
        split: of the data set.
        origin: whether the model was trained on them.
    """

    images: Source
    order: tuple[Int[np.ndarray, "_"], ...]
    digest: str
    split: str
    origin: Origin

    def as_json(self) -> dict[str, Any]:
        """Everything of it that decides pixels."""
        return {"images": self.digest, "split": self.split}

    def places(self, indices: Int[np.ndarray, "n"]) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
        """Returns the label of each sample, and its number in its class."""
        return indices % len(self.order), indices // len(self.order)

    def numbers(self, labels: Int[np.ndarray, "n"], ranks: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """Returns which image of the split belongs to each label and number in its class; they begin again."""
        pairs = zip(labels, ranks, strict=True)
        return np.array([self.order[label][rank % len(self.order[label])] for label, rank in pairs], np.int64)

    def fetch(self, name: str, numbers: Int[np.ndarray, "n"]) -> np.ndarray:
        """Returns what some images of the split have under a name, such as ``image``."""
        return np.stack([self.images[int(number)][name] for number in numbers])


def refer(
    dataset: Dataset,
    split: str,
    run: Run,
    *,
    option: str,
    counts: Sequence[int],
    least: int,
    seed: int,
    read: Mapping[str, Any] | None = None,
    allow_training: bool = False,
) -> References:
    """Returns the images of a split, by the classes of a model.

    Args:
        dataset: images.
        split: of it.
        run: the model.
        option: that names the data set, as errors call it.
        counts: samples of each class of the model.
        least: images that each class of which samples are asked for must have.
        seed: of the order of the images of each class.
        read: what is read of a record besides image and label, see :class:`diffpath_jax.data.pipeline.Records`.
        allow_training: images that the model was trained on may be used.

    Raises:
        DiffpathError: no images, no such split or too few of a class; or images that the model was trained on (exit
            code 4).
    """
    dataset.check_images()
    origin = origin_of(dataset, split, run)
    if origin == "training" and not allow_training:
        why = f"the model was trained on the images of its {split} split: samples would repeat them"
        fix = f"name another split with `{option}_split`, or add `allow_training_references`, which every record says"
        raise DiffpathError(option, where=dataset.directory, why=why, fix=fix, code=ExitCode.REFUSED)
    dataset.shards(split)
    images = Records([dataset], split, read)
    order = _order(images, dataset, run, counts, option=option, least=least, seed=seed)
    return References(images, order, dataset.digest, split, origin)


def origin_of(dataset: Dataset, split: str, run: Run) -> Origin:
    """Returns what is known of whether a model was trained on a split: the digests of its training data say it."""
    if dataset.details.kind == "generated":
        return "generated"
    if dataset.images not in run.images:
        return "unknown"
    return "training" if split == TRAIN else "held out"


def _order(
    images: Records, dataset: Dataset, run: Run, counts: Sequence[int], *, option: str, least: int, seed: int
) -> tuple[Int[np.ndarray, "_"], ...]:
    """Returns the numbers of the images of each class of a run, in the order of the seed.

    Raises:
        DiffpathError: a class of which samples are asked for has fewer than ``least``.
    """
    (labels,) = images.labels()
    order = []
    for label, (name, count) in enumerate(zip(run.classes, counts, strict=True)):
        classes = dataset.schema.classes
        own = np.flatnonzero(labels == classes.index(name)) if name in classes else np.zeros(0, np.int64)
        if count and len(own) < least:
            why = f"it has {len(own)} images of class {name!r} there, and {least} are needed"
            raise DiffpathError(option, where=dataset.directory, why=why, fix="ask for other classes or another split")
        order.append(np.random.default_rng([seed, label]).permutation(own))
    return tuple(order)
