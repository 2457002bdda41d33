"""Mean and covariance of a set's features, as the public FID tools (pytorch-fid, clean-fid) store and read them."""

from pathlib import Path

import numpy as np

from diffpath_jax.evaluation.feature_cache import FeatureStore
from diffpath_jax.evaluation.features.extractor import FeatureExtractor
from diffpath_jax.evaluation.image_sets import ImageSet
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.files import replace_file
from diffpath_jax.metrics.fid import fit_gaussian


def write_statistics(images: ImageSet, extractor: FeatureExtractor, store: FeatureStore, path: Path) -> int:
    """Write ``mu`` (d,) and ``sigma`` (d, d), the unbiased covariance, in double precision.

    Returns:
        The number of images.

    Raises:
        DiffpathError: fewer than two images, or features that are not finite.
    """
    if len(images) < 2:
        fix = "name a split with more"
        raise DiffpathError("statistics", where=images.where, why="one image has no covariance", fix=fix)
    fitted = fit_gaussian(np.asarray(store.features(images, extractor), np.float64))
    with replace_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, mu=fitted.mean, sigma=fitted.root.T @ fitted.root)
    return len(images)
