"""DICOM slides, written byte by byte: each level in a file of its own, all of one series (DICOM PS3.3 A.32.8)."""

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image

WHOLE_SLIDE, JPEG_BASELINE = "1.2.840.10008.5.1.4.1.1.77.1.6", "1.2.840.10008.1.2.4.50"
TILE = 64
# Elements whose length has four bytes, after two that are 0.
_LONG = ("OB", "SQ")
_ITEM, _END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)


def write_level(path: Path, image: np.ndarray, *, mm: float, series: str, number: int) -> Path:
    """Writes one level, (h, w, 3), of ``mm`` per pixel."""
    (height, width), identity = image.shape[:2], f"1.2.826.0.1.{number}"
    tiles = [_jpeg(tile) for tile in _tiles(image)]
    meta = b"".join(
        [
            _element(2, 0x01, "OB", b"\0\1"),
            _element(2, 0x02, "UI", WHOLE_SLIDE),
            _element(2, 0x03, "UI", identity),
            _element(2, 0x10, "UI", JPEG_BASELINE),
            _element(2, 0x12, "UI", "1.2.826.0.1"),
        ]
    )
    spacing = _element(0x28, 0x30, "DS", f"{mm}\\{mm}")
    body = [
        _element(0x08, 0x08, "CS", "ORIGINAL\\PRIMARY\\VOLUME\\NONE"),
        _element(0x08, 0x16, "UI", WHOLE_SLIDE),
        _element(0x08, 0x18, "UI", identity),
        _element(0x08, 0x60, "CS", "SM"),
        _element(0x20, 0x0D, "UI", "1.2.826.0.1.99"),
        _element(0x20, 0x0E, "UI", series),
        _element(0x20, 0x13, "IS", "1"),
        _element(0x20, 0x9311, "CS", "TILED_FULL"),
        _element(0x28, 0x02, "US", 3),
        _element(0x28, 0x04, "CS", "YBR_FULL_422"),
        _element(0x28, 0x06, "US", 0),
        _element(0x28, 0x08, "IS", str(len(tiles))),
        *(_element(0x28, at, "US", value) for at, value in ((0x10, TILE), (0x11, TILE), (0x100, 8), (0x101, 8))),
        *(_element(0x28, at, "US", value) for at, value in ((0x102, 7), (0x103, 0))),
        _element(0x48, 0x06, "UL", width),
        _element(0x48, 0x07, "UL", height),
        _element(0x5200, 0x9229, "SQ", _piece(_ITEM, _element(0x28, 0x9110, "SQ", _piece(_ITEM, spacing)))),
    ]
    path.write_bytes(b"".join([bytes(128), b"DICM", _element(2, 0, "UL", len(meta)), meta, *body, *_pixels(tiles)]))
    return path


def _tiles(image: np.ndarray) -> list[np.ndarray]:
    rows, columns = (-(-side // TILE) for side in image.shape[:2])
    padded = np.full((rows * TILE, columns * TILE, 3), 255, np.uint8)
    padded[: image.shape[0], : image.shape[1]] = image
    return [*padded.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2).reshape(-1, TILE, TILE, 3)]


def _jpeg(tile: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(tile).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def _pixels(tiles: list[bytes]) -> list[bytes]:
    """The element of pixels: where each tile begins, and the tiles."""
    pieces = [_piece(_ITEM, tile) for tile in tiles]
    starts = np.cumsum([0, *(len(piece) for piece in pieces[:-1])]).astype("<u4")
    head = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF)
    return [head, _piece(_ITEM, starts.tobytes()), *pieces, _piece(_END, b"")]


def _piece(tag: tuple[int, int], value: bytes) -> bytes:
    value += bytes(len(value) % 2)
    return struct.pack("<HHI", *tag, len(value)) + value


def _element(group: int, number: int, kind: str, value: str | int | bytes) -> bytes:
    """An element in little endian with its kind."""
    if isinstance(value, int):
        value = struct.pack("<H" if kind == "US" else "<I", value)
    elif isinstance(value, str):
        value = value.encode().ljust(len(value) + len(value) % 2, b"\0" if kind == "UI" else b" ")
    length = struct.pack("<HI", 0, len(value)) if kind in _LONG else struct.pack("<H", len(value))
    return struct.pack("<HH2s", group, number, kind.encode()) + length + value
