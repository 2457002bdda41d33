"""Whole-slide images: open one, know its um/px and where that came from, read fields of view at a true scale.

Positions are level-0 pixels from the slide's top-left corner, as in OpenSlide. What opens a file is in
:mod:`data_prep.slide.readers`.
"""

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from data_prep.slide.readers import registry
from data_prep.slide.readers.registry import Reader, ReaderKind
from data_prep.slide.scales import PLAUSIBLE_MPP, Scale, find_scale
from data_prep.tables import lookup, names_of, read_table
from diffpath_jax.io.errors import DiffpathError

# A strip is read in pieces of this many pixels at most, so that memory stays flat with slide width.
MAX_STRIP_PIXELS = 2**23
# Between two fields further apart than this, in pixels of the level, nothing is read.
MAX_GAP_PX = 256
# A whole level is read in squares of at most this many pixels a side, for the same reason.
MAX_SQUARE_PX = 4_096


@dataclass(frozen=True)
class Slide:
    """An open slide; as a context manager it is closed at the end.

    Attributes:
        path: its file.
        reader: reads its pixels (open it per process, after forking).
        scale: um/px of level 0.
    """

    path: Path
    reader: Reader
    scale: Scale

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in level-0 pixels."""
        return self.reader.dimensions[0]

    def __enter__(self) -> "Slide":
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.reader.close()


@dataclass(frozen=True)
class Box:
    """A rectangle in level-0 pixels: left, top, width, height (not necessarily whole numbers)."""

    x: float
    y: float
    width: float
    height: float


def open_slide(path: Path, *, kind: ReaderKind | None = None, scale_table: dict[str, float] | None = None) -> Slide:
    """Open a slide and establish its um/px: from ``scale_table`` if it names the slide, else from the file.

    Args:
        path: the slide.
        kind: what reads it; without it, what its name says.
        scale_table: um per level-0 pixel by name of the slide.

    Raises:
        DiffpathError: missing or unreadable file, one that no reader reads, or no plausible um/px.
    """
    if not path.is_file():
        raise DiffpathError("slide", where=path, why="no such file", fix="check the path given to --slides")
    kind = kind or registry.kind_of(path)
    if kind is None:
        why = f"only files with {' '.join(registry.suffixes())} are read"
        raise DiffpathError("slide", where=path, why=why, fix="convert it to one of them, or leave it out")
    try:
        reader = kind.open(path)
    except OSError as error:
        why = f"{kind.name} cannot read it ({error})"
        raise DiffpathError("slide", where=path, why=why, fix="copy it again, or leave it out") from error
    table = scale_table or {}
    stated = lookup(table, names_of(path), what="um/px", where="--mpp_csv")
    scale = find_scale(path, reader.mpp, reader.objective, stated)
    return Slide(path, reader, scale)


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


def read_thumbnail(slide: Slide, *, max_px: int) -> UInt8[np.ndarray, "h w 3"]:
    """The whole slide, area-averaged to at most ``max_px`` pixels a side, on white where it has no pixels."""
    shrink = max(1.0, max(slide.size) / max_px)
    level = bisect.bisect_right(slide.reader.downsamples, shrink) - 1
    size = (max(1, round(slide.size[0] / shrink)), max(1, round(slide.size[1] / shrink)))
    if max(slide.reader.dimensions[level]) <= MAX_SQUARE_PX:
        image = _read_level(slide, level, (0, 0), slide.reader.dimensions[level])
    else:
        image = _read_reduced(slide, level, int(shrink / slide.reader.downsamples[level]))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _read_reduced(slide: Slide, level: int, factor: int) -> UInt8[np.ndarray, "h w 3"]:
    """A level that is too large to read at once, each ``factor`` x ``factor`` pixels averaged to one."""
    width, height = slide.reader.dimensions[level]
    picture = np.empty((-(-height // factor), -(-width // factor), 3), np.uint8)
    side = MAX_SQUARE_PX // factor * factor
    for top, left in itertools.product(range(0, height, side), range(0, width, side)):
        size = (min(side, width - left), min(side, height - top))
        square = _read_level(slide, level, (left, top), size)
        reduced = cv2.resize(square, (-(-size[0] // factor), -(-size[1] // factor)), interpolation=cv2.INTER_AREA)
        y, x = top // factor, left // factor
        picture[y : y + reduced.shape[0], x : x + reduced.shape[1]] = reduced
    return picture


@dataclass(frozen=True)
class Reading:
    """The reading of fields of one size: the level, and how many of its pixels stand for a field.

    Attributes:
        level: the lowest resolution that still holds ``patch_px`` pixels across a field.
        steps: level-0 pixels to a pixel of the level, along x and y.
        size: (width, height) of a field in whole pixels of the level.
        room: the last place of a field within the level, along x and y.
    """

    level: int
    steps: tuple[float, float]
    size: tuple[int, int]
    room: tuple[int, int]

    def corner(self, box: Box) -> tuple[int, int]:
        """The level's pixel at the top-left corner of a field within the slide: whole pixels around its centre."""
        places = ((box.x, box.width), (box.y, box.height))
        x, y = (
            max(0, min(last, round((start + side / 2) / step - pixels / 2)))
            for (start, side), step, pixels, last in zip(places, self.steps, self.size, self.room, strict=True)
        )
        return x, y


def choose_reading(slide: Slide, width: float, height: float, *, patch_px: int) -> Reading:
    """Returns the reading of fields of ``width`` x ``height`` level-0 px for an image of ``patch_px`` pixels a side.

    What is read is never enlarged, unless level 0 itself holds too little.
    """
    readings = []
    for level, level_size in enumerate(slide.reader.dimensions):
        steps = level_steps(slide, level)
        size = max(1, round(width / steps[0])), max(1, round(height / steps[1]))
        readings.append(Reading(level, steps, size, (level_size[0] - size[0], level_size[1] - size[1])))
    return next((reading for reading in reversed(readings) if min(reading.size) >= patch_px), readings[0])


def level_steps(slide: Slide, level: int) -> tuple[float, float]:
    """Returns level-0 pixels to a pixel of a level, along x and y."""
    width, height = slide.reader.dimensions[level]
    return _step(slide.size[0], width), _step(slide.size[1], height)


def _step(level0_px: int, level_px: int) -> float:
    """Level-0 pixels to a pixel of a level, along one side.

    Scanners average blocks of whole numbers of pixels and leave out, or fill up, the last one. The ratio of the sides
    is then not what a pixel is; it would lead astray by up to a pixel of the level.
    """
    step = round(level0_px / level_px)
    return float(step) if level_px in (level0_px // step, -(-level0_px // step)) else level0_px / level_px


def read_fields(slide: Slide, boxes: Sequence[Box], *, patch_px: int) -> Iterator[UInt8[np.ndarray, "px px 3"]]:
    """Read equally sized fields of view, all within the slide, as ``patch_px`` images, in the order given.

    A field is cut to whole pixels of the level that :func:`choose_reading` names: its centre and its size are within
    half a pixel of what its box says. Area averaging does the rest without aliasing. Neighbours with the same top edge
    are read as one strip.
    """
    if not boxes:
        return
    reading = choose_reading(slide, boxes[0].width, boxes[0].height, patch_px=patch_px)
    corners = [reading.corner(box) for box in boxes]
    start = 0
    while start < len(corners):
        stop = start + 1
        while stop < len(corners) and _same_strip(corners[start], corners[stop - 1], corners[stop], reading):
            stop += 1
        yield from _read_strip(slide, corners[start:stop], reading, patch_px)
        start = stop


def _same_strip(first: tuple[int, int], last: tuple[int, int], new: tuple[int, int], reading: Reading) -> bool:
    """Returns whether a field is read together with those from the first to the last before it."""
    width, height = reading.size
    return (
        new[1] == first[1]
        and 0 <= new[0] - last[0] <= width + MAX_GAP_PX
        and (new[0] + width - first[0]) * height <= MAX_STRIP_PIXELS
    )


def _read_strip(
    slide: Slide, corners: Sequence[tuple[int, int]], reading: Reading, patch_px: int
) -> Iterator[UInt8[np.ndarray, "px px 3"]]:
    width, height = reading.size
    left, top = corners[0]
    strip = _read_level(slide, reading.level, (left, top), (corners[-1][0] + width - left, height))
    for x, _ in corners:
        field = strip[:, x - left : x - left + width]
        yield cv2.resize(field, (patch_px, patch_px), interpolation=cv2.INTER_AREA)


def _read_level(slide: Slide, level: int, corner: tuple[int, int], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """A rectangle of a level, its corner and size in pixels of the level, white where the slide has no pixels."""
    try:
        return slide.reader.read_region(level, corner, size)
    except OSError as error:
        raise DiffpathError(
            "slide", where=slide.path, why=f"reading failed ({error})", fix="copy it again, or leave it out"
        ) from error
