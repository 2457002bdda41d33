"""Where the tissue is: a mask on a small picture of the slide."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool

from data_prep.slides import Slide, read_thumbnail

MASK_PX = 2048
# Otsu's threshold always finds two groups, even on bare glass: stain paler than this is taken for glass.
MIN_SATURATION = 15
# Scanner borders and folds are black in every channel.
MIN_VALUE = 30


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


def find_tissue(slide: Slide) -> TissueMask:
    """Tissue is what is stained: HSV saturation above Otsu's threshold, and not black.

    The threshold is taken over the whole slide and never exceeds twice ``MIN_SATURATION``, so that one deeply
    stained piece does not hide a pale one.
    """
    picture = read_thumbnail(slide, max_px=MASK_PX)
    hsv = cv2.cvtColor(cv2.medianBlur(picture, 5), cv2.COLOR_RGB2HSV)
    otsu, _ = cv2.threshold(hsv[..., 1], 0, 255, cv2.THRESH_OTSU)
    threshold = np.clip(otsu, MIN_SATURATION, 2 * MIN_SATURATION)
    mask = (hsv[..., 1] > threshold) & (hsv[..., 2] > MIN_VALUE)
    rows, columns = mask.shape
    return TissueMask(mask, (slide.size[0] / columns, slide.size[1] / rows))
