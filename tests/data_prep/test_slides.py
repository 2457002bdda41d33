"""Reading at a true scale, and refusing to guess one."""

import numpy as np
import pytest
from conftest import MPP, write_slide

from data_prep import slides, tissue
from diffpath_jax.errors import DiffpathError


def test_um_per_px_and_its_source(slide):
    opened = slides.open_slide(slide)
    assert opened.scale == slides.Scale(MPP, MPP, "slide")
    assert opened.size == (1024, 1024)


@pytest.mark.parametrize("mpp", [None, "0", "-0.5", "nan", "500", "many"])
def test_no_plausible_um_per_px_is_an_error_with_the_fix(tmp_path, mpp):
    path = write_slide(tmp_path / "bad.svs", mpp=mpp)
    with pytest.raises(DiffpathError, match=r"um/px in .*bad\.svs.*fix: .*--mpp_csv"):
        slides.open_slide(path)
    assert slides.open_slide(path, scale_table={"bad": 0.25}).scale == slides.Scale(0.25, 0.25, "table")


def test_fields_are_area_averages_of_the_right_place(slide):
    opened = slides.open_slide(slide)
    whole = np.asarray(opened.handle.read_region((0, 0), 0, opened.size))[..., :3].astype(float)
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
        # A strip starts at the first box, so rounding to its pixel grid may differ by one pixel.
        assert np.abs(alone.astype(float) - image).mean() < 12


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
    if text:
        with pytest.raises(DiffpathError, match=r"mpp\.csv"):
            slides.read_scale_table(path)
    else:
        assert slides.read_scale_table(path) == {}
