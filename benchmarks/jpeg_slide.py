"""Slides as Aperio's scanners write them: a TIFF of JPEG tiles, one directory a level. For benchmarks and tests."""

import io
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

_SHORT, _LONG, _ASCII, _BYTES = 3, 4, 2, 7
_FORMATS = {_SHORT: "H", _LONG: "I"}
# Codes of JPEG segments: those that TIFF moves into a tag of their own, and the one after which the pixels begin.
_TABLES, _SCAN = (0xDB, 0xC4), 0xDA


@dataclass(frozen=True)
class Level:
    """One level: its (width, height), the JPEG files of its tiles row by row, and how they are encoded.

    Attributes:
        size: (width, height).
        tiles: row by row; those at the edges are whole.
        rgb: whether the channels are RGB, as Aperio's are, and not YCbCr.
        tables: quantisation and Huffman tables of all tiles, in front of which the tiles do not repeat them.
        chroma: pixels to a colour sample, along x and y.
    """

    size: tuple[int, int]
    tiles: Iterable[bytes]
    rgb: bool = False
    tables: bytes = b""
    chroma: tuple[int, int] = (2, 1)


def aperio(mpp: float, power: float) -> str:
    """The description by which a slide is known as Aperio's."""
    return f"Aperio Image Library v0\r\nJPEG/RGB Q=75|AppMag = {power:g}|MPP = {mpp:g}"


def encode(tile: np.ndarray, **options: object) -> bytes:
    """A tile as a JPEG file; ``options`` are Pillow's."""
    file = io.BytesIO()
    Image.fromarray(tile).save(file, "jpeg", **{"quality": 75, "subsampling": "4:2:2", **options})
    return file.getvalue()


def cut(image: np.ndarray, side: int) -> Iterator[np.ndarray]:
    """Tiles of an image, row by row; beyond its edges they repeat its last pixels."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % side), (0, -width % side), (0, 0)), mode="edge")
    for y in range(0, height, side):
        for x in range(0, width, side):
            yield padded[y : y + side, x : x + side]


def split_tables(data: bytes) -> tuple[bytes, bytes]:
    """A JPEG file without its tables, and a JPEG file of nothing but these."""
    position, tables, rest = 2, b"", b""
    while data[position + 1] != _SCAN:
        length = 2 + struct.unpack_from(">H", data, position + 2)[0]
        segment = data[position : position + length]
        tables, rest = (tables + segment, rest) if segment[1] in _TABLES else (tables, rest + segment)
        position += length
    return b"\xff\xd8" + rest + data[position:], b"\xff\xd8" + tables + b"\xff\xd9"


def write(path: Path, levels: Sequence[Level], *, side: int, description: str) -> Path:
    """Write a slide of at most 4 GiB, whose tiles have ``side`` pixels a side."""
    with path.open("wb") as file:
        file.write(b"II*\0" + bytes(4))
        link = 4
        for level in levels:
            places = [_put(file, tile) for tile in level.tiles]
            link = _directory(file, link, level, side, description, places)
    return path


def _put(file: BinaryIO, data: bytes) -> tuple[int, int]:
    place = file.tell(), len(data)
    file.write(data + bytes(len(data) % 2))
    return place


def _directory(
    file: BinaryIO, link: int, level: Level, side: int, description: str, places: Sequence[tuple[int, int]]
) -> int:
    """Write a directory, name its place at ``link``, and return where the next one is to be named."""
    values: dict[int, tuple[int, Sequence[int] | bytes]] = {
        256: (_LONG, [level.size[0]]),
        257: (_LONG, [level.size[1]]),
        258: (_SHORT, [8, 8, 8]),
        259: (_SHORT, [7]),
        262: (_SHORT, [2 if level.rgb else 6]),
        270: (_ASCII, description.encode() + b"\0"),
        277: (_SHORT, [3]),
        322: (_SHORT, [side]),
        323: (_SHORT, [side]),
        324: (_LONG, [offset for offset, _ in places]),
        325: (_LONG, [length for _, length in places]),
        **({347: (_BYTES, level.tables)} if level.tables else {}),
        530: (_SHORT, list(level.chroma)),
    }
    entries = b"".join(_entry(file, tag, *value) for tag, value in values.items())
    start = file.tell()
    file.write(struct.pack("<H", len(values)) + entries)
    following = file.tell()
    file.write(bytes(4))
    file.seek(link)
    file.write(struct.pack("<I", start))
    file.seek(0, io.SEEK_END)
    return following


def _entry(file: BinaryIO, tag: int, kind: int, values: Sequence[int] | bytes) -> bytes:
    """A line of a directory; what does not fit into it is written before it."""
    data = values if isinstance(values, bytes) else struct.pack(f"<{len(values)}{_FORMATS[kind]}", *values)
    inline = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack("<I", _put(file, data)[0])
    return struct.pack("<HHI", tag, kind, len(values)) + inline
