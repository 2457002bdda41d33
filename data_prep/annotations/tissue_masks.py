"""Tissue as the user has it already: a mask (PNG, TIFF) or outlines (GeoJSON) of each slide, instead of an estimate."""

from pathlib import Path

import cv2
import numpy as np
import shapely
from jaxtyping import Bool

from data_prep.annotations import outlines, registry
from data_prep.slide.slides import Slide
from data_prep.slide.tissue import MASK_PX, TissueMask
from data_prep.tables import files_of, list_files
from diffpath_jax.data.image_files import has_transparency, read_image
from diffpath_jax.io.errors import DiffpathError

IMAGES, OUTLINES = (".png", ".tif", ".tiff"), (".geojson", ".json", ".geojson.gz", ".json.gz")
SUFFIXES = (*IMAGES, *OUTLINES)
# Sides of a mask are rounded to whole pixels, and slides are cropped to whole tiles.
_ASPECT = 0.02


def find_mask(folder: Path, slide: Path) -> Path:
    """Returns the mask of a slide: named as it or without its suffix, then a suffix of a mask.

    Raises:
        DiffpathError: there is none, or there are several.
    """
    files = files_of(slide, list_files(folder, SUFFIXES), SUFFIXES) if folder.is_dir() else []
    if len(files) != 1:
        why = f"{' and '.join(path.name for path in files) or 'no file'} for {slide.name}"
        fix = f"give one file named {slide.stem} with one of {' '.join(SUFFIXES)}"
        raise DiffpathError("tissue mask", where=folder, why=why, fix=fix)
    return files[0]


def read_mask(path: Path, slide: Slide) -> TissueMask:
    """Read the tissue of a slide: pixels of an image that are not 0, or the areas of all outlines.

    Raises:
        DiffpathError: it is damaged, or has not the shape of the slide.
    """
    mask = _drawn(path, slide) if path.name.lower().endswith(OUTLINES) else _image(path)
    rows, columns = mask.shape
    across, down = slide.size[0] / columns, slide.size[1] / rows
    if abs(across / down - 1) > _ASPECT:
        why = f"it has {columns} x {rows} px, another shape than the slide of {slide.size[0]} x {slide.size[1]} px"
        raise DiffpathError("tissue mask", where=path, why=why, fix="export it for all of this slide")
    return TissueMask(mask, (across, down))


def _image(path: Path) -> Bool[np.ndarray, "h w"]:
    """Returns where an image is not 0.

    Raises:
        DiffpathError: it cannot be read, or has transparent pixels, which could mean either.
    """
    mask = np.any(read_image(path) != 0, axis=-1)
    if has_transparency(path.read_bytes()):
        why, fix = "it has transparent pixels", "export it as a grey image, 0 where no tissue is"
        raise DiffpathError("tissue mask", where=path, why=why, fix=fix)
    return mask


def _drawn(path: Path, slide: Slide) -> Bool[np.ndarray, "h w"]:
    """Returns the areas of all outlines, on a picture as small as that of an estimate."""
    shrink = min(1.0, MASK_PX / max(slide.size))
    columns, rows = (max(1, round(side * shrink)) for side in slide.size)
    scale = np.array([columns / slide.size[0], rows / slide.size[1]])
    canvas = np.zeros((rows, columns), np.uint8)
    for part in _area(path).geoms:
        # Holes are filled by the even-odd rule, which must not reach what is drawn already.
        one = np.zeros_like(canvas) if part.interiors else canvas
        rings = [np.asarray(ring.coords) for ring in (part.exterior, *part.interiors)]
        cv2.fillPoly(one, [np.round((ring + slide.reader.bounds) * scale).astype(np.int32) for ring in rings], 1)
        canvas |= one
    return canvas.astype(bool)


def _area(path: Path) -> shapely.MultiPolygon:
    """Returns the area of all outlines of a file.

    Raises:
        DiffpathError: one of them is no polygon.
    """
    areas = [outline for outline in registry.format_of(path).read(path) if not outline.left_out]
    try:
        return outlines.area_of(areas)
    except ValueError as error:
        raise DiffpathError("tissue mask", where=path, why=str(error), fix="draw it again") from error
