"""Image files of microscopes and editors: no bit, page or transparent pixel is lost without a word."""

import io

import cv2
import numpy as np
import PIL.Image
import pytest
import tifffile

from diffpath_jax.data.image_files import decode_image, has_transparency
from diffpath_jax.io.errors import DiffpathError

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
# As a camera of 12 bits stores them, in 16.
DEEP = PIXELS.astype(np.uint16) << 4


def png(image):
    return cv2.imencode(".png", image)[1].tobytes()


def tiff(image, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, **options)
    return buffer.getvalue()


def saved(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        png(DEEP),
        png(DEEP[..., 0]),
        png(np.dstack([DEEP, DEEP[..., :1]])),
        tiff(DEEP, photometric="rgb"),
        tiff(DEEP, photometric="rgb", compression="zlib"),
        tiff(DEEP[..., 0]),
    ],
    ids=["png", "grey png", "png with alpha", "tiff", "zip tiff", "grey tiff"],
)
def test_more_than_8_bits_are_refused_with_the_fix(data):
    with pytest.raises(DiffpathError, match="16 bits a channel; save it with 8 bits"):
        decode_image(data, where="x")


def test_8_bits_stay_as_they_are():
    for data in (png(PIXELS[..., ::-1]), tiff(PIXELS, photometric="rgb")):
        np.testing.assert_array_equal(decode_image(data, where="x"), PIXELS)
    black = PIL.Image.new("1", (8, 8))
    assert not decode_image(saved(black, "PNG"), where="x").any()
    assert not decode_image(saved(black, "TIFF"), where="x").any()


def test_several_pages_are_refused():
    frames = [PIL.Image.fromarray(PIXELS), PIL.Image.fromarray(PIXELS[::-1])]
    for form in ("TIFF", "WEBP", "PNG"):
        data = saved(frames[0], form, save_all=True, append_images=frames[1:])
        with pytest.raises(DiffpathError, match="2 pages; save the one that is meant"):
            decode_image(data, where="x")


def test_transparent_pixels_show_white():
    """By the definition of opacity a: a x + (1 - a) 255."""
    opacity = np.full((8, 8), 255, np.uint8)
    opacity[:4], opacity[4] = 0, 51
    data = saved(PIL.Image.fromarray(np.dstack([PIXELS, opacity])), "PNG")
    assert has_transparency(data)
    expected = 255 + (PIXELS.astype(float) - 255) * (opacity / 255)[..., None]
    np.testing.assert_allclose(decode_image(data, where="x"), expected, atol=1)
    opaque = saved(PIL.Image.fromarray(PIXELS).convert("RGBA"), "PNG")
    assert not has_transparency(opaque) and not has_transparency(png(PIXELS))
    np.testing.assert_array_equal(decode_image(opaque, where="x"), PIXELS)


def test_a_transparent_colour_of_a_palette_shows_white():
    image = PIL.Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).convert("P")
    decoded = decode_image(saved(image, "PNG", transparency=0), where="x")
    assert (decoded[0, 0] == 255).all() and (decoded[0, 1] != 255).all()
