"""Quality of one stored image: its focus, its colour, ink on it; and what is rejected for which.

Scores are those of the image as it is stored, at its um/px: what is out of focus at 0.25 um/px may be sharp at 1.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from data_prep.slide import colour
from diffpath_jax.io.errors import DiffpathError

BLURRED = "out of focus"
PALE = "too little colour"
INK = "ink of a pen"
# Pixels that are averaged to blur an image again, as published.
_TAPS = 9
# Colour is judged in so many places along a side: strokes of a pen are wider, single nuclei may be as blue as ink,
# and the colours of noise even out.
_PLACES = 16


@dataclass(frozen=True)
class QualitySpec:
    """Limits of the quality of a stored image; 1, 0 and 1 let all of them pass.

    Attributes:
        blur_max: largest blur.
        saturation_min: least saturation.
        pen_max: largest share of ink.
    """

    blur_max: float
    saturation_min: float
    pen_max: float


@dataclass(frozen=True)
class Scores:
    """Quality of one image, to four digits.

    Attributes:
        blur: from 0, sharp, to 1, see :func:`blur`.
        saturation: mean HSV saturation, 0 to 1.
        pen_share: share of ink, see :func:`data_prep.slide.colour.find_ink`.
    """

    blur: float
    saturation: float
    pen_share: float


def check_spec(spec: QualitySpec) -> QualitySpec:
    """Return the thresholds.

    Raises:
        DiffpathError: one is no number from 0 to 1.
    """
    for name, value in asdict(spec).items():
        if not 0 <= value <= 1:  # NaN fails too
            why = f"{value} is not a number from 0 to 1"
            raise DiffpathError(f"--{name}", where="the command line", why=why, fix="change it")
    return spec


def measure(image: UInt8[np.ndarray, "h w 3"], stain: colour.Stain = colour.STAINS[colour.HE]) -> Scores:
    """All scores of one image; what is ink depends on the stain."""
    small = cv2.resize(image, (_PLACES, _PLACES), interpolation=cv2.INTER_AREA)
    scores = Scores(
        # Not rounded to whole grey levels: the steps of a very smooth image would count as sharp.
        blur=blur(cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2GRAY)),
        saturation=cv2.mean(cv2.cvtColor(small, cv2.COLOR_RGB2HSV))[1] / 255,
        pen_share=float(colour.find_ink(colour.measure(small), stain).mean()),
    )
    return Scores(**{name: round(value, 4) for name, value in asdict(scores).items()})


def reject(scores: Scores, spec: QualitySpec) -> str | None:
    """Why an image is rejected; nothing if it is not."""
    failed: Mapping[str, bool] = {
        INK: scores.pen_share > spec.pen_max,
        PALE: scores.saturation < spec.saturation_min,
        BLURRED: scores.blur > spec.blur_max,
    }
    return next((reason for reason, is_so in failed.items() if is_so), None)


def blur(grey: Float32[np.ndarray, "h w"]) -> float:
    """Returns how little an image loses when blurred again: 0 for one that is sharp, 1 for one without any detail.

    The metric of Crete et al. (2007, "The blur effect: perception and estimation with a new no-reference perceptual
    blur metric", Proc. SPIE 6492, 64920I), eq. 1 to 6. It is a ratio of differences between neighbours, before and
    after, so that neither brightness nor contrast changes it; a plain variance of the Laplacian takes pale tissue for
    blurred. Noise hides blur from it, as from any measure of sharpness.
    """
    along = (_blur_along(grey, axis=axis) for axis in (0, 1))
    return max((share for share in along if share is not None), default=1.0)


def _blur_along(grey: Float32[np.ndarray, "h w"], *, axis: int) -> float | None:
    """Blur along one axis: the share of the differences that is still there; none where there are no differences."""
    if grey.shape[axis] == 1:
        return None
    again = cv2.blur(grey, (1, _TAPS) if axis == 0 else (_TAPS, 1))
    before, after = (
        cv2.absdiff(x[1:], x[:-1]) if axis == 0 else cv2.absdiff(x[:, 1:], x[:, :-1]) for x in (grey, again)
    )
    total = cv2.norm(before, cv2.NORM_L1)
    # The sum of max(0, before - after), in one pass each: max(0, x) = (|x| + x) / 2.
    lost = (cv2.norm(before, after, cv2.NORM_L1) + total - cv2.norm(after, cv2.NORM_L1)) / 2
    return 1 - lost / total if total > 0 else None
