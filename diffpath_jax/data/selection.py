"""Which images of a split are kept, and under which label: parts of the patients, of a class, shuffled labels.

A selection is a mask and labels over the images of a split in their stored order. Operations take one and return one;
they draw by the seed alone, so that the same command keeps the same images, and a smaller share of the patients is part
of a larger one.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

from diffpath_jax.data.manifest import Dataset
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.files import sha256_json


@dataclass(frozen=True)
class Selection:
    """Images of a split.

    Attributes:
        kept: (n,) whether each image is kept.
        labels: (n,) label that each image gets.
        patients: (n,) patient of each image; empty where unknown.
        classes: class names.
        where: data set and split, for errors.
    """

    kept: Bool[np.ndarray, "n"]
    labels: Int[np.ndarray, "n"]
    patients: tuple[str, ...]
    classes: tuple[str, ...]
    where: str

    def only(self, mask: Bool[np.ndarray, "n"]) -> "Selection":
        """Returns what is kept of it where a mask is true."""
        return replace(self, kept=self.kept & mask)

    @property
    def digest(self) -> str:
        """SHA-256 of what is kept, and under which labels."""
        return sha256_json([np.flatnonzero(self.kept).tolist(), self.labels[self.kept].tolist()])

    def counts(self) -> dict[str, int]:
        """Returns images of each class that are kept."""
        numbers = np.bincount(self.labels[self.kept], minlength=len(self.classes))
        return dict(zip(self.classes, map(int, numbers), strict=True))


def everything(dataset: Dataset, split: str) -> Selection:
    """Returns all images of a split, under their own labels.

    Raises:
        DiffpathError: there is no such split, or it holds latents.
    """
    known = [(record.label, record.patient) for record in dataset.read(split)]
    return Selection(
        kept=np.ones(len(known), bool),
        labels=np.array([label for label, _ in known], int),
        patients=tuple(patient for _, patient in known),
        classes=dataset.schema.classes,
        where=f"{dataset.directory}, split {split!r}",
    )


def patient_share(selection: Selection, share: float, *, seed: int) -> Selection:
    """Returns the images of a share of the patients, at least one of every class that has any.

    Raises:
        DiffpathError: the patient of an image is not known.
    """
    own = _patients(selection, np.ones(len(selection.labels), bool))
    ordered = _ordered(own, seed)
    having = {label: _patients(selection, selection.labels == label) for label in range(len(selection.classes))}
    first = {next(patient for patient in ordered if patient in members) for members in having.values() if members}
    # One of every class goes first, so that a smaller share is part of a larger one.
    ordered = [*(each for each in ordered if each in first), *(each for each in ordered if each not in first)]
    chosen = set(ordered[: max(len(first), math.ceil(share * len(own)))])
    return selection.only(np.array([patient in chosen for patient in selection.patients]))


def class_share(selection: Selection, name: str, share: float, *, seed: int) -> Selection:
    """Returns a selection in which one class has a share of its patients; other classes keep theirs.

    Raises:
        DiffpathError: no such class, or the patient of one of its images is not known.
    """
    of_class = selection.labels == _label(selection, name)
    own = _patients(selection, of_class)
    chosen = set(_ordered(own, seed)[: math.ceil(share * len(own))])
    return selection.only(~of_class | np.array([patient in chosen for patient in selection.patients]))


def number_per_class(selection: Selection, number: int, *, seed: int) -> Selection:
    """Returns so many images of each class, drawn by the seed; a smaller number is part of a larger one.

    Raises:
        DiffpathError: a class has fewer.
    """
    chosen = np.zeros(len(selection.labels), bool)
    for label, name in enumerate(selection.classes):
        own = np.flatnonzero(selection.kept & (selection.labels == label))
        if len(own) < number:
            why = f"class {name!r} has {len(own)} images there"
            raise DiffpathError(f"{number} images a class", where=selection.where, why=why, fix="ask for less")
        chosen[np.random.default_rng([seed, label]).permutation(own)[:number]] = True
    return selection.only(chosen)


def shuffled_labels(selection: Selection, *, seed: int) -> Selection:
    """Returns a selection whose labels are dealt out at random among its images; every class keeps its number."""
    labels, kept = selection.labels.copy(), np.flatnonzero(selection.kept)
    labels[kept] = np.random.default_rng(seed).permutation(labels[kept])
    return replace(selection, labels=labels)


def _label(selection: Selection, name: str) -> int:
    if name not in selection.classes:
        why, fix = f"there is no class {name!r}", f"name one of {list(selection.classes)}"
        raise DiffpathError("class", where=selection.where, why=why, fix=fix)
    return selection.classes.index(name)


def _patients(selection: Selection, mask: Bool[np.ndarray, "n"]) -> set[str]:
    """Returns the patients of the images that are kept, where a mask is true."""
    patients = {selection.patients[i] for i in np.flatnonzero(selection.kept & mask)}
    if "" in patients:
        why, fix = "the patients of its images are not known", "take a number of images instead (--num_per_class)"
        raise DiffpathError("share of patients", where=selection.where, why=why, fix=fix)
    return patients


def _ordered(patients: Sequence[str] | set[str], seed: int) -> list[str]:
    """Returns patients in an order that belongs to the seed and to each patient alone."""
    return sorted(patients, key=lambda patient: hashlib.sha256(f"{seed}:{patient}".encode()).digest())
