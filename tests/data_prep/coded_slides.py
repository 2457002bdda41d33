"""Slides whose pixels say where they are, in the layouts that scanners write."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

from benchmarks import jpeg_slide

# Red and green rise and fall by one level of grey a pixel, along x and along y; blue names the block of so many pixels.
HALF_PERIOD, BLOCK = 200, 128
SIDE = 128


def coded(width: int, height: int) -> np.ndarray:
    """The picture: (height, width, 3) uint8."""
    x, y = np.arange(width)[None], np.arange(height)[:, None]
    red, green = (20 + np.abs(place % (2 * HALF_PERIOD) - HALF_PERIOD) for place in (x, y))
    return np.stack(np.broadcast_arrays(red, green, block_code(x, y)), axis=-1).astype(np.uint8)


def block_code(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which block of the 8 x 8 that a slide may have; neighbours are at least 4 apart."""
    return 4 * (x // BLOCK) + 32 * (y // BLOCK)


def pyramid(picture: np.ndarray, steps: Sequence[int]) -> list[np.ndarray]:
    """Levels of whole blocks of pixels, averaged; what is left over at the edges is left out."""
    levels = []
    for n in steps:
        height, width = picture.shape[0] // n, picture.shape[1] // n
        blocks = picture[: height * n, : width * n].reshape(height, n, width, n, 3).astype(float)
        levels.append(blocks.mean(axis=(1, 3)).round().astype(np.uint8))
    return levels


def aperio(path: Path, levels: Sequence[np.ndarray], mpp: float) -> Path:
    """As Aperio writes them, without loss."""
    with tifffile.TiffWriter(path) as file:
        for level in levels:
            description = jpeg_slide.aperio(mpp, 10 / mpp)
            file.write(level, tile=(SIDE, SIDE), photometric="rgb", description=description, metadata=None)
    return path


def aperio_jpeg(path: Path, levels: Sequence[np.ndarray], mpp: float) -> Path:
    """As Aperio writes them, in JPEG tiles."""
    written = [
        jpeg_slide.Level(
            (level.shape[1], level.shape[0]),
            [jpeg_slide.encode(tile, quality=98, subsampling="4:4:4") for tile in jpeg_slide.cut(level, SIDE)],
            chroma=(1, 1),
        )
        for level in levels
    ]
    return jpeg_slide.write(path, written, side=SIDE, description=jpeg_slide.aperio(mpp, 10 / mpp))


def plain(path: Path, levels: Sequence[np.ndarray], mpp: tuple[float, float]) -> Path:
    """A plain tiled TIFF, which says its um/px along x and y as a resolution."""
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels):
            reduced = {"subfiletype": int(number > 0)}
            file.write(level, tile=(SIDE, SIDE), photometric="rgb", metadata=None, **reduced, **_resolution(mpp))
    return path


def leica(path: Path, levels: Sequence[np.ndarray], mpp: float, *, glass: tuple[int, int], at: tuple[int, int]) -> Path:
    """As Leica's scanners write them: the picture lies at a place of the glass, which viewers do not show the rest of.

    Args:
        path: file to write.
        levels: of the picture.
        mpp: um per pixel.
        glass: (width, height) of the glass in pixels.
        at: (x, y) of the picture on the glass in pixels.
    """
    nm = round(1000 * mpp)
    macro = np.full((48, 64, 3), 200, np.uint8)
    whole = (0, 0, glass[0] * nm, glass[1] * nm)
    view = (at[0] * nm, at[1] * nm, levels[0].shape[1] * nm, levels[0].shape[0] * nm)
    description = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection name="c" sizeX="{whole[2]}" sizeY="{whole[3]}">'
        f"{_leica_image([macro], 0, whole)}{_leica_image(levels, 1, view)}</collection></scn>"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for number, level in enumerate([macro, *levels]):
            file.write(
                level,
                tile=(SIDE, SIDE),
                photometric="rgb",
                description=description if number == 0 else None,
                metadata=None,
                **_resolution((mpp, mpp)),
            )
    return path


def _leica_image(levels: Sequence[np.ndarray], first: int, view: tuple[int, int, int, int]) -> str:
    sizes = [(level.shape[1], level.shape[0]) for level in levels]
    dimensions = "".join(
        f'<dimension sizeX="{x}" sizeY="{y}" r="{i}" ifd="{first + i}"/>' for i, (x, y) in enumerate(sizes)
    )
    return (
        '<image name="i"><creationDate>2020-01-01T00:00:00Z</creationDate><device model="m" version="1"/>'
        f'<pixels sizeX="{sizes[0][0]}" sizeY="{sizes[0][1]}">{dimensions}</pixels>'
        f'<view offsetX="{view[0]}" offsetY="{view[1]}" sizeX="{view[2]}" sizeY="{view[3]}" spacingZ="0"/>'
        "<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings><illuminationSettings>"
        "<numericalAperture>0.4</numericalAperture><illuminationSource>brightfield</illuminationSource>"
        "</illuminationSettings></scanSettings></image>"
    )


def _resolution(mpp: tuple[float, float]) -> dict:
    return {"resolution": (1e4 / mpp[0], 1e4 / mpp[1]), "resolutionunit": "CENTIMETER"}
