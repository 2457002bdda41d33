"""Slides through OpenSlide; plain TIFF of JPEG tiles, Aperio's among them, straight from the file where that is exact.

Label and macro images are never opened.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import openslide
from jaxtyping import UInt8

from data_prep.slide.readers.jpeg_tiles import JpegTiles, find_levels, is_in_strips
from data_prep.slide.readers.registry import READERS, ReaderKind
from diffpath_jax.io.errors import DiffpathError

# In files of these vendors a level is a picture of its own, whose tiles neither overlap nor leave gaps.
PLAIN_VENDORS = ("aperio", "generic-tiff")
# OpenSlide holds whole tiles; those of scanners have 256 to 1024 pixels a side.
MAX_TILE_PX = 8_192
_DICOM = ".dcm"
_SUFFIXES = tuple(f".svs .tif .tiff .ndpi .mrxs .scn .vms .vmu .bif .svslide {_DICOM} .czi".split())
_DESCRIPTION = "tiff.ImageDescription"
_CONVERT = "vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg --Q 90"
# The first image of OME-XML is the whole slide; further ones are labels and overviews.
_OME_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b[^>]*>")
_OME_SIZE = re.compile(r"""\bPhysicalSize(X|Y|XUnit|YUnit)\s*=\s*["']([^"']*)["']""")
_OME_UNITS = {"um": 1.0, "\u00b5m": 1.0, "\u03bcm": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}
_MPP = (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)
_CENTRE = ("hamamatsu.XOffsetFromSlideCentre", "hamamatsu.YOffsetFromSlideCentre")
_BOUNDS = (openslide.PROPERTY_NAME_BOUNDS_X, openslide.PROPERTY_NAME_BOUNDS_Y)


@dataclass(frozen=True)
class OpenSlideReader:
    """A slide that OpenSlide has opened.

    Attributes:
        handle: OpenSlide's own.
        tiles: levels whose tiles are decoded straight from the file.
    """

    handle: openslide.OpenSlide
    tiles: Mapping[int, JpegTiles]

    @property
    def dimensions(self) -> Sequence[tuple[int, int]]:
        """Pixels of each level."""
        return self.handle.level_dimensions

    @property
    def downsamples(self) -> Sequence[float]:
        """Level-0 pixels to a pixel of each level, as OpenSlide takes them."""
        return self.handle.level_downsamples

    @property
    def mpp(self) -> tuple[float, float] | None:
        """Scale in um/px: of OME-TIFF what its XML says, else as OpenSlide understands the file."""
        if stated := ome_mpp(self.handle.properties.get(_DESCRIPTION, "")):
            return stated
        x, y = (self.handle.properties.get(name) for name in _MPP)
        return None if x is None or y is None else (_number(x), _number(y))

    @property
    def objective(self) -> float | None:
        """Power of the objective."""
        power = _number(self.handle.properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER, ""))
        return None if math.isnan(power) else power

    @property
    def bounds(self) -> tuple[float, float]:
        """Corner of the pixels on the glass as scanners of MRXS and SCN files state it, from that of the glass."""
        x, y = (float(self.handle.properties.get(name, 0)) for name in _BOUNDS)
        return x, y

    @property
    def centre_um(self) -> tuple[float, float] | None:
        """Middle of the picture from that of the glass, as Hamamatsu's scanners state it, in nm."""
        x, y = (_number(self.handle.properties.get(name, "")) / 1000 for name in _CENTRE)
        return None if math.isnan(x + y) else (x, y)

    def read_region(self, level: int, corner: tuple[int, int], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the pixels of a rectangle.

        Raises:
            OSError: the file cannot be read there.
        """
        if level in self.tiles:
            return self.tiles[level].read(*corner, *size)
        # OpenSlide's own notion of the level's scale takes this back to the pixel.
        x, y = (round(place * self.downsamples[level]) for place in corner)
        rgba = np.asarray(_read(self.handle, level, (x, y), size), np.uint8)
        # Where a slide has no pixels OpenSlide gives alpha 0: show glass, which is white.
        rgb = cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB)
        rgb[rgba[..., 3] == 0] = 255
        return rgb

    def close(self) -> None:
        """Let go of the file."""
        self.handle.close()


def open_file(path: Path) -> OpenSlideReader:
    """Returns a slide, opened; to be opened per process, after forking.

    Raises:
        OSError: OpenSlide cannot read it.
        DiffpathError: it declares tiles that no memory holds.
    """
    try:
        handle = openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        if is_in_strips(path):
            why, fix = (
                "OpenSlide cannot read it, as its pixels lie in strips",
                f"convert it to tiles: {_CONVERT}",
            )
            raise DiffpathError("slide", where=path, why=why, fix=fix) from error
        raise OSError(str(error)) from error
    _check_tiles(path, handle)
    return OpenSlideReader(handle, _find_tiles(path, handle))


def ome_mpp(description: str) -> tuple[float, float] | None:
    """Returns um per level-0 pixel that the OME-XML in a TIFF states; None if it does not."""
    pixels = _OME_PIXELS.search(description)
    if not pixels:
        return None
    stated = dict(_OME_SIZE.findall(pixels[0]))
    if "X" not in stated or "Y" not in stated:
        return None
    units = {axis: _OME_UNITS.get(stated.get(f"{axis}Unit", "um"), math.nan) for axis in "XY"}
    return _number(stated["X"]) * units["X"], _number(stated["Y"]) * units["Y"]


def _number(text: str) -> float:
    """Returns the number that a text is, or else not a number."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _read(handle: openslide.OpenSlide, level: int, place: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Returns RGBA of a rectangle at a place of level 0.

    Raises:
        OSError: OpenSlide cannot read it.
    """
    try:
        return np.asarray(handle.read_region(place, level, size))
    except openslide.OpenSlideError as error:
        raise OSError(str(error)) from error


def _find_tiles(path: Path, handle: openslide.OpenSlide) -> dict[int, JpegTiles]:
    """Returns the levels that need not go through OpenSlide."""
    if handle.properties.get(openslide.PROPERTY_NAME_VENDOR) not in PLAIN_VENDORS:
        return {}

    def as_openslide(level: int, place: tuple[int, int], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"] | None:
        try:
            return _read(handle, level, place, size)[..., :3]
        except OSError:
            return None

    return find_levels(path, handle.level_dimensions, handle.level_downsamples, as_openslide)


def _check_tiles(path: Path, handle: openslide.OpenSlide) -> None:
    """Refuse tiles that no memory holds: OpenSlide would end this process.

    Raises:
        DiffpathError: the file declares such a tile.
    """
    for level in range(handle.level_count):
        sides = [handle.properties.get(f"openslide.level[{level}].tile-{side}", "0") for side in ("width", "height")]
        if max(map(int, sides)) > MAX_TILE_PX:
            why = f"it declares tiles of {sides[0]} x {sides[1]} px"
            raise DiffpathError("slide", where=path, why=why, fix="copy it again, or leave it out")


def series_of(path: Path) -> str | None:
    """Returns the series of a DICOM file, whose levels lie in a file each; none for other files and damaged ones."""
    if path.suffix.lower() != _DICOM:
        return None
    try:
        with openslide.OpenSlide(path) as handle:
            return handle.properties.get("dicom.SeriesInstanceUID")
    except openslide.OpenSlideError:
        return None


READERS.register(ReaderKind("OpenSlide", _SUFFIXES, open_file, series_of))
