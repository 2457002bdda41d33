"""Folds on drawn slides where the truth is known, and what is dark and no fold."""

import functools

import cv2
import numpy as np
import pytest

from data_prep.fields import tiling
from data_prep.slide import slides
from data_prep.slide.folds import find_folds
from data_prep.slide.tissue import find_tissue
from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset
from tests.data_prep.drawn_tissue import EOSIN, GLASS, HAEMATOXYLIN, save, tissue

# A pixel of the drawing is 4 um.
SHAPE, MPP = (900, 1200), 4.0
PIECE = cv2.ellipse(np.zeros(SHAPE, np.uint8), (600, 450), (480, 360), 0, 0, 360, 1, -1).astype(bool)


def curve(width, *points):
    """A curve through points, of some pixels across."""
    canvas = np.zeros(SHAPE, np.uint8)
    return cv2.polylines(canvas, [np.array(points, np.int32)], False, 1, width).astype(bool)


FOLD = curve(26, (300, 300), (450, 360), (600, 380), (800, 520))


@functools.cache
def layers():
    """Two layers of tissue; a pixel of 4 um averages what is in it."""
    rng = np.random.default_rng(0)
    return [np.mean([tissue(rng, SHAPE) for _ in range(4)], axis=0) for _ in range(2)]


def drawn(*, twice=None, nuclei=None, blood=None):
    """One piece of tissue; where it lies ``twice`` light goes through another layer."""
    image = np.full((*SHAPE, 3), GLASS, np.uint8)
    first, second = layers()
    image[PIECE] = first[PIECE].astype(np.uint8)
    if twice is not None:
        both = first / np.array(GLASS) * second
        image[twice & PIECE] = both.clip(0, 255).astype(np.uint8)[twice & PIECE]
    for where, dye, amount in ((nuclei, HAEMATOXYLIN, 0.6), (blood, EOSIN, 0.8)):
        if where is not None:
            image[where & PIECE] = (np.array(GLASS) * 10 ** (-amount * dye)).astype(np.uint8)
    return image


def found(tmp_path, image):
    slide = slides.open_slide(save(tmp_path / "drawn.svs", image, mpp=MPP))
    return find_folds(slide, find_tissue(slide)).mask


def test_a_fold_is_found(tmp_path):
    mask = found(tmp_path, drawn(twice=FOLD))
    assert (mask & FOLD).sum() > 0.6 * FOLD.sum()
    assert (mask & ~cv2.dilate(FOLD.astype(np.uint8), np.ones((17, 17))).astype(bool)).sum() == 0


def disc(radius):
    return cv2.circle(np.zeros(SHAPE, np.uint8), (500, 400), radius, 1, -1).astype(bool)


@pytest.mark.parametrize(
    "what",
    [
        {},
        {"nuclei": disc(60)},
        {"blood": curve(26, (300, 300), (800, 520))},
        {"twice": curve(26, (500, 400), (540, 400))},
        {"twice": disc(120)},
    ],
    ids=["plain", "a follicle of nuclei", "a vessel of blood", "too short", "too wide"],
)
def test_what_is_no_fold_is_none(tmp_path, what):
    assert not found(tmp_path, drawn(**what)).any()


def test_folded_fields_are_rejected_where_it_is_asked_for_and_counted(tmp_path):
    (tmp_path / "slides").mkdir()
    save(tmp_path / "slides" / "one.svs", drawn(twice=FOLD), mpp=MPP)
    (tmp_path / "labels.csv").write_text("slide,class\none,Tissue\n")
    words = ["prep", "--slides", tmp_path / "slides", "--slide_labels", tmp_path / "labels.csv", "--workers", 0]
    words += ["--fov_um", 128, "--patch_px", 32, "--gap_um", 0]
    outcomes = {}
    for name, more in (("kept", []), ("rejected", ["--tissue_fold_max", 0.1])):
        assert cli.main([str(word) for word in [*words, "--out", tmp_path / name, *more]]) == 0
        outcomes[name] = open_dataset(tmp_path / name).details.outcomes
    assert tiling.FOLDED not in outcomes["kept"] and outcomes["rejected"][tiling.FOLDED] > 10
    without = outcomes["kept"][tiling.KEPT] - outcomes["rejected"][tiling.FOLDED]
    assert abs(outcomes["rejected"][tiling.KEPT] - without) <= 1
    assert open_dataset(tmp_path / "rejected").details.job["fold_max"] == 0.1
    assert "fold_max" not in open_dataset(tmp_path / "kept").details.job
    page = (tmp_path / "rejected" / "qa" / "index.html").read_text()
    assert "fold of the tissue" in page and page.count("-zoom-") == 6
