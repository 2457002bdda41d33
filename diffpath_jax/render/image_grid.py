"""Grids of images, and PNG files of them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from diffpath_jax.data.image_files import encode_png
from diffpath_jax.data.records import PatchRecord
from diffpath_jax.io.files import replace_file

# Height of a line of text, and the least side of an image on a contact sheet.
TEXT_PX, SEEN_PX = 16, 64


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


def first_of_each_class(records: Iterable[PatchRecord], num_classes: int, count: int) -> list[list[np.ndarray]]:
    """The first ``count`` images of each class."""
    rows: list[list[np.ndarray]] = [[] for _ in range(num_classes)]
    for record in records:
        if len(rows[record.label]) < count:
            rows[record.label].append(record.image)
    return rows


def sheet(
    rows: Mapping[str, UInt8[np.ndarray, "n h w 3"]], headings: Sequence[str]
) -> UInt8[np.ndarray, "height width 3"]:
    """A contact sheet: a row of images for each name, with the names on the left and headings above.

    Args:
        rows: as many images of one size for each name.
        headings: evenly spread over the images.
    """
    strips = {name: tile(_enlarged(images), columns=len(images)) for name, images in rows.items()}
    height, width, _ = next(iter(strips.values())).shape
    margin = TEXT_PX * (2 + max(len(name) for name in rows)) // 2
    page = np.full((2 * TEXT_PX + height * len(rows), margin + width, 3), 255, np.uint8)
    for number, heading in enumerate(headings):
        _write(page, heading, left=margin + number * width // len(headings) + 2, bottom=TEXT_PX + TEXT_PX // 2)
    for number, (name, strip) in enumerate(strips.items()):
        top = 2 * TEXT_PX + number * height
        page[top : top + height, margin:] = strip
        _write(page, name, left=TEXT_PX // 2, bottom=top + (height + TEXT_PX // 2) // 2)
    return page


def _enlarged(images: UInt8[np.ndarray, "n h w 3"]) -> UInt8[np.ndarray, "n height width 3"]:
    """Small images by a whole number, so that they can be seen."""
    factor = max(1, SEEN_PX // images.shape[1])
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def _write(page: UInt8[np.ndarray, "h w 3"], text: str, *, left: int, bottom: int) -> None:
    """Print text in black; its letters are about half as wide as ``TEXT_PX``."""
    cv2.putText(page, text, (left, bottom), cv2.FONT_HERSHEY_SIMPLEX, TEXT_PX / 32, (0, 0, 0), 1, cv2.LINE_AA)


def write_png(path: Path, image: UInt8[np.ndarray, "h w 3"], about: Mapping[str, str] | None = None) -> None:
    """Write an RGB image; ``about`` as in :func:`diffpath_jax.data.image_files.encode_png`."""
    with replace_file(path) as temporary:
        temporary.write_bytes(encode_png(image, about))
