"""The tissue mask, on a small picture of the slide."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from data_prep.slide import colour
from data_prep.slide.slides import Slide, read_thumbnail

MASK_PX = 2048
# Glass is brighter than this in every channel, and its channels differ by less than _TINT.
_BRIGHT, _TINT = 180, 14
# Of a picture without such glass (a warm lamp, a mountant that has yellowed), what differs by less than this and is
# flat: within a window of this side, no channel varies by more grey levels than this. Tissue always has a texture.
_STRONG_TINT, _WINDOW, _FLAT = 60, 15, 5
# A picture with less glass than this share does not say what colour glass has.
_SOME_GLASS = 0.01
# A stroke of a pen is wider than a speck, and its edge is blurred; in pixels.
_SPECK, _STROKE_EDGE = np.ones((3, 3), np.uint8), np.ones((5, 5), np.uint8)


@dataclass(frozen=True)
class TissueMask:
    """Tissue (true) or not, per pixel of a small picture of the slide.

    Attributes:
        mask: (height, width).
        level0_px: level-0 pixels per mask pixel, along x and along y.
    """

    mask: Bool[np.ndarray, "h w"]
    level0_px: tuple[float, float]

    def share(self, x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
        """Share of tissue in boxes of one size whose top-left corners are (x, y), in level-0 pixels."""
        total = cv2.integral(self.mask.astype(np.uint8)).astype(np.int64)
        rows, columns = self.mask.shape
        x0 = np.clip(np.floor(x / self.level0_px[0]), 0, columns - 1).astype(int)
        y0 = np.clip(np.floor(y / self.level0_px[1]), 0, rows - 1).astype(int)
        x1 = np.clip(np.ceil((x + width) / self.level0_px[0]), x0 + 1, columns).astype(int)
        y1 = np.clip(np.ceil((y + height) / self.level0_px[1]), y0 + 1, rows).astype(int)
        inside = total[y1, x1] - total[y0, x1] - total[y1, x0] + total[y0, x0]
        return inside / ((x1 - x0) * (y1 - y0))


def find_tissue(slide: Slide, stain: colour.Stain = colour.STAINS[colour.HE]) -> TissueMask:
    """Tissue is what is stained and no ink: grey glass edges, shadows and black borders have no hue of a stain.

    Where a stain may be grey, they are told from tissue by having no texture.

    The threshold is a fixed density above the slide's own glass, and not one that splits the slide in two groups
    (Otsu): such a one hides a pale piece beside a deeply stained one, and finds two groups on bare glass too.
    """
    picture = cv2.medianBlur(read_thumbnail(slide, max_px=MASK_PX), 5)
    colours = colour.measure(picture, find_glass(picture))
    strokes = cv2.morphologyEx(colour.find_ink(colours, stain).astype(np.uint8), cv2.MORPH_OPEN, _SPECK)
    mask = colour.find_stained(colours, stain) & (cv2.dilate(strokes, _STROKE_EDGE) == 0)
    if stain.is_grey:
        mask &= ~_in_flat(picture)
    rows, columns = mask.shape
    return TissueMask(mask, (slide.size[0] / columns, slide.size[1] / rows))


def find_glass(picture: UInt8[np.ndarray, "h w 3"]) -> tuple[float, float, float]:
    """Returns the colour of the brightest nearly colourless pixels, else of flat ones; white where there are neither.

    Pure white does not count: it stands for places that were not scanned.
    """
    low, high = picture.min(axis=-1), picture.max(axis=-1)
    bright = (low > _BRIGHT) & (low < 255)
    glass = picture[bright & (high - low < _TINT)]
    if len(glass) < _SOME_GLASS * low.size:
        glass = picture[bright & (high - low < _STRONG_TINT) & _is_flat(picture)]
    if len(glass) < _SOME_GLASS * low.size:
        return colour.WHITE
    red, green, blue = np.percentile(glass, 90, axis=0).tolist()
    return red, green, blue


def _in_flat(picture: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """Returns where a pixel lies in any flat window, and not only in the middle of one."""
    return cv2.dilate(_is_flat(picture).astype(np.uint8), np.ones((_WINDOW, _WINDOW), np.uint8)) > 0


def _is_flat(picture: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """Returns where no channel varies around a pixel."""
    window = np.ones((_WINDOW, _WINDOW), np.uint8)
    return (cv2.dilate(picture, window) - cv2.erode(picture, window)).max(axis=-1) <= _FLAT
