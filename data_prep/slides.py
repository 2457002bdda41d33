"""Whole-slide images: open one, know its um/px and where that came from, read fields of view at a true scale.

Positions are level-0 pixels from the slide's top-left corner, as in OpenSlide. Label and macro images are
never opened.
"""

import csv
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import openslide
from jaxtyping import UInt8

from data_prep.scales import PLAUSIBLE_MPP, Scale, find_scale
from diffpath_jax.errors import DiffpathError

# A strip is read in pieces of this many pixels at most, so that memory stays flat with slide width.
MAX_STRIP_PX = 16_384
# A whole level is read in squares of at most this many pixels a side, for the same reason.
MAX_SQUARE_PX = 4_096


@dataclass(frozen=True)
class Slide:
    """An open slide.

    Attributes:
        path: its file.
        handle: OpenSlide's handle (open it per process, after forking).
        size: (width, height) in level-0 pixels.
        scale: um/px of level 0.
    """

    path: Path
    handle: openslide.OpenSlide
    size: tuple[int, int]
    scale: Scale


@dataclass(frozen=True)
class Box:
    """A rectangle in level-0 pixels: left, top, width, height (not necessarily whole numbers)."""

    x: float
    y: float
    width: float
    height: float


def open_slide(path: Path, *, scale_table: dict[str, float] | None = None) -> Slide:
    """Open a slide and establish its um/px: from ``scale_table`` if it names the slide, else from the file.

    Raises:
        DiffpathError: missing or unreadable file, or no plausible um/px.
    """
    if not path.is_file():
        raise DiffpathError("slide", where=path, why="no such file", fix="check the path given to --slides")
    try:
        handle = openslide.OpenSlide(path)
    except (openslide.OpenSlideError, OSError) as error:
        raise DiffpathError(
            "slide",
            where=path,
            why=f"OpenSlide cannot read it ({error})",
            fix="copy it again, or leave it out",
        ) from error
    table = scale_table or {}
    scale = find_scale(path, handle.properties, table.get(path.name, table.get(path.stem)))
    return Slide(path, handle, handle.dimensions, scale)


def bounds_offset(slide: Slide) -> tuple[float, float]:
    """Level-0 position of the top-left corner that viewers such as QuPath show: (0, 0) unless the slide states bounds.

    Scanners of MRXS and SCN files state where on the glass there are pixels; OpenSlide counts from the glass's corner.
    """
    names = (openslide.PROPERTY_NAME_BOUNDS_X, openslide.PROPERTY_NAME_BOUNDS_Y)
    x, y = (float(slide.handle.properties.get(name, 0)) for name in names)
    return x, y


def read_scale_table(path: Path) -> dict[str, float]:
    """Read a CSV with the columns ``slide`` and ``mpp`` (um per level-0 pixel).

    Raises:
        DiffpathError: no such file, wrong columns, or a value that is not a plausible um/px.
    """
    table = read_table(path, columns=("slide", "mpp"))
    low, high = PLAUSIBLE_MPP
    for slide, text in table.items():
        try:
            valid = low <= float(text) <= high
        except ValueError:
            valid = False
        if not valid:
            raise DiffpathError(
                "um/px",
                where=path,
                why=f"{text!r} for {slide} is not a number from {low} to {high}",
                fix="write um per level-0 pixel, e.g. 0.2525",
            )
    return {slide: float(text) for slide, text in table.items()}


def read_table(path: Path, *, columns: tuple[str, str]) -> dict[str, str]:
    """Read two columns of a CSV as a mapping from the first to the second.

    Raises:
        DiffpathError: no such file, a column is missing, or a key has two different values.
    """
    fix = f"give a UTF-8 CSV whose first line names the columns {','.join(columns)}"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DiffpathError("table", where=path, why=f"cannot be read ({error})", fix=fix) from error
    table: dict[str, str] = {}
    for row in rows:
        key, value = row.get(columns[0]), row.get(columns[1])
        if not key or not value:
            raise DiffpathError("table", where=path, why=f"a row lacks {' or '.join(columns)}", fix=fix)
        if table.setdefault(key.strip(), value.strip()) != value.strip():
            raise DiffpathError("table", where=path, why=f"{key} stands twice with other values", fix=fix)
    return table


def read_thumbnail(slide: Slide, *, max_px: int) -> UInt8[np.ndarray, "h w 3"]:
    """The whole slide, area-averaged to at most ``max_px`` pixels a side, on white where it has no pixels."""
    shrink = max(1.0, max(slide.size) / max_px)
    level = slide.handle.get_best_level_for_downsample(shrink)
    size = (max(1, round(slide.size[0] / shrink)), max(1, round(slide.size[1] / shrink)))
    if max(slide.handle.level_dimensions[level]) <= MAX_SQUARE_PX:
        image = _read_level(slide, (0, 0), level, slide.handle.level_dimensions[level])
    else:
        image = _read_reduced(slide, level, int(shrink / slide.handle.level_downsamples[level]))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _read_reduced(slide: Slide, level: int, factor: int) -> UInt8[np.ndarray, "h w 3"]:
    """A level that is too large to read at once, each ``factor`` x ``factor`` pixels averaged to one."""
    width, height = slide.handle.level_dimensions[level]
    downsample = slide.handle.level_downsamples[level]
    picture = np.empty((-(-height // factor), -(-width // factor), 3), np.uint8)
    side = MAX_SQUARE_PX // factor * factor
    for top, left in itertools.product(range(0, height, side), range(0, width, side)):
        size = (min(side, width - left), min(side, height - top))
        square = _read_level(slide, (round(left * downsample), round(top * downsample)), level, size)
        reduced = cv2.resize(square, (-(-size[0] // factor), -(-size[1] // factor)), interpolation=cv2.INTER_AREA)
        y, x = top // factor, left // factor
        picture[y : y + reduced.shape[0], x : x + reduced.shape[1]] = reduced
    return picture


def read_fields(slide: Slide, boxes: Sequence[Box], *, patch_px: int) -> Iterator[UInt8[np.ndarray, "px px 3"]]:
    """Read equally sized fields of view as ``patch_px`` images, in the order given.

    Neighbours with the same top edge are read as one strip, so that a tile of the file is decoded once. The level
    is the smallest that still holds at least ``patch_px`` pixels across a field: reading never enlarges what a
    larger level could give, and area averaging does the rest without aliasing.
    """
    start = 0
    while start < len(boxes):
        level = _level_for(slide, boxes[start], patch_px)
        downsample = slide.handle.level_downsamples[level]
        stop = start + 1
        while (
            stop < len(boxes)
            and boxes[stop].y == boxes[start].y
            and boxes[stop].x >= boxes[stop - 1].x
            and (boxes[stop].x + boxes[stop].width - boxes[start].x) / downsample <= MAX_STRIP_PX
        ):
            stop += 1
        yield from _read_strip(slide, boxes[start:stop], level, patch_px)
        start = stop


def _level_for(slide: Slide, box: Box, patch_px: int) -> int:
    shrink = min(box.width, box.height) / patch_px
    return slide.handle.get_best_level_for_downsample(max(1.0, shrink))


def _read_strip(
    slide: Slide, boxes: Sequence[Box], level: int, patch_px: int
) -> Iterator[UInt8[np.ndarray, "px px 3"]]:
    downsample = slide.handle.level_downsamples[level]
    left, top = math.floor(boxes[0].x), math.floor(boxes[0].y)
    right = math.ceil(boxes[-1].x + boxes[-1].width)
    bottom = math.ceil(boxes[0].y + boxes[0].height)
    size = (math.ceil((right - left) / downsample), math.ceil((bottom - top) / downsample))
    strip = _read_level(slide, (left, top), level, size)
    for box in boxes:
        x0, y0 = round((box.x - left) / downsample), round((box.y - top) / downsample)
        x1 = x0 + max(1, round(box.width / downsample))
        y1 = y0 + max(1, round(box.height / downsample))
        yield cv2.resize(strip[y0:y1, x0:x1], (patch_px, patch_px), interpolation=cv2.INTER_AREA)


def _read_level(
    slide: Slide, location: tuple[int, int], level: int, size: tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    try:
        rgba = np.asarray(slide.handle.read_region(location, level, size), np.uint8)
    except (openslide.OpenSlideError, OSError) as error:
        raise DiffpathError(
            "slide", where=slide.path, why=f"reading failed ({error})", fix="copy it again, or leave it out"
        ) from error
    # Where a slide has no pixels OpenSlide gives alpha 0: show glass, which is white.
    return np.where(rgba[..., 3:] == 0, np.uint8(255), rgba[..., :3])
