"""Pyramidal TIFF files that slide readers open: tiles, levels by halves, um/px, and that the image is no tissue."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.files import replace_file

# First word of every description.
SYNTHETIC = "SYNTHETIC"
# Side of a tile, and of the smallest level at most.
TILE_PX, SMALLEST_PX = 256, 512
_UM_PER_CM = 1e4


def write_pyramid(path: Path, image: UInt8[np.ndarray, "h w 3"], *, mpp: float, words: str) -> None:
    """Write a generated image as a pyramidal TIFF file, without loss.

    Args:
        path: of the file.
        image: RGB.
        mpp: um per pixel of the image.
        words: what it is, for its description.

    Raises:
        DiffpathError: tifffile is not installed.
    """
    try:
        import tifffile
    except ImportError:
        fix = "pip install 'diffpath[tiff]'"
        raise DiffpathError("TIFF file", where=path, why="tifffile is not installed", fix=fix) from None
    description = f"{SYNTHETIC}: {words}; {mpp:.6g} um/px"
    with replace_file(path) as temporary, tifffile.TiffWriter(temporary) as file:
        for number, level in enumerate(levels(image)):
            # Levels are rounded down, so each has a scale of its own along both axes.
            height, width = (_UM_PER_CM / mpp * level.shape[axis] / image.shape[axis] for axis in (0, 1))
            file.write(
                level,
                tile=(TILE_PX, TILE_PX),
                photometric="rgb",
                compression="adobe_deflate",
                predictor=True,
                subfiletype=1 if number else 0,
                resolution=(width, height),
                resolutionunit="CENTIMETER",
                description=description if number == 0 else None,
                metadata=None,
            )


def levels(image: UInt8[np.ndarray, "h w 3"]) -> list[np.ndarray]:
    """Returns an image and its halves, each the mean of the one before, until one is small."""
    found = [image]
    while max(found[-1].shape) > SMALLEST_PX:
        height, width = found[-1].shape[:2]
        found.append(cv2.resize(found[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA))
    return found
