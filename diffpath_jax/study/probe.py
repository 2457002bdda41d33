"""Linear probes: classifiers of features that were trained for something else, in place of whole networks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from diffpath_jax.data.manifest import Dataset
from diffpath_jax.data.mixture import choose, mixture_counts
from diffpath_jax.data.pipeline import TRAIN
from diffpath_jax.evaluation import image_sets
from diffpath_jax.evaluation.feature_cache import FeatureStore
from diffpath_jax.evaluation.features.extractor import FeatureExtractor
from diffpath_jax.evaluation.record import as_json
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import replace_file, sha256_file
from diffpath_jax.io.sealed import read_sealed, write_sealed
from diffpath_jax.metrics import classification, logistic
from diffpath_jax.metrics.logistic import Linear

RECORD, WEIGHTS = "probe.json", "probe.npz"
# Penalties that are tried; the validation images choose.
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
VALIDATION = "val"


@dataclass(frozen=True)
class ProbeRecord:
    """A probe on disk, but for its numbers.

    Attributes:
        features: path of the feature extractor.
        features_digest: SHA-256 of its parameters.
        resize: how images were brought to its size.
        classes: class names, in the order of the logits.
        image_px: (height, width) of the training images.
        seed: which images of a mixture were taken.
        data: data sets that it was trained on.
        training_data: their digests.
        mixture: amounts of each; empty for all of each.
        images: training images.
        penalty: the penalty that validation images chose.
        validation_loss: log loss of the validation images by penalty.
        weights: SHA-256 of the file of its numbers.
    """

    features: str
    features_digest: str
    resize: str
    classes: tuple[str, ...]
    image_px: tuple[int, int]
    seed: int
    data: tuple[str, ...]
    training_data: tuple[str, ...]
    mixture: tuple[float, ...]
    images: int
    penalty: float
    validation_loss: dict[str, float]
    weights: str


def train(
    datasets: Sequence[Dataset],
    amounts: Sequence[float],
    extractor: FeatureExtractor,
    store: FeatureStore,
    *,
    seed: int,
) -> tuple[Linear, dict[str, Any]]:
    """Trains a probe; the penalty is that of the least log loss on the first data set's validation images.

    Args:
        datasets: the data sets.
        amounts: of each, as ``data.mixture`` says them.
        extractor: of the features.
        store: keeps features.
        seed: which images of a mixture are taken.

    Returns:
        The probe, and the fields of its record that this decides.

    Raises:
        DiffpathError: a split is missing, a mixture asks for more than there is, or features are not finite.
    """
    x, labels = _training_images(datasets, amounts, extractor, store, seed=seed)
    watched = image_sets.from_dataset(datasets[0], VALIDATION)
    seen, num_classes = store.features(watched, extractor), len(datasets[0].schema.classes)
    fitted = {each: logistic.fit(x, labels, num_classes, l2=each) for each in PENALTIES}
    losses = {
        each: classification.SCORES["log_loss"].measure(watched.labels, probe.logits(seen))
        for each, probe in fitted.items()
    }
    best = min(losses, key=lambda each: (losses[each], -each))
    told = {"images": len(labels), "penalty": best, "validation_loss": {f"{k:g}": v for k, v in losses.items()}}
    return fitted[best], told


def _training_images(
    datasets: Sequence[Dataset],
    amounts: Sequence[float],
    extractor: FeatureExtractor,
    store: FeatureStore,
    *,
    seed: int,
) -> tuple[Float[np.ndarray, "n d"], Int[np.ndarray, "n"]]:
    """Returns features and labels of the images that a mixture takes."""
    counts = mixture_counts(datasets, TRAIN, amounts)
    sets = [
        image_sets.from_dataset(dataset, TRAIN) if sum(own.values()) else None
        for dataset, own in zip(datasets, counts, strict=True)
    ]
    labels = [images.labels if images else np.zeros(0, int) for images in sets]
    chosen, start, parts = choose(labels, counts, seed=seed), 0, []
    for images, own in zip(sets, labels, strict=True):
        mine = chosen[(chosen >= start) & (chosen < start + len(own))] - start
        start += len(own)
        if images and len(mine):
            parts.append(store.features(images, extractor)[mine])
    return np.concatenate(parts), np.concatenate(labels)[chosen]


def write(directory: Path, probe: Linear, record: ProbeRecord) -> None:
    """Writes a probe, its record last; ``record.weights`` is filled in."""
    with replace_file(directory / WEIGHTS) as temporary, temporary.open("wb") as file:
        np.savez(file, weight=probe.weight, bias=probe.bias, mean=probe.mean, scale=probe.scale)
    write_sealed(directory / RECORD, {**as_json(record), "weights": sha256_file(directory / WEIGHTS)})


def read(directory: Path) -> tuple[Linear, ProbeRecord]:
    """Reads a probe.

    Raises:
        DiffpathError: there is none, or it is damaged (exit code 5).
    """
    record = read_sealed(directory / RECORD, ProbeRecord, what="probe", fix="name the --out of `diffpath probe`")
    path = directory / WEIGHTS
    if not path.is_file() or sha256_file(path) != record.weights:
        raise _damaged(path, "its bytes are not those that were written")
    with np.load(path, allow_pickle=False) as arrays:
        return Linear(*(arrays[name] for name in ("weight", "bias", "mean", "scale"))), record


def _damaged(path: Path, why: str) -> DiffpathError:
    return DiffpathError("probe", where=path, why=why, fix="train it again in another directory", code=ExitCode.DAMAGED)
