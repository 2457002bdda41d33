"""The tissue mask on drawn slides where the truth is known: pale stain, pens, black borders, edges of cover slips."""

import cv2
import numpy as np
import pytest

from data_prep.slide import colour, slides
from data_prep.slide.tissue import find_tissue
from tests.data_prep.drawn_tissue import (
    ALCIAN_BLUE,
    DAB,
    EOSIN,
    GLASS,
    HAEMATOXYLIN,
    INKS,
    METHYL_BLUE,
    PONCEAU_FUCHSIN,
    SILVER,
    cloud,
    save,
    tissue,
)

HE = colour.STAINS["he"]

SHAPE = (900, 1200)
BLOB = cv2.ellipse(np.zeros(SHAPE, np.uint8), (520, 450), (330, 260), 20, 0, 360, 1, -1).astype(bool)


def draw(*, strength=1.0, glass=GLASS, seed=0, dyes=(EOSIN, HAEMATOXYLIN)):
    """One piece of tissue on glass."""
    rng = np.random.default_rng(seed)
    image = np.clip(np.array(glass) + rng.normal(0, 1, (*SHAPE, 3)), 0, 255).astype(np.uint8)
    image[BLOB] = tissue(rng, SHAPE, strength=strength, glass=glass, dyes=dyes)[BLOB]
    return image


def overlap(tmp_path, image, truth, stain="he"):
    """Intersection over union of the mask and the truth."""
    mask = find_tissue(slides.open_slide(save(tmp_path / "drawn.svs", image)), colour.STAINS[stain]).mask
    return (mask & truth).sum() / (mask | truth).sum()


@pytest.mark.parametrize(("strength", "least"), [(1.0, 0.98), (0.5, 0.98), (0.25, 0.95), (0.15, 0.90)])
def test_pale_stain(tmp_path, strength, least):
    assert overlap(tmp_path, draw(strength=strength), BLOB) > least


@pytest.mark.parametrize("glass", [(255, 255, 255), (205, 205, 206), (247, 244, 236), (232, 238, 243)])
def test_glass_of_any_brightness_and_tint(tmp_path, glass):
    assert overlap(tmp_path, draw(glass=glass), BLOB) > 0.98
    assert overlap(tmp_path, draw(glass=glass, strength=0.35), BLOB) > 0.95


TINTED = [(240, 227, 235), (240, 225, 234), (240, 220, 232), (240, 200, 224), (240, 234, 225), (240, 224, 200)]


# One that is tinted like tissue, one that is not, and the others in ``make test-full``.
@pytest.mark.parametrize(
    "glass",
    [
        (240, 200, 224),
        (220, 240, 226),
        *(pytest.param(glass, marks=pytest.mark.full) for glass in [*TINTED, (225, 240, 230)] if glass[1] != 200),
    ],
)
def test_strongly_tinted_glass_is_no_tissue_and_hides_none(tmp_path, glass):
    assert overlap(tmp_path, draw(glass=glass), BLOB) > 0.98
    assert overlap(tmp_path, draw(glass=glass, strength=0.35), BLOB) > 0.95
    bare = np.clip(np.array(glass) + np.random.default_rng(3).normal(0, 2, (*SHAPE, 3)), 0, 255).astype(np.uint8)
    assert find_tissue(slides.open_slide(save(tmp_path / "bare.svs", bare))).mask.mean() < 1e-3


@pytest.mark.parametrize("strength", [0.15, 0.3, 1.0])
def test_a_slide_full_of_tissue_has_no_glass_however_pale(tmp_path, strength):
    full = tissue(np.random.default_rng(3), SHAPE, strength=strength)
    assert find_tissue(slides.open_slide(save(tmp_path / "full.svs", full))).mask.mean() > 0.97


@pytest.mark.parametrize("ink", INKS)
@pytest.mark.parametrize("across", [False, True], ids=["beside", "across"])
def test_pens(tmp_path, ink, across):
    """A stroke, thinner towards its end, on glass or over the tissue, which is lost there."""
    image, stroke = draw(), np.zeros(SHAPE, np.uint8)
    ends = ((250, 380), (900, 520)) if across else ((930, 60), (1130, 840))
    cv2.line(stroke, *ends, 1, 36)
    ragged = stroke.astype(bool) & (cloud(np.random.default_rng(1), SHAPE, 5) > 0.1)
    # Light goes through both layers; the edge of the stroke is blurred.
    through = cv2.GaussianBlur(np.where(ragged[..., None], np.array(INKS[ink]) / 245, 1.0), (0, 0), 1.0)
    # Blue ink over eosin has, here and there, the colour of haematoxylin.
    least = 0.90 if across and ink == "blue" else 0.95
    assert overlap(tmp_path, (image * through).clip(0, 255).astype(np.uint8), BLOB & ~ragged) > least


def test_black_borders(tmp_path):
    image, truth = draw(), BLOB.copy()
    rng = np.random.default_rng(2)
    for part in (np.s_[:70], np.s_[:, 1080:], np.s_[700:]):
        image[part] = rng.integers(0, 14, image[part].shape)
        truth[part] = False
    assert overlap(tmp_path, image, truth) > 0.97


def test_edges_of_cover_slips_and_shadows(tmp_path):
    """Grey lines with coloured fringes, a grey shadow, a bubble's rim: light is lost, and no dye is there."""
    image = draw().astype(float)
    image[:, 940:952] *= 0.45
    image[:, 952:954] *= (0.80, 0.86, 0.95)
    image[:, 938:940] *= (0.97, 0.93, 0.80)
    image[840:] *= 0.8
    rim = cv2.circle(np.zeros(SHAPE, np.uint8), (1080, 300), 90, 1, 8).astype(bool)
    image[rim] *= 0.35
    assert overlap(tmp_path, image.astype(np.uint8), BLOB) > 0.97


def test_a_deep_stain_does_not_hide_a_pale_one(tmp_path):
    image = draw(strength=1.6)
    right = np.zeros(SHAPE, bool)
    right[:, 520:] = True
    image[BLOB & right] = draw(strength=0.2)[BLOB & right]
    assert overlap(tmp_path, image, BLOB) > 0.93


def test_bare_glass_has_no_tissue_and_a_full_slide_no_glass(tmp_path):
    rng = np.random.default_rng(3)
    bare = (np.array(GLASS) + rng.normal(0, 2, (*SHAPE, 3))).clip(0, 255).astype(np.uint8)
    assert find_tissue(slides.open_slide(save(tmp_path / "bare.svs", bare))).mask.mean() < 1e-3
    full = tissue(rng, SHAPE, strength=0.6)
    assert find_tissue(slides.open_slide(save(tmp_path / "full.svs", full))).mask.mean() > 0.99


def test_stain_vectors_have_their_published_hues():
    """Worked by hand from the optical densities: c_x = D_red / D - 1, c_y = (D_green - D_blue) / (sqrt(3) D)."""
    for density, hue, chroma in (
        # D = 1.64 / 3 = 0.5467: c = (0.1890, 0.4330); D = 1.17 / 3 = 0.39: c = (-0.8205, 1.3027).
        ((0.65, 0.70, 0.29), 66.4, 0.472),
        ((0.07, 0.99, 0.11), 122.2, 1.540),
        ((0.27, 0.57, 0.78), 204.2, 0.548),
    ):
        # Half of the published unit, so that rounding to grey levels matters little.
        pixels = np.round(255 * 10 ** (-0.5 * np.array([[density]]))).astype(np.uint8)
        found = colour.measure(pixels)
        assert found.hue[0, 0] == pytest.approx(hue, abs=1.5)
        assert found.chroma[0, 0] == pytest.approx(chroma, abs=0.03)
        assert found.density[0, 0] == pytest.approx(0.5 * np.mean(density), abs=0.01)


@pytest.mark.parametrize(
    "pixels",
    [(195, 130, 167), (110, 70, 140), (80, 60, 130), (230, 150, 160), (200, 80, 100), (180, 195, 215), (120, 80, 50)],
    ids=["eosin", "nucleus", "crowded nuclei", "salmon", "blood", "mucin", "diaminobenzidine"],
)
def test_colours_of_tissue_are_stain_and_no_ink(pixels):
    found = colour.measure(np.full((8, 8, 3), pixels, np.uint8))
    assert colour.find_stained(found, HE).all() and not colour.find_ink(found, HE).any()


@pytest.mark.parametrize("pixels", [*INKS.values(), (100, 180, 160), (110, 160, 210), (25, 90, 75)])
def test_colours_of_pens_are_ink(pixels):
    assert colour.find_ink(colour.measure(np.full((8, 8, 3), pixels, np.uint8)), HE).all()


def test_faint_ink_counts_where_it_touches_dense_ink():
    image = np.full((9, 20, 3), 250, np.uint8)
    image[:, 2:4], image[:, 4:7], image[:, 12:15] = INKS["blue"], (190, 200, 228), (190, 200, 228)
    columns = colour.find_ink(colour.measure(image), HE).any(axis=0)
    assert np.flatnonzero(columns).tolist() == [2, 3, 4, 5, 6]


OTHERS = {
    "dab": ("dab", (DAB, HAEMATOXYLIN)),
    "dab in nuclei": ("dab", (HAEMATOXYLIN / 2, DAB)),
    "trichrome": ("other", (METHYL_BLUE, PONCEAU_FUCHSIN)),
    "alcian blue": ("other", (ALCIAN_BLUE, HAEMATOXYLIN)),
    "silver": ("other", (SILVER, SILVER)),
}


@pytest.mark.parametrize("strength", [0.7, 1.0, 1.4])
@pytest.mark.parametrize("name", OTHERS)
def test_other_stains(tmp_path, name, strength):
    stain, dyes = OTHERS[name]
    assert overlap(tmp_path, draw(strength=strength, dyes=dyes), BLOB, stain) > 0.95


@pytest.mark.parametrize("name", ["trichrome", "alcian blue", "silver"])
def test_tissue_of_an_ink_s_colours_is_lost_unless_its_stain_is_named(tmp_path, name):
    assert overlap(tmp_path, draw(dyes=OTHERS[name][1]), BLOB) < 0.5


def test_brown_is_neither_red_ink_nor_too_yellow_for_tissue():
    """Dense diaminobenzidine, of hue 216.6 (worked by hand), and reddish brown of the hue and chroma of red ink."""
    brown = np.round(243 * 10 ** -np.array([[(0.20, 0.50, 0.95), (0.06, 0.75, 0.85)]])).astype(np.uint8)
    measured = colour.measure(np.repeat(brown, 8, axis=0), (243.0, 243.0, 243.0))
    assert measured.hue[0] == pytest.approx([216.6, 186.7], abs=1.5)
    assert colour.find_ink(measured, HE).all()
    dab = colour.STAINS["dab"]
    assert colour.find_stained(measured, dab).all() and not colour.find_ink(measured, dab).any()


@pytest.mark.parametrize("ink", ["blue", "green", "black"])
def test_pens_beside_brown_tissue(tmp_path, ink):
    image = draw(dyes=OTHERS["dab"][1])
    cv2.line(image, (930, 60), (1130, 840), INKS[ink], 36)
    assert overlap(tmp_path, image, BLOB, "dab") > 0.95


def test_what_has_no_texture_is_no_tissue_of_any_stain(tmp_path):
    """A black border, a shadow and a stroke of even ink, beside silver."""
    image = draw(dyes=OTHERS["silver"][1])
    image[:70], image[840:] = (6, 6, 6), (150, 150, 150)
    image[:, 1100:1160] = INKS["green"]
    assert overlap(tmp_path, image, BLOB, "other") > 0.95
