"""Tiles decoded straight from the file are what OpenSlide shows, and whatever is not plain is left to OpenSlide."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import jpeg_slide
from data_prep.slide import slides
from data_prep.slide.readers import jpeg_tiles, openslide_reader
from data_prep.slide.slides import Box
from diffpath_jax.io.errors import DiffpathError

SIDE = 64
DESCRIPTION = jpeg_slide.aperio(0.5, 20)


def grainy(width, height, seed=0):
    noise = np.random.default_rng(seed).normal(160, 60, (height, width, 3))
    return cv2.GaussianBlur(noise, (0, 0), 1.5).clip(0, 255).astype(np.uint8)


def level(image, *, rgb=False, shared_tables=False, subsampling="4:2:2"):
    files = [jpeg_slide.encode(tile, subsampling=subsampling, keep_rgb=rgb) for tile in jpeg_slide.cut(image, SIDE)]
    tables = b""
    if shared_tables:
        parts = [jpeg_slide.split_tables(file) for file in files]
        files, tables = [rest for rest, _ in parts], parts[0][1]
    size = (image.shape[1], image.shape[0])
    chroma = {"4:4:4": (1, 1), "4:2:2": (2, 1), "4:2:0": (2, 2)}[subsampling]
    return jpeg_slide.Level(size, files, rgb=rgb, tables=tables, chroma=chroma)


def write(folder, *levels, description=DESCRIPTION) -> Path:
    return jpeg_slide.write(folder / "s.svs", levels, side=SIDE, description=description)


def through_openslide(slide, number, corner, size):
    """On white, as OpenSlide composes it."""
    downsample = slide.reader.handle.level_downsamples[number]
    rgba = np.asarray(slide.reader.handle.read_region(tuple(round(x * downsample) for x in corner), number, size))
    return np.where(rgba[..., 3:] == 0, 255, rgba[..., :3])


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"shared_tables": True},
        {"rgb": True, "subsampling": "4:4:4"},
        {"rgb": True, "subsampling": "4:4:4", "shared_tables": True},
        {"subsampling": "4:2:0"},
    ],
)
def test_every_rectangle_is_what_openslide_shows(tmp_path, how):
    slide = slides.open_slide(write(tmp_path, level(grainy(400, 200), **how), level(grainy(100, 50, seed=1), **how)))
    assert set(slide.reader.tiles) == {0, 1}
    rng = np.random.default_rng(0)
    for _ in range(30):
        number = int(rng.integers(2))
        corner = tuple(int(x) for x in rng.integers(-30, 110, 2))
        size = tuple(int(x) for x in rng.integers(1, 150, 2))
        np.testing.assert_array_equal(
            slide.reader.tiles[number].read(*corner, *size), through_openslide(slide, number, corner, size)
        )


def test_a_level_of_odd_size_is_known_by_its_first_tile(tmp_path):
    slide = slides.open_slide(write(tmp_path, level(grainy(403, 201)), level(grainy(100, 50, seed=1))))
    assert set(slide.reader.tiles) == {0, 1}


def test_what_openslide_shows_otherwise_is_left_to_it(tmp_path):
    image = grainy(200, 200)
    right = level(image)
    # The file calls them YCbCr and OpenSlide believes it; the tiles call themselves RGB, and decoders believe them.
    contradictory = jpeg_slide.Level((200, 200), level(image, rgb=True, subsampling="4:4:4").tiles, chroma=(1, 1))
    missing = jpeg_slide.Level((200, 200), [*list(right.tiles)[:-1], b""])
    alike = (level(image), level(image))
    for levels, trusted in (((right,), {0}), ((contradictory,), set()), ((missing,), set()), (alike, set())):
        assert set(slides.open_slide(write(tmp_path, *levels)).reader.tiles) == trusted


def test_pixels_that_differ_are_openslides(tmp_path, monkeypatch):
    path = write(tmp_path, level(grainy(200, 200)))
    decode = jpeg_tiles.decode
    monkeypatch.setattr(jpeg_tiles, "decode", lambda *arguments: decode(*arguments) ^ 1)
    assert slides.open_slide(path).reader.tiles == {}


def test_files_of_other_vendors_and_codecs(tmp_path, slide, monkeypatch):
    assert slides.open_slide(slide).reader.tiles == {}  # not JPEG
    path, table = write(tmp_path, level(grainy(200, 200)), description="of nobody"), {"s": 0.5}
    assert set(slides.open_slide(path, scale_table=table).reader.tiles) == {0}  # a plain TIFF
    monkeypatch.setattr(openslide_reader, "PLAIN_VENDORS", ("aperio",))
    assert slides.open_slide(path, scale_table=table).reader.tiles == {}


def test_neighbours_decode_each_tile_once(tmp_path, monkeypatch):
    slide = slides.open_slide(write(tmp_path, level(grainy(640, 640))))
    decoded = []
    decode = jpeg_tiles.decode
    monkeypatch.setattr(jpeg_tiles, "decode", lambda *a: decoded.append(a[2]) or decode(*a))
    boxes = [Box(float(x), float(y), 100.0, 100.0) for y in range(0, 541, 50) for x in range(0, 541, 50)]
    assert len(list(slides.read_fields(slide, boxes, patch_px=32))) == len(boxes)
    assert sorted(decoded) == list(range(100))


def test_the_tiles_kept_are_few(tmp_path, monkeypatch):
    monkeypatch.setattr(jpeg_tiles, "CACHE_BYTES", 5 * 3 * SIDE * SIDE)
    slide = slides.open_slide(write(tmp_path, level(grainy(640, 640))))
    slide.reader.tiles[0].read(0, 0, 640, 640)
    assert len(slide.reader.tiles[0]._kept) == 5


def test_a_tile_that_ends_too_early_fails_its_slide(tmp_path):
    whole = level(grainy(300, 100))
    files = list(whole.tiles)
    corrupted = jpeg_slide.Level(whole.size, [files[0][: len(files[0]) // 2], *files[1:]])
    slide = slides.open_slide(write(tmp_path, corrupted))
    assert set(slide.reader.tiles) == {0}
    with pytest.raises(DiffpathError, match=r"slide in .*s\.svs: reading failed \(tile 0 is damaged\); fix: "):
        list(slides.read_fields(slide, [Box(0.0, 0.0, 90.0, 90.0)], patch_px=16))
