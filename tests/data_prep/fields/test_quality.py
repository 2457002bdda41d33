"""Scores of stored images against the published formula, numbers worked by hand and drawn faults."""

import cv2
import numpy as np
import pytest

from data_prep.fields import quality
from data_prep.fields.quality import QualitySpec, Scores
from diffpath_jax.io.errors import DiffpathError
from tests.data_prep.drawn_tissue import INKS, tissue

DEFAULTS = QualitySpec(blur_max=0.65, saturation_min=0.03, pen_max=0.1)


def plain_blur(grey):
    """Crete et al. 2007, equations 1 to 6, written as loops; neighbours beyond the border are mirrored."""
    shares = []
    for image in (grey, grey.T):
        columns = image.shape[1]
        whole = lost = 0.0
        for row in image:
            mirrored = [row[abs(i) if i < columns else 2 * columns - 2 - i] for i in range(-4, columns + 4)]
            again = [sum(mirrored[i : i + 9]) / 9 for i in range(columns)]
            for i in range(1, columns):
                before, after = abs(row[i] - row[i - 1]), abs(again[i] - again[i - 1])
                whole += before
                lost += max(0.0, before - after)
        shares.append((whole - lost) / whole)
    return max(shares)


def test_blur_is_the_published_one():
    for seed, sigma in ((0, 0.01), (1, 1.0), (2, 2.5)):
        grey = 255 * np.random.default_rng(seed).random((21, 30)).astype(np.float32)
        grey = cv2.GaussianBlur(grey, (0, 0), sigma)
        assert quality.blur(grey) == pytest.approx(plain_blur(grey.astype(float)), abs=1e-5)


def test_blur_of_an_edge_worked_by_hand():
    """A step of 90 becomes nine steps of 10: at the edge 80 of 90 are lost, so that a ninth is left."""
    grey = np.zeros((32, 32), np.float32)
    grey[:, 16:] = 90
    assert quality.blur(grey) == pytest.approx(1 / 9, abs=1e-6)
    assert quality.blur(grey.T.copy()) == pytest.approx(1 / 9, abs=1e-6)
    # A ramp over more than nine pixels has nothing left to lose but at its two ends.
    ramp = np.tile(np.clip(np.arange(200, dtype=np.float32) - 50, 0, 100), (8, 1))
    assert quality.blur(ramp) > 0.97


def test_contrast_and_brightness_do_not_blur():
    image = tissue(np.random.default_rng(0), (128, 128))
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    assert quality.blur(0.2 * grey + 150) == pytest.approx(quality.blur(grey), abs=1e-4)
    assert quality.blur(np.full((16, 16), 7, np.float32)) == 1


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_what_is_out_of_focus_is_rejected_and_what_is_pale_is_not(strength):
    rng = np.random.default_rng(1)
    for _ in range(5):
        sharp = tissue(rng, (128, 128), strength=strength)
        assert quality.reject(quality.measure(sharp), DEFAULTS) is None
        for sigma in (4, 6):
            assert quality.reject(quality.measure(cv2.GaussianBlur(sharp, (0, 0), sigma)), DEFAULTS) == quality.BLURRED


def test_saturation_worked_by_hand():
    # (max - min) / max: 100 / 200; grey has none; half and half is the mean.
    image = np.full((64, 64, 3), (200, 100, 100), np.uint8)
    assert quality.measure(image).saturation == pytest.approx(0.5, abs=0.003)
    image[32:] = 180
    assert quality.measure(image).saturation == pytest.approx(0.25, abs=0.003)
    assert quality.reject(Scores(blur=0.2, saturation=0.01, pen_share=0.0), DEFAULTS) == quality.PALE


@pytest.mark.parametrize("ink", INKS)
def test_share_of_ink(ink):
    image = tissue(np.random.default_rng(2), (128, 128))
    assert quality.measure(image).pen_share == 0
    image[:, :48] = INKS[ink]
    found = quality.measure(image)
    assert found.pen_share == pytest.approx(48 / 128, abs=1 / 16)
    assert quality.reject(found, DEFAULTS) == quality.INK


@pytest.mark.parametrize("size", [1, 3, 16, 17, 224])
def test_images_of_any_size(size):
    found = quality.measure(np.random.default_rng(3).integers(0, 256, (size, size, 3), dtype=np.uint8))
    assert all(0 <= value <= 1 for value in vars(found).values())


def test_the_loosest_limits_let_everything_pass():
    worst = Scores(blur=1.0, saturation=0.0, pen_share=1.0)
    assert quality.reject(worst, QualitySpec(blur_max=1.0, saturation_min=0.0, pen_max=1.0)) is None


@pytest.mark.parametrize("name", ["blur_max", "saturation_min", "pen_max"])
@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_limits_that_are_none(name, value):
    with pytest.raises(DiffpathError, match=f"--{name}"):
        quality.check_spec(QualitySpec(**{**vars(DEFAULTS), name: value}))
