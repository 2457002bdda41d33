"""Metrics of a data set against another: feature-space distances, per class too, and what a classifier makes of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffpath_jax import build, runs
from diffpath_jax.data.manifest import Dataset
from diffpath_jax.data.pipeline import read_arrays
from diffpath_jax.errors import DiffpathError
from diffpath_jax.metrics import fid, kid
from diffpath_jax.metrics.classification import confusion_matrix, predict, summarise
from diffpath_jax.metrics.features import FeatureExtractor

OVERALL = "overall"
# Share of images by which a class may differ between two sets before their overall distance is qualified.
MAX_MIX_DIFFERENCE = 0.05


def distances(
    reference: Dataset,
    split: str,
    other: Dataset,
    other_split: str,
    extractor: FeatureExtractor,
    *,
    seed: int,
) -> dict[str, Any]:
    """Frechet and kernel distance of ``other`` from ``reference``, overall and for each class.

    A row that has too few images says so instead of a number.
    """
    ours, theirs = read_arrays(reference, split), read_arrays(other, other_split)
    x, y = extractor.extract(ours["image"]), extractor.extract(theirs["image"])
    rows = {OVERALL: _row(x, y, extractor, seed)}
    shares = [np.bincount(found["label"], minlength=len(reference.schema.classes)) for found in (ours, theirs)]
    _warn_of_class_mix(rows[OVERALL], reference.schema.classes, *(found / found.sum() for found in shares))
    for index, name in enumerate(reference.schema.classes):
        rows[name] = _row(x[ours["label"] == index], y[theirs["label"] == index], extractor, seed)
    return {
        "reference": {"digest": reference.digest, "split": split, "kind": reference.details["kind"]},
        "other": {"digest": other.digest, "split": other_split, "kind": other.details["kind"]},
        "features": {
            "name": extractor.name,
            "description": extractor.description,
            "digest": extractor.digest,
            "dimension": int(x.shape[1]),
        },
        "seed": seed,
        "rows": rows,
    }


def _warn_of_class_mix(row: dict[str, Any], classes: Sequence[str], reference: np.ndarray, other: np.ndarray) -> None:
    """An overall distance also measures the class mix: say so where the two sets differ in it."""
    worst = int(np.abs(reference - other).argmax())
    if abs(reference[worst] - other[worst]) > MAX_MIX_DIFFERENCE:
        mix = f"{classes[worst]} is {reference[worst]:.0%} of the reference and {other[worst]:.0%} of the other set"
        note = f"the overall distance also measures another class mix ({mix}): compare per class"
        row["note"] = "; ".join(filter(None, (row.get("note"), note)))


def _row(x: np.ndarray, y: np.ndarray, extractor: FeatureExtractor, seed: int) -> dict[str, Any]:
    row: dict[str, Any] = {"n_reference": len(x), "n_other": len(y)}
    if min(len(x), len(y)) < 2:
        return {**row, "note": "too few images"}
    row[extractor.frechet_name] = fid.frechet_distance(fid.fit_gaussian(x), fid.fit_gaussian(y))
    row[extractor.kernel_name] = kid.kernel_distance(x, y, seed=seed)
    if min(len(x), len(y)) <= x.shape[1]:
        row["note"] = f"fewer images than the {x.shape[1]} features: the Frechet distance is biased upwards"
    return row


def classify(run: runs.Run, dataset: Dataset, split: str) -> dict[str, Any]:
    """What a trained classifier makes of a split."""
    trained = runs.load_parameters(run)
    network = build.network(run.config, num_classes=len(run.classes))
    data = read_arrays(dataset, split)
    logits, _ = predict(network, trained.params, trained.model_state, data["image"])
    confusion = confusion_matrix(data["label"], logits.argmax(axis=-1), len(run.classes))
    return {
        "classifier": {
            "parameters": trained.digest,
            "step": trained.step,
            "training_data": list(run.data),
            "run": run.digest,
        },
        "data": {
            "digest": dataset.digest,
            "split": split,
            "kind": dataset.details["kind"],
            "n": len(data["label"]),
        },
        "classes": list(run.classes),
        "confusion": confusion.tolist(),
        **summarise(confusion),
    }


def check_comparable(reference: Dataset, other_classes: Sequence[str], where: Path) -> None:
    """Refuse a comparison over different class lists.

    Raises:
        DiffpathError: naming both lists.
    """
    if tuple(other_classes) != reference.schema.classes:
        raise DiffpathError(
            "classes",
            where=where,
            why=f"{list(other_classes)} are not those of {reference.directory}: {list(reference.schema.classes)}",
            fix="compare what has one list of classes",
        )
