"""Predictors of an arm: whole networks or linear probes, trained on images to tell classes."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from diffpath_jax.evaluation.feature_cache import FeatureStore
from diffpath_jax.evaluation.features.classifier import check_classifier, predictor
from diffpath_jax.evaluation.features.extractor import FeatureExtractor
from diffpath_jax.evaluation.features.open import open_extractor
from diffpath_jax.evaluation.image_sets import ImageSet
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.files import sha256_json
from diffpath_jax.metrics.logistic import Linear
from diffpath_jax.runs import run as runs
from diffpath_jax.study import probe as probes
from diffpath_jax.study.probe import ProbeRecord


@runtime_checkable
class Predictor(Protocol):
    """A trained classifier of images."""

    @property
    def workdir(self) -> Path:
        """Its directory."""

    @property
    def classes(self) -> Sequence[str]:
        """Class names, in the order of its logits."""

    @property
    def image_px(self) -> tuple[int, int]:
        """(height, width) of the images that it takes."""

    @property
    def seed(self) -> int:
        """Seed of its training."""

    @property
    def digest(self) -> str:
        """SHA-256 of its settings and data."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Everything that was set about its training, its images and its seed among it."""

    @property
    def mixture(self) -> Sequence[float]:
        """Amounts of its data sets; empty where each was taken whole."""

    @property
    def directories(self) -> Sequence[Path]:
        """Data sets that it names."""

    def logits(self, images: ImageSet) -> tuple[Float[np.ndarray, "n classes"], int]:
        """Returns logits of images, and which training step they are of (0 where there are no steps)."""


def used(one: Predictor) -> Iterator[Path]:
    """Yields the data sets of which a classifier saw any images."""
    amounts = one.mixture or [1.0] * len(one.directories)
    return (path for path, amount in zip(one.directories, amounts, strict=True) if amount)


def open_predictor(workdir: Path, store: FeatureStore) -> Predictor:
    """Returns the classifier of a directory.

    Args:
        workdir: a run of ``diffpath train``, or what ``diffpath probe`` wrote.
        store: keeps features of images.

    Raises:
        DiffpathError: it holds neither, or is damaged.
    """
    if (workdir / probes.RECORD).exists():
        return Probe(workdir, *probes.read(workdir), store)
    run = runs.open_run(workdir)
    check_classifier(run)
    return Network(run)


@dataclass(frozen=True)
class Network:
    """A run of a classifier, asked at its best checkpoint where it kept one.

    Attributes:
        run: the run.
    """

    run: runs.Run

    @property
    def workdir(self) -> Path:
        """Directory of the run."""
        return self.run.workdir

    @property
    def classes(self) -> Sequence[str]:
        """Classes of its data."""
        return self.run.classes

    @property
    def image_px(self) -> tuple[int, int]:
        """Size of its training images."""
        return self.run.image_px

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.run.config.seed

    @property
    def digest(self) -> str:
        """Digest of the run."""
        return self.run.digest

    @property
    def settings(self) -> Mapping[str, Any]:
        """Its config."""
        return self.run.config.as_json()

    @property
    def mixture(self) -> Sequence[float]:
        """Its ``data.mixture``."""
        return self.run.config.data.mixture

    @property
    def directories(self) -> Sequence[Path]:
        """Its ``data.train``."""
        return self.run.config.data.directories()

    def logits(self, images: ImageSet) -> tuple[Float[np.ndarray, "n classes"], int]:
        """Returns what the network says of images."""
        trained = runs.load_parameters(self.run, step="best" if self.run.config.train.keep_best else "latest")
        predict = predictor(self.run.network)
        weights = trained.params, trained.model_state
        return np.concatenate([predict(weights, block)[0] for block in images.blocks()]), trained.step


@dataclass(frozen=True)
class Probe:
    """A linear probe.

    Attributes:
        workdir: its directory.
        linear: the classifier of features.
        record: where it comes from.
        store: keeps features of images.
    """

    workdir: Path
    linear: Linear
    record: ProbeRecord
    store: FeatureStore

    @property
    def classes(self) -> Sequence[str]:
        """Classes of its data."""
        return self.record.classes

    @property
    def image_px(self) -> tuple[int, int]:
        """Size of its training images."""
        return self.record.image_px

    @property
    def seed(self) -> int:
        """Seed of its mixture."""
        return self.record.seed

    @property
    def digest(self) -> str:
        """Digest of its record."""
        return sha256_json(probes.as_json(self.record))

    @property
    def settings(self) -> Mapping[str, Any]:
        """Returns the settings: the features, and which images."""
        data = {"train": ",".join(self.record.data), "mixture": list(self.record.mixture)}
        return {"features": self.record.features_digest, "resize": self.record.resize, "data": data, "seed": self.seed}

    @property
    def mixture(self) -> Sequence[float]:
        """Amounts of its data sets."""
        return self.record.mixture

    @property
    def directories(self) -> Sequence[Path]:
        """Its data sets."""
        return [Path(each) for each in self.record.data]

    @functools.cached_property
    def _extractor(self) -> FeatureExtractor:
        extractor = open_extractor(Path(self.record.features), resize=self.record.resize)
        if extractor.digest != self.record.features_digest:
            why, fix = f"{self.record.features} holds other parameters than it was trained on", "train the probe again"
            raise DiffpathError("probe", where=self.workdir, why=why, fix=fix)
        return extractor

    def logits(self, images: ImageSet) -> tuple[Float[np.ndarray, "n classes"], int]:
        """Returns what the probe says of images."""
        return self.linear.logits(self.store.features(images, self._extractor)), 0
