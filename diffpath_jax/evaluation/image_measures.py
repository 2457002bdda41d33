"""Measures of each image itself, without features: its stain, and its nuclei."""

import functools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from diffpath_jax.evaluation import compare
from diffpath_jax.evaluation.feature_cache import FeatureStore
from diffpath_jax.evaluation.features.extractor import FeatureExtractor
from diffpath_jax.evaluation.image_sets import ImageSet
from diffpath_jax.evaluation.record import OVERALL, REFERENCE, Row, Rows
from diffpath_jax.io.files import sha256_json
from diffpath_jax.metrics import nuclei, stain
from diffpath_jax.metrics.bootstrap import BootstrapConfig

# Nuclei are told in at most so many random images of a set.
NUCLEI_IMAGES = 2000
# Raised whenever the same images have other nuclei.
NUCLEI_FORMAT = 1


def stain_rows(reference: ImageSet, others: Mapping[str, ImageSet], *, config: BootstrapConfig) -> Rows:
    """Returns the numbers of the stain of each set by class."""
    measured = {name: _moments(images) for name, images in {REFERENCE: reference, **others}.items()}
    return {
        name: dict(
            compare.image_rows(compare.Pair(reference, other, measured[REFERENCE], measured[name], config), "stain")
        )
        for name, other in others.items()
    }


def _moments(images: ImageSet) -> Float[np.ndarray, "n 2 2"]:
    return np.concatenate([stain.image_moments(block) for block in images.blocks()])


def nuclei_rows(
    reference: ImageSet, others: Mapping[str, ImageSet], store: FeatureStore, *, config: BootstrapConfig
) -> Rows:
    """Returns the numbers of the nuclei of each set by class, or a row that says why there are none."""
    parts = {name: _part(images, config.seed) for name, images in {REFERENCE: reference, **others}.items()}
    measured = {name: _nuclei(images, store) for name, images in parts.items()}
    rows: Rows = {}
    for name in others:
        x, y = measured[REFERENCE], measured[name]
        if isinstance(x, str) or isinstance(y, str):
            why = next(measure for measure in (x, y) if isinstance(measure, str))
            rows[name] = {OVERALL: Row(len(parts[REFERENCE]), len(parts[name]), {}, [f"no nuclei: {why}"])}
        else:
            pair = compare.Pair(parts[REFERENCE], parts[name], x, y, config)
            rows[name] = dict(compare.image_rows(pair, "nuclei"))
    return rows


def _part(images: ImageSet, seed: int) -> ImageSet:
    if len(images) <= NUCLEI_IMAGES:
        return images
    return images.subset(np.sort(np.random.default_rng(seed).permutation(len(images))[:NUCLEI_IMAGES]))


def _nuclei(images: ImageSet, store: FeatureStore) -> Float[np.ndarray, "n 3"] | str:
    """Returns what is measured of each image, or why it cannot be."""
    if not images.mpp:
        return f"um/px of {images.where} is not known"
    try:
        return store.features(images, _extractor(images, images.mpp))
    except ValueError as error:
        return str(error)


def _extractor(images: ImageSet, mpp: float) -> FeatureExtractor:
    """Returns the measures of nuclei as features, which belong to this set: its threshold is found when it is asked."""

    @functools.cache
    def threshold() -> float:
        return nuclei.set_threshold((image for block in images.blocks() for image in block), mpp=mpp)

    return FeatureExtractor(
        name="nuclei",
        description="number, size and haematoxylin of nuclei",
        digest=sha256_json([NUCLEI_FORMAT, mpp]),
        resize="none",
        extract=lambda block: nuclei.image_measures(block, threshold=threshold(), mpp=mpp).astype(np.float32),
    )
