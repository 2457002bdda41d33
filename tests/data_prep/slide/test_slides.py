"""Reading at a true scale, and refusing to guess one."""

from pathlib import Path
from unittest import mock

import numpy as np
import openslide
import pytest

from data_prep.slide import scales, slides, tissue
from data_prep.slide.readers import openslide_reader
from diffpath_jax.io.errors import DiffpathError
from tests.conftest import MPP, write_slide
from tests.data_prep import array_reader


def test_um_per_px_and_its_source(slide):
    opened = slides.open_slide(slide)
    assert opened.scale == slides.Scale(MPP, MPP, "slide")
    assert opened.size == (1024, 1024)


@pytest.mark.parametrize("mpp", [None, "0", "-0.5", "nan", "500", "many"])
def test_no_plausible_um_per_px_is_an_error_with_the_fix(tmp_path, mpp):
    path = write_slide(tmp_path / "bad.svs", mpp=mpp)
    with pytest.raises(DiffpathError, match=r"um/px in .*bad\.svs.*fix: .*--mpp_csv"):
        slides.open_slide(path)
    assert slides.open_slide(path, scale_table={"bad": 0.5}).scale == slides.Scale(0.5, 0.5, "table")


def test_fields_are_area_averages_of_the_right_place(slide):
    opened = slides.open_slide(slide)
    whole = opened.reader.read_region(0, (0, 0), opened.size).astype(float)
    boxes = [slides.Box(*map(float, box)) for box in ((128, 160, 64, 64), (300, 160, 64, 64), (600, 400, 64, 64))]
    images = list(slides.read_fields(opened, boxes, patch_px=16))
    for box, image in zip(boxes, images, strict=True):
        x, y = int(box.x), int(box.y)
        expected = whole[y : y + 64, x : x + 64].reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
        assert np.abs(image - expected).max() <= 1


def test_a_strip_gives_the_same_as_single_reads(slide):
    opened = slides.open_slide(slide)
    boxes = [slides.Box(x, y, 50.5, 50.5) for y in (100.0, 200.25) for x in np.arange(100.0, 800.0, 33.3).tolist()]
    together = list(slides.read_fields(opened, boxes, patch_px=24))
    for box, image in zip(boxes, together, strict=True):
        (alone,) = slides.read_fields(opened, [box], patch_px=24)
        np.testing.assert_array_equal(alone, image)


def layout(*sizes):
    """What choosing a level needs of a slide; no file behind it."""
    return slides.Slide(Path("flat.npy"), array_reader.blank(*sizes), scales.Scale(0.5, 0.5, "slide"))


@pytest.mark.parametrize(
    ("side", "level", "steps", "size"),
    [
        (448.0, 0, (1, 1), (448, 448)),  # 3.5 times smaller: level 1 holds 112 pixels only
        (511.0, 1, (4, 4), (128, 128)),  # 127.75 pixels, which are 128 whole ones
        (509.0, 0, (1, 1), (509, 509)),  # 127.25: 127 whole ones
        (2048.0, 2, (16, 16), (128, 128)),
        (9000.0, 2, (16, 16), (562, 562)),
        (100.0, 0, (1, 1), (100, 100)),
    ],
)
def test_the_level_read_is_the_smallest_that_need_not_be_enlarged(side, level, steps, size):
    # 40003 / 10000 is no whole number, but 4 with three pixels left out; 30001 / 1876 is 16, the last one filled up.
    slide = layout((40003, 30001), (10000, 7500), (2500, 1876))
    found = slides.choose_reading(slide, side, side, patch_px=128)
    assert (found.level, found.steps, found.size) == (level, steps, size)


def test_a_level_of_another_ratio_is_stretched_as_it_is():
    found = slides.choose_reading(layout((1000, 1000), (300, 400)), 800.0, 800.0, patch_px=128)
    assert found == slides.Reading(1, (1000 / 300, 2.5), (240, 320), (60, 80))


def test_a_field_is_whole_pixels_around_its_centre():
    reading = slides.Reading(1, (4.0, 4.0), (25, 25), (225, 225))
    # Centre at 452 / 4 = 113 pixels, 12.5 of the 25 to each side: 100.5, of which 100 is as near as 101.
    assert reading.corner(slides.Box(402.0, 202.4, 100.0, 100.0)) == (100, 51)
    for x in np.arange(0.0, 8.0, 0.3):
        left, _ = reading.corner(slides.Box(float(x), 0.0, 100.0, 100.0))
        assert abs((left + 12.5) * 4 - (x + 50)) <= 2
    # The last field of a slide of 1003 pixels, 250 on the level: 225.75, and no 26th column is there.
    assert reading.corner(slides.Box(903.0, 0.0, 100.0, 100.0)) == (225, 0)


def test_far_neighbours_are_not_read_with_what_lies_between(slide, monkeypatch):
    opened, read = slides.open_slide(slide), []
    whole = slides._read_level
    monkeypatch.setattr(slides, "_read_level", lambda *a: read.append(a[3]) or whole(*a))
    boxes = [slides.Box(float(x), 100.0, 64.0, 64.0) for x in (0, 64, 200, 900)]
    assert len(list(slides.read_fields(opened, boxes, patch_px=16))) == 4
    assert read == [(264, 64), (64, 64)]


def test_tissue_is_what_is_stained(slide):
    mask = tissue.find_tissue(slides.open_slide(slide))
    corners = np.array([10.0, 300.0, 600.0])
    shares = mask.share(corners, np.array([10.0, 300.0, 600.0]), 50.0, 50.0)
    np.testing.assert_allclose(shares, [0, 1, 1], atol=0.05)


@pytest.mark.parametrize("content", [b"", b"not a slide", b"II*\x00" + bytes(100)])
def test_what_is_no_slide(tmp_path, content):
    path = tmp_path / "broken.svs"
    path.write_bytes(content)
    with pytest.raises(DiffpathError, match=r"slide in .*broken\.svs"):
        slides.open_slide(path)


@pytest.mark.parametrize("text", ["", "slide,mpp\na,x\n", "slide,mpp\na,0\n", "a,b\n1,2\n", "slide,mpp\na,1\na,2\n"])
def test_bad_scale_tables(tmp_path, text):
    path = tmp_path / "mpp.csv"
    path.write_text(text)
    with pytest.raises(DiffpathError, match=r"mpp\.csv"):
        slides.read_scale_table(path)


def find_scale(x, y, power=None, from_table=None):
    """Returns the scale of a slide with these properties of OpenSlide."""
    stated = {"mpp-x": x, "mpp-y": y, **({"objective-power": power} if power is not None else {})}
    stated = {f"openslide.{name}": text for name, text in stated.items()}
    reader = openslide_reader.OpenSlideReader(mock.Mock(spec=openslide.OpenSlide, properties=stated), {})
    return scales.find_scale(Path("a.svs"), reader.mpp, reader.objective, from_table)


@pytest.mark.parametrize(
    ("x", "y", "power", "said"),
    [
        ("0.2525", "0.2525", "40", ()),
        ("0.499", "0.499", "20", ()),
        ("0.23", "0.23", "40", ()),  # Hamamatsu's 40X
        ("0.2527", "0.2525", "40", ()),
        ("0.5", "0.5", "none", ()),
        ("0.5", "0.5", "0", ()),
        ("0.25", "0.25", "20", ("0.25 um/px, but 20X gives about 0.5",)),
        ("0.5", "0.5", "40", ("0.5 um/px, but 40X gives about 0.25",)),
        ("0.5", "0.525", "20", ("0.5 um/px along x and 0.525 along y: fields are square in um, not in px",)),
    ],
)
def test_what_speaks_against_a_scale_is_told_and_changes_nothing(x, y, power, said):
    scale = find_scale(x, y, power)
    assert scale == scales.Scale(float(x), float(y), "slide", said)


def test_pixels_twice_as_wide_as_high_are_an_error_with_the_fix():
    with pytest.raises(DiffpathError, match=r"0\.25 x 0\.5.*unequal; fix: .*a\.svs,<um per px> as --mpp_csv"):
        find_scale("0.25", "0.5")
    assert find_scale("0.25", "0.5", None, 0.3) == scales.Scale(0.3, 0.3, "table")


def test_a_table_wins_over_the_slide_and_the_difference_is_told():
    found = find_scale("0.5", "0.5", "20", 0.25)
    assert (found.x, found.y, found.source) == (0.25, 0.25, "table")
    assert found.doubts == (
        "0.25 um/px, but 20X gives about 0.5",
        "0.25 um/px from the table, but the slide states 0.5 x 0.5",
    )
    assert find_scale("0.5", "0.5", "20", 0.501).doubts == ()
