"""Frechet distance between two sets of features, as in FID (Heusel et al. 2017), in float64.

``|mu_1 - mu_2|^2 + tr(S_1) + tr(S_2) - 2 tr((S_1 S_2)^(1/2))``. It is called FID only when the features are those
of the FID Inception network.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jaxtyping import Float


@dataclass(frozen=True)
class Gaussian:
    """Mean and (unbiased) covariance of a set of features."""

    mean: Float[np.ndarray, "d"]
    covariance: Float[np.ndarray, "d d"]
    count: int


def fit_gaussian(features: Float[np.ndarray, "n d"]) -> Gaussian:
    """Moments of a set of at least two feature vectors.

    Raises:
        ValueError: fewer than two, or some are not finite.
    """
    if len(features) < 2:
        raise ValueError(f"a covariance needs at least 2 images, not {len(features)}")
    values = features.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("some features are not finite")
    return Gaussian(values.mean(axis=0), np.atleast_2d(np.cov(values, rowvar=False)), len(values))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Frechet distance of two Gaussians.

    ``tr((S_1 S_2)^(1/2))`` is the sum of the roots of the eigenvalues of ``L' S_2 L`` with ``S_1 = L L'``: L is
    the Cholesky factor, or the symmetric root where S_1 is singular (fewer images than features).
    """
    try:
        factor = scipy.linalg.cholesky(a.covariance, lower=True)
    except scipy.linalg.LinAlgError:
        values, vectors = scipy.linalg.eigh(a.covariance)
        factor = vectors * np.sqrt(np.maximum(values, 0))
    inner = scipy.linalg.eigvalsh(factor.T @ b.covariance @ factor)
    root_trace = np.sqrt(np.maximum(inner, 0)).sum()
    shift = np.square(a.mean - b.mean).sum()
    distance = shift + np.trace(a.covariance) + np.trace(b.covariance) - 2 * root_trace
    return float(max(distance, 0.0))
