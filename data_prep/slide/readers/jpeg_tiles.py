"""Tiles of a level decoded straight from the file, where that is a TIFF of JPEG tiles, as of Aperio.

OpenSlide composes what it reads from tiles in floating point, which takes several times as long as to decode them.
What is read here is the same to the last bit: a level is read this way only if its middle tile says so.
"""

import functools
import itertools
import struct
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import TiffImagePlugin

Pixels = UInt8[np.ndarray, "h w 3"]
# What OpenSlide shows of a level at a place of level 0, in a size of the level; None if it cannot read it.
Shown = Callable[[int, tuple[int, int], tuple[int, int]], Pixels | None]

# Holds the tiles that two rows of fields share, on slides of 100,000 pixels.
CACHE_BYTES = 96 * 2**20
# A chain of directories that is longer than this leads in circles.
_MAX_DIRECTORIES = 100
_BIG_TIFF = 43
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_TILE_WIDTH, _TILE_HEIGHT, _OFFSETS, _BYTE_COUNTS, _TABLES = 322, 323, 324, 325, 347
_STRIPS = 273
_JPEG, _RGB, _YCBCR = 7, 2, 6
_START, _TABLES_END = b"\xff\xd8", b"\xff\xd9"


@dataclass(frozen=True)
class Layout:
    """Layout of the JPEG tiles of a picture in a TIFF.

    Attributes:
        size: (width, height) of the picture.
        tile: (width, height) of a tile; those at the right and bottom edge reach beyond the picture.
        places: offset and length in the file of each tile, row by row.
        header: what comes before the data of each tile to make it a JPEG file.
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    places: tuple[tuple[int, int], ...]
    header: bytes

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return -(-self.size[0] // self.tile[0])


class JpegTiles:
    """The pixels of one level. Tiles read last are kept, so that neighbouring fields decode each of them once."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path, self.layout = path, layout
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._room = max(1, CACHE_BYTES // (3 * layout.tile[0] * layout.tile[1]))

    def read(self, left: int, top: int, width: int, height: int) -> Pixels:
        """A rectangle in pixels of the level, white where it reaches beyond.

        Raises:
            OSError: the file cannot be read, or a tile is damaged.
        """
        picture = np.full((height, width, 3), 255, np.uint8)
        (tile_width, tile_height), (level_width, level_height) = self.layout.tile, self.layout.size
        x0, y0 = max(0, left), max(0, top)
        x1, y1 = min(left + width, level_width), min(top + height, level_height)
        if x0 >= x1 or y0 >= y1:
            return picture
        rows, columns = (range(a // n, -(-b // n)) for a, b, n in ((y0, y1, tile_height), (x0, x1, tile_width)))
        with self.path.open("rb") as file:
            for row, column in itertools.product(rows, columns):
                tile = self._tile(file, row * self.layout.columns + column)
                y, x = row * tile_height, column * tile_width
                a, b, c, d = max(y0, y), min(y1, y + tile_height), max(x0, x), min(x1, x + tile_width)
                picture[a - top : b - top, c - left : d - left] = tile[a - y : b - y, c - x : d - x]
        return picture

    def _tile(self, file: BinaryIO, number: int) -> Pixels:
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        tile = self._kept[number] = decode(file, self.layout, number)
        if len(self._kept) > self._room:
            self._kept.popitem(last=False)
        return tile


def decode(file: BinaryIO, layout: Layout, number: int) -> Pixels:
    """One whole tile.

    Raises:
        OSError: it cannot be read, or it is damaged.
    """
    offset, length = layout.places[number]
    file.seek(offset)
    data = layout.header + file.read(length).removeprefix(_START)
    try:
        tile = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise OSError(f"tile {number} is damaged ({error})") from error
    # What ends too early gives nothing.
    if tile is None or tile.shape != (layout.tile[1], layout.tile[0], 3):
        raise OSError(f"tile {number} is damaged")
    return tile


def find_levels(
    path: Path, sizes: Sequence[tuple[int, int]], downsamples: Sequence[float], read_fn: Shown
) -> dict[int, JpegTiles]:
    """The levels of a slide that can be read this way; none if the file is not such a TIFF.

    Args:
        path: the slide.
        sizes: (width, height) of each level.
        downsamples: level-0 pixels to a pixel of each level, as OpenSlide takes them.
        read_fn: what OpenSlide shows.
    """
    try:
        layouts = list(_layouts(path))
    except (OSError, SyntaxError, TypeError, ValueError, struct.error):
        # OpenSlide makes more of odd files than Pillow does.
        return {}
    levels = {}
    for level, (size, downsample) in enumerate(zip(sizes, downsamples, strict=True)):
        of_size = [layout for layout in layouts if layout.size == size]
        if len(of_size) == 1 and _agrees(path, of_size[0], downsample, functools.partial(read_fn, level)):
            levels[level] = JpegTiles(path, of_size[0])
    return levels


def is_in_strips(path: Path) -> bool:
    """Returns whether a file is a TIFF whose first picture is cut into strips of whole rows."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            # Pillow warns of what it raises an error for, too.
            warnings.simplefilter("ignore")
            head = file.read(8)
            head += file.read(8) if _BIG_TIFF in head[2:4] else b""
            directory = TiffImagePlugin.ImageFileDirectory_v2(head)
            file.seek(directory.next)
            directory.load(file)
    except (OSError, SyntaxError, TypeError, ValueError, struct.error):
        return False
    return _STRIPS in directory and _OFFSETS not in directory


def _layouts(path: Path) -> Iterator[Layout]:
    """Pictures of JPEG tiles in a TIFF. Of the others, labels among them, only the sizes are looked at."""
    with path.open("rb") as file:
        head = file.read(8)
        head += file.read(8) if _BIG_TIFF in head[2:4] else b""
        following = TiffImagePlugin.ImageFileDirectory_v2(head).next
        for _ in range(_MAX_DIRECTORIES):
            if not following:
                return
            file.seek(following)
            directory = TiffImagePlugin.ImageFileDirectory_v2(head)
            directory.load(file)
            layout = _layout(directory)
            if layout is not None:
                yield layout
            following = directory.next


def _layout(directory: TiffImagePlugin.ImageFileDirectory_v2) -> Layout | None:
    """Returns the layout of a directory's picture, if it is one of colour JPEG tiles and none is missing."""
    needed = {_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT, _OFFSETS, _BYTE_COUNTS}
    colour = directory.get(_PHOTOMETRIC)
    if directory.get(_COMPRESSION) != _JPEG or colour not in (_RGB, _YCBCR) or directory.get(_BITS) != (8, 8, 8):
        return None
    if not needed <= set(directory):
        return None
    size, tile = (directory[_WIDTH], directory[_HEIGHT]), (directory[_TILE_WIDTH], directory[_TILE_HEIGHT])
    offsets, lengths = directory[_OFFSETS], directory[_BYTE_COUNTS]
    count = -(-size[0] // max(1, tile[0])) * -(-size[1] // max(1, tile[1]))
    # JPEG that is larger than its pixels is damaged; a length of 0 stands for a tile that OpenSlide makes up.
    if not len(offsets) == len(lengths) == count or not all(0 < n <= 6 * tile[0] * tile[1] + 2**16 for n in lengths):
        return None
    # Adobe's segment says whether the channels are RGB or YCbCr, which TIFF says elsewhere.
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([colour == _YCBCR])
    tables = directory.get(_TABLES, b"").removeprefix(_START).removesuffix(_TABLES_END)
    return Layout(size, tile, tuple(zip(offsets, lengths, strict=True)), _START + adobe + tables)


def _agrees(
    path: Path, layout: Layout, downsample: float, read_fn: Callable[[tuple[int, int], tuple[int, int]], Pixels | None]
) -> bool:
    """Returns whether the middle tile is what OpenSlide shows in its place."""
    (width, height), (tile_width, tile_height) = layout.size, layout.tile
    left, top = width // 2 // tile_width * tile_width, height // 2 // tile_height * tile_height
    if not ((left * downsample).is_integer() and (top * downsample).is_integer()):
        # OpenSlide can only be asked for whole pixels of level 0, and blends where they are none of this level.
        left = top = 0
    size = min(tile_width, width - left), min(tile_height, height - top)
    try:
        with path.open("rb") as file:
            own = decode(file, layout, top // tile_height * layout.columns + left // tile_width)
    except OSError:
        return False
    theirs = read_fn((round(left * downsample), round(top * downsample)), size)
    return theirs is not None and bool((own[: size[1], : size[0]] == theirs).all())
