"""Nuclei of a set of images: how many, how large and how dark they are, beside those of real tissue.

Haematoxylin is told from eosin by colour deconvolution (:mod:`stain`; Ruifrok and Johnston 2001). Its amount is
smoothed over less than a nucleus; what holds more of it than Otsu's threshold (1979) is nuclear. The threshold is that
of the set: a set that is stained darker as a whole has as many nuclei, of the same size and darker. Touching nuclei are
parted halfway between the places that are farthest from a border. That is a measure of plausibility, the same for all
sets that are compared, and no count for a diagnosis: where nuclei overlap in clumps, it has fewer than there are.

A nucleus that the edge of the image cuts counts half in the number and not in the size.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import scipy.ndimage
import scipy.spatial
import scipy.stats
from jaxtyping import Bool, Float, Int, UInt8

from diffpath_jax.metrics.bootstrap import Statistic
from diffpath_jax.metrics.metric import Comparison, Metric
from diffpath_jax.metrics.stain import STAINS, stain_amounts

# What is measured of each image, with its unit.
MEASURES = {
    "nuclei_density": "nuclei per mm^2",
    "nuclei_area": "median area of a nucleus, um^2",
    "nuclei_haematoxylin": "mean haematoxylin in nuclei, optical density",
}
# Coarser images show a lymphocyte's nucleus, of 7 um, by 3 px or fewer.
MAX_MPP = 2.0
# Smoothing before the threshold, and least distance between the middles of touching nuclei. Areas of a nucleus: that of
# a lymphocyte has 38 um^2, of a carcinoma cell some 300; what is smaller is debris, what is larger keratin or ink.
SMOOTHING_UM, SEPARATION_UM = 0.6, 3.0
AREAS_UM2 = (12.0, 400.0)
# Levels of haematoxylin, in optical density, among which the threshold is sought.
_LEVELS = np.linspace(-0.5, 2.5, 601)


@dataclass(frozen=True)
class Nuclei:
    """Nuclei of one image.

    Attributes:
        labels: number of the nucleus at each pixel, from 1; 0 outside.
        areas: pixels of each.
        cut: which of them the edge of the image cuts.
    """

    labels: Int[np.ndarray, "h w"]
    areas: Int[np.ndarray, "nuclei"]
    cut: Bool[np.ndarray, "nuclei"]


def image_measures(images: UInt8[np.ndarray, "n h w 3"], *, threshold: float, mpp: float) -> Float[np.ndarray, "n 3"]:
    """Returns the ``MEASURES`` of each image; size and stain are 0 where there are no nuclei to have them.

    Args:
        images: images of one set.
        threshold: amount of haematoxylin above which a pixel is nuclear, see :func:`set_threshold`.
        mpp: um per pixel.
    """
    return np.array([_measures(image, threshold, mpp) for image in images])


def set_threshold(images: Iterable[UInt8[np.ndarray, "h w 3"]], *, mpp: float) -> float:
    """Returns the amount of haematoxylin that parts nuclei from the rest of a set (Otsu 1979).

    Raises:
        ValueError: the pixels are too large to show nuclei.
    """
    if mpp > MAX_MPP:
        raise ValueError(f"{mpp:g} um/px are too coarse to show nuclei, which takes {MAX_MPP:g}")
    counts = np.zeros(len(_LEVELS) - 1)
    for image in images:
        counts += np.histogram(np.clip(haematoxylin(image, mpp=mpp), _LEVELS[0], _LEVELS[-1]), _LEVELS)[0]
    return otsu(counts, _LEVELS)


def otsu(counts: Float[np.ndarray, "n"], edges: Float[np.ndarray, "m"]) -> float:
    """Returns the edge that leaves the least variance within the two sides of a histogram."""
    centres = (edges[1:] + edges[:-1]) / 2
    below, sums = np.cumsum(counts)[:-1], np.cumsum(counts * centres)[:-1]
    above = counts.sum() - below
    parted = np.minimum(below, above) > 0
    apart = sums / np.where(parted, below, 1) - (counts @ centres - sums) / np.where(parted, above, 1)
    between = np.where(parted, below * above * np.square(apart), 0)
    # Where the histogram is empty between the two, any edge there does as well: the middle one.
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    return float(edges[1:-1][best].mean())


def haematoxylin(image: UInt8[np.ndarray, "h w 3"], *, mpp: float) -> Float[np.ndarray, "h w"]:
    """Returns the amount of haematoxylin at each pixel, in optical density, smoothed over less than a nucleus."""
    amounts = stain_amounts(image)[..., STAINS.index("haematoxylin")]
    return scipy.ndimage.gaussian_filter(amounts, SMOOTHING_UM / mpp)


def segment(image: UInt8[np.ndarray, "h w 3"], *, threshold: float, mpp: float) -> Nuclei:
    """Returns the nuclei of an image.

    Args:
        image: RGB.
        threshold: amount of haematoxylin above which a pixel is nuclear.
        mpp: um per pixel.
    """
    labels = _parted(_filled(haematoxylin(image, mpp=mpp) > threshold, mpp), mpp)
    areas = np.bincount(labels.ravel())
    kept = (AREAS_UM2[0] <= areas * mpp**2) & (areas * mpp**2 <= AREAS_UM2[1])
    kept[0] = False
    numbers = np.where(kept, np.cumsum(kept), 0)
    labels = numbers[labels]
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return Nuclei(labels, areas[kept], np.isin(np.arange(1, kept.sum() + 1), border))


def _filled(nuclear: Bool[np.ndarray, "h w"], mpp: float) -> Bool[np.ndarray, "h w"]:
    """Returns a mask without holes that are smaller than a nucleus."""
    holes, _ = scipy.ndimage.label(~nuclear)
    return nuclear | (np.bincount(holes.ravel()) * mpp**2 < AREAS_UM2[0])[holes]


def _parted(nuclear: Bool[np.ndarray, "h w"], mpp: float) -> Int[np.ndarray, "h w"]:
    """Returns the pieces of a mask; one with several thick places is parted halfway between these."""
    pieces, count = scipy.ndimage.label(nuclear, np.ones((3, 3)))
    # Beyond the edge of the image a piece goes on.
    padded = np.pad(nuclear, 1, mode="edge").astype(np.uint8)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    depth = scipy.ndimage.gaussian_filter(depth, SMOOTHING_UM / mpp)
    reach = 2 * max(1, round(SEPARATION_UM / mpp)) + 1
    peaks, peak_count = scipy.ndimage.label(nuclear & (depth == scipy.ndimage.maximum_filter(depth, reach)))
    if not peak_count:
        return pieces
    numbers = np.arange(1, peak_count + 1)
    owners = scipy.ndimage.maximum(pieces, peaks, numbers)
    centres = np.array(scipy.ndimage.center_of_mass(peaks > 0, peaks, numbers))
    for piece in np.flatnonzero(np.bincount(owners.astype(int)) > 1):
        own = np.argwhere(pieces == piece)
        nearest = scipy.spatial.distance.cdist(own, centres[owners == piece]).argmin(axis=1)
        pieces[tuple(own.T)] = np.where(nearest, count + nearest, piece)
        count += nearest.max()
    return pieces


def _measures(image: UInt8[np.ndarray, "h w 3"], threshold: float, mpp: float) -> tuple[float, float, float]:
    nuclei = segment(image, threshold=threshold, mpp=mpp)
    field_mm2 = image.shape[0] * image.shape[1] * (mpp / 1000) ** 2
    density = (len(nuclei.areas) - nuclei.cut.sum() / 2) / field_mm2
    amounts = stain_amounts(image)[..., STAINS.index("haematoxylin")][nuclei.labels > 0]
    of_whole = nuclei.areas[~nuclei.cut]
    area = np.median(of_whole) * mpp**2 if len(of_whole) else 0.0
    return float(density), float(area), float(amounts.mean()) if len(amounts) else 0.0


def _distance(place: int, comparison: Comparison) -> Statistic:
    """Returns the 1-Wasserstein distance of a measure of the images, in units of its real standard deviation."""
    x, y = comparison.x[:, place], comparison.y[:, place]
    # An image without nuclei has a number of them, but no size and no stain.
    x_there, y_there = (values > 0 if place else np.full(len(values), True) for values in (x, y))
    if min(x_there.sum(), y_there.sum()) < 2:
        raise ValueError("fewer than two images of a set show nuclei")
    spread = x[x_there].std(ddof=1)
    if not spread:
        raise ValueError(f"all images of the reference have the same {list(MEASURES)[place]}")

    def statistic(x_weights: np.ndarray, y_weights: np.ndarray) -> float:
        own, other = x_weights[comparison.x_groups.index][x_there], y_weights[comparison.y_groups.index][y_there]
        return float(scipy.stats.wasserstein_distance(x[x_there], y[y_there], own, other) / spread)

    return statistic


DISTANCES = tuple(
    Metric(
        name=f"{name}_distance",
        title=f"{title}: distance from real ones in real standard deviations",
        statistic=functools.partial(_distance, place),
        digits=2,
        lower=0.0,
        source="nuclei",
        headline=False,
    )
    for place, (name, title) in enumerate(MEASURES.items())
)
