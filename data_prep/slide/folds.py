"""Folds of the tissue, on a small picture of the slide: dark bands where it lies twice on itself.

Light goes through both layers, so that a fold has about twice the density of the tissue at its sides, in every channel
(Beer and Lambert). So has tissue that is full of nuclei, but that is no band: the estimate is conservative, and takes
for folds only what is dense in red and in green light, long, and narrow.
"""

import math

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from data_prep.slide import colour
from data_prep.slide.slides import Slide, read_thumbnail
from data_prep.slide.tissue import MASK_PX, TissueMask, find_glass

# A fold is at least so many times as dense as the tissue around it; noise and grains stay below.
_TIMES_AS_DENSE = 1.5
# What is fainter belongs to a fold where it touches what is surely one.
_FAINTER = 1.3
# Nuclei and fibres are evened out over so many um (the standard deviation of a Gaussian).
_GRAIN_UM = 18.0
# Tissue around a place lies within so many um of it, and so much of it is tissue.
_AROUND_UM, _LEAST_AROUND = 1500.0, 0.25
# A fold is longer than this, no wider than this, and so many times as long as wide.
_LENGTH_UM, _WIDTH_UM, _TIMES_AS_LONG = 400.0, 250.0, 5.0
# The picture is no finer than this: a slide that is small would be looked at grain by grain.
_PIXEL_UM = 4.0
# Bands of fewer pixels than this across are lost in grains.
_LEAST_PX = 2


def find_folds(slide: Slide, tissue: TissueMask) -> TissueMask:
    """Returns where the tissue of a slide is folded; what lies outside ``tissue`` is no fold."""
    longest_um = max(slide.size[0] * slide.scale.x, slide.size[1] * slide.scale.y)
    max_px = min(MASK_PX, math.ceil(longest_um / _PIXEL_UM))
    picture = cv2.medianBlur(read_thumbnail(slide, max_px=max_px), 3)
    rows, columns = picture.shape[:2]
    inside = cv2.resize(tissue.mask.astype(np.uint8), (columns, rows), interpolation=cv2.INTER_NEAREST) > 0
    level0_px = (slide.size[0] / columns, slide.size[1] / rows)
    um = (slide.scale.x * level0_px[0] + slide.scale.y * level0_px[1]) / 2
    dense = _is_denser_than_around(picture, inside, grain=_GRAIN_UM / um, radius=max(3, round(_AROUND_UM / um)))
    return TissueMask(_bands(dense, um), level0_px)


def _is_denser_than_around(
    picture: UInt8[np.ndarray, "h w 3"], inside: Bool[np.ndarray, "h w"], *, grain: float, radius: int
) -> Bool[np.ndarray, "h w"]:
    """Returns the tissue that is so much denser than the tissue around it, in red and in green light.

    Blue light is left out: blood and pigment absorb it alone.
    """
    glass = find_glass(picture)
    ratio = np.full(inside.shape, np.inf, np.float32)
    for channel in (0, 1):
        density = cv2.GaussianBlur(colour.densities(glass[channel])[picture[..., channel]], (0, 0), max(grain, 0.3))
        around, share = _mean_within(density, inside, radius)
        ratio = np.minimum(ratio, density / np.maximum(around, np.float32(1e-6)))
    candidates = inside & (share > _LEAST_AROUND)
    return colour.touching(candidates & (ratio > _TIMES_AS_DENSE), candidates & (ratio > _FAINTER))


def _mean_within(
    values: Float32[np.ndarray, "h w"], inside: Bool[np.ndarray, "h w"], radius: int
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Returns the mean of values inside, over a square around each pixel, and the share of it that is inside."""
    size = (2 * radius + 1, 2 * radius + 1)
    share = cv2.boxFilter(inside.astype(np.float32), -1, size, borderType=cv2.BORDER_CONSTANT)
    sums = cv2.boxFilter(np.where(inside, values, np.float32(0)), -1, size, borderType=cv2.BORDER_CONSTANT)
    return sums / np.maximum(share, np.float32(1e-6)), share


def _bands(dense: Bool[np.ndarray, "h w"], um: float) -> Bool[np.ndarray, "h w"]:
    """Returns the connected parts that are long and narrow.

    Half the outline of a band is its length, and its area over that its width.

    Args:
        dense: what may be folds.
        um: side of a pixel.
    """
    opened = cv2.morphologyEx(dense.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    opened = cv2.morphologyEx(opened, cv2.MORPH_OPEN, np.ones((_LEAST_PX, _LEAST_PX), np.uint8))
    folds, may_be = np.zeros(dense.shape, bool), opened > 0
    outlines, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for outline in outlines:
        length = cv2.arcLength(outline, True) / 2 * um
        if length < _LENGTH_UM or not _is_straight(outline, length, um):
            continue
        part = (cv2.drawContours(np.zeros(dense.shape, np.uint8), [outline], -1, 1, -1) > 0) & may_be
        width = int(part.sum()) * um**2 / length
        if width < min(_WIDTH_UM, length / _TIMES_AS_LONG):
            folds |= part
    return folds


def _is_straight(outline: np.ndarray, length: float, um: float) -> bool:
    """Returns whether a band reaches somewhere: what winds within a small place is a ragged edge, not a fold."""
    (_, sides, _) = cv2.minAreaRect(outline)
    return max(sides) * um > length / 2
