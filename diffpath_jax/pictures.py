"""Grids of images and PNG files."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from diffpath_jax.files import replace_file


def tile(images: UInt8[np.ndarray, "n h w 3"], *, columns: int, gap: int = 2) -> UInt8[np.ndarray, "height width 3"]:
    """Images in rows of ``columns``, white between them."""
    count, height, width, _ = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for index, image in enumerate(images):
        top = gap + index // columns * (height + gap)
        left = gap + index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def encode_png(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """PNG bytes of an RGB image."""
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def write_png(path: Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write an RGB image."""
    with replace_file(path) as temporary:
        temporary.write_bytes(encode_png(image))
