"""Amounts of each stain in a set of images: colour drift is the first thing that goes wrong in generated tissue.

Light that a stain absorbs adds up in optical density, ``OD = -log10(I / I_0)``; each stain has a direction in it
(Ruifrok and Johnston 2001, "Quantification of histochemical staining by color deconvolution").
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from diffpath_jax.metrics.bootstrap import Groups, Statistic, Weights, group_sums
from diffpath_jax.metrics.metric import Better, Comparison, Metric

STAINS = ("haematoxylin", "eosin")
# Optical densities of red, green and blue for one unit of each stain (Ruifrok and Johnston 2001, table 1).
_VECTORS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
# (stains, 3) unit vectors.
DIRECTIONS = _VECTORS / np.linalg.norm(_VECTORS, axis=1, keepdims=True)
# (3, stains) from densities to amounts; two stains explain three densities in the least-squares sense.
UNMIX = np.linalg.pinv(DIRECTIONS)
# Optical density of each of the 256 levels.
_DENSITY = -np.log10((np.arange(256) + 1) / 256)


@dataclass(frozen=True)
class StainStatistics:
    """Amounts of haematoxylin and eosin over all pixels of a set.

    Attributes:
        mean: mean amount of each stain, in optical density.
        spread: standard deviation of each.
    """

    mean: Float[np.ndarray, "2"]
    spread: Float[np.ndarray, "2"]


def stain_amounts(images: UInt8[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 2"]:
    """Returns the optical density of each stain at each pixel; white glass has none."""
    return _DENSITY[images] @ UNMIX


def image_moments(images: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n 2 2"]:
    """Returns for each image the mean and the mean square of both stains' amounts over its pixels."""
    amounts = (stain_amounts(image).reshape(-1, len(STAINS)) for image in images)
    return np.array([(pixels.mean(axis=0), np.square(pixels).mean(axis=0)) for pixels in amounts])


def of_moments(moments: Float[np.ndarray, "2 2"]) -> StainStatistics:
    """Returns statistics of a set by the mean of :func:`image_moments` over its images, all of one size."""
    mean, square = moments
    return StainStatistics(mean, np.sqrt(np.maximum(square - mean**2, 0)))


def stain_statistics(images: UInt8[np.ndarray, "n h w 3"]) -> StainStatistics:
    """Returns mean and spread of both stains over all pixels of all images."""
    return of_moments(image_moments(images).mean(axis=0))


def stain_drift(generated: StainStatistics, real: StainStatistics) -> dict[str, float]:
    """Measures the drift of generated stain from real stain.

    Returns:
        For each stain ``STAIN_shift``, the difference of the means in units of the real spread (0 is perfect), and
        ``STAIN_spread_ratio``, generated over real spread (1 is perfect).
    """
    spread = np.maximum(real.spread, 1e-9)
    shift, ratio = (generated.mean - real.mean) / spread, generated.spread / spread
    return {
        f"{name}_{kind}": float(values[i])
        for i, name in enumerate(STAINS)
        for kind, values in (("shift", shift), ("spread_ratio", ratio))
    }


def _pooled(moments: Float[np.ndarray, "n 2 2"], groups: Groups) -> Callable[[Weights], StainStatistics]:
    """Returns the statistics of a set as a function of how often each of its groups was drawn."""
    sums, counts = group_sums(moments, groups), np.bincount(groups.index, minlength=groups.count)
    return lambda weights: of_moments(np.tensordot(weights, sums, axes=1) / (weights @ counts))


def _drift_statistic(name: str, comparison: Comparison) -> Statistic:
    """Returns a number of :func:`stain_drift` of two sets, which are given by :func:`image_moments`."""
    real, generated = _pooled(comparison.x, comparison.x_groups), _pooled(comparison.y, comparison.y_groups)
    return lambda x_weights, y_weights: stain_drift(generated(y_weights), real(x_weights))[name]


_READINGS: dict[str, Better] = {"shift": "nearer 0", "spread_ratio": "nearer 1"}
DRIFT = tuple(
    Metric(
        name=f"{stain}_{kind}",
        title=f"{stain} {kind.replace('_', ' ')}",
        statistic=functools.partial(_drift_statistic, f"{stain}_{kind}"),
        better=better,
        digits=2,
        source="stain",
        headline=False,
    )
    for stain in STAINS
    for kind, better in _READINGS.items()
)
