"""Places of fields of view in HDF5 files, as CLAM, TRIDENT and AtlasPatch write them.

All three keep the top-left corner of each patch in level-0 pixels of the glass (as OpenSlide counts them) in a dataset
``coords``; how large a patch is, each says in a frame of its own:

- CLAM: ``patch_size`` pixels of the slide's level ``patch_level``, attributes of ``coords``;
- TRIDENT: ``patch_size_level0`` level-0 pixels, an attribute of ``coords``; ``patch_size`` there is in pixels of
  ``target_magnification``;
- AtlasPatch: ``patch_size_level0`` as TRIDENT, but an attribute of the file; ``coords`` has five columns, of which the
  first two are the corner (width, height and level that are read follow).

h5py is asked for when it is needed (``pip install 'diffpath[hdf5]'``).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from data_prep import tables
from data_prep.slide.slides import Box, Slide, level_steps
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import replace_file
from diffpath_jax.io.tables import composed

SUFFIXES = (".h5", ".hdf5")
# TRIDENT's files are called so.
_ENDING = "_patches"
COORDS = "coords"
# A patch of another size than the job's field, relative: magnifications are rounded, um/px are not.
TOLERANCE = 0.02
_FIX = f"give an HDF5 file of CLAM, TRIDENT or AtlasPatch, with a dataset {COORDS!r}"


def list_files(path: Path) -> dict[str, Path]:
    """Returns the files of a folder, or the one file, by what the slide may be called.

    Raises:
        DiffpathError: there are none, or two of one slide.
    """
    files = tables.list_files(path, SUFFIXES) if path.is_dir() else [path]
    if not files or not path.exists():
        raise DiffpathError("coordinates", where=path, why="there are none", fix=_FIX)
    by_name: dict[str, Path] = {}
    for file in files:
        name = composed(file.stem.removesuffix(_ENDING))
        if name in by_name:
            fix = "keep one of them"
            raise DiffpathError("coordinates", where=file, why=f"{by_name[name].name} is of the same slide", fix=fix)
        by_name[name] = file
    return by_name


def find_file(files: Mapping[str, Path], slide: Path) -> Path:
    """Returns the file of a slide.

    Raises:
        DiffpathError: there is none.
    """
    for name in tables.names_of(slide):
        if name in files:
            return files[name]
    why, fix = f"there are none of {slide.name}", f"add {slide.stem}{SUFFIXES[0]}, or leave the slide out"
    raise DiffpathError("coordinates", where=next(iter(files.values())).parent, why=why, fix=fix)


def read_boxes(path: Path, slide: Slide, width: float, height: float) -> tuple[Box, ...]:
    """Read the places of a slide's patches as fields of a job: of its size, around the centres of the patches.

    Those that are there twice, as where contours overlap, are one. Order: top to bottom, left to right.

    Args:
        path: the file.
        slide: whose places they are.
        width: of a field in level-0 pixels.
        height: of a field in level-0 pixels.

    Raises:
        DiffpathError: h5py is not there, the file is damaged or in another layout, or its patches have another size.
    """
    corners, sides = _read(path, slide)
    for side, own, scale in zip(sides, (width, height), (slide.scale.x, slide.scale.y), strict=True):
        if abs(side / own - 1) > TOLERANCE:
            why = f"its patches have {side:g} level-0 px, which are {side * scale:.4g} um, and a field has {own:g}"
            raise DiffpathError("coordinates", where=path, why=why, fix=f"give --fov_um {side * scale:.6g}")
    left, top = corners[:, 0] + (sides[0] - width) / 2, corners[:, 1] + (sides[1] - height) / 2
    places = sorted(set(zip(top.tolist(), left.tolist(), strict=True)))
    return tuple(Box(x, y, width, height) for y, x in places)


def _read(path: Path, slide: Slide) -> tuple[Float[np.ndarray, "n 2"], tuple[float, float]]:
    """Returns the top-left corners, and the sides of a patch, in level-0 pixels."""
    h5py = import_h5py(path)
    try:
        with h5py.File(path, "r") as file:
            stored = file[COORDS]
            attributes = {**file.attrs, **stored.attrs}
            if stored.ndim != 2 or stored.shape[1] not in (2, 5) or not np.issubdtype(stored.dtype, np.number):
                raise ValueError(f"{COORDS} has shape {stored.shape} and type {stored.dtype}")
            corners = stored[:, :2].astype(np.float64)
        sides = _sides(attributes, slide)
        if not (np.isfinite(corners).all() and all(0 < side < np.inf for side in sides)):
            raise ValueError("a place or a size is no number of pixels")
    except (OSError, KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
        why = f"cannot be read ({' '.join(str(error).split())[:120]})"
        raise DiffpathError("coordinates", where=path, why=why, fix=_FIX, code=ExitCode.DAMAGED) from error
    return corners, sides


def _sides(attributes: Mapping[str, Any], slide: Slide) -> tuple[float, float]:
    """Returns width and height of a patch in level-0 pixels, from whatever frame it is stated in.

    Raises:
        KeyError: it is not stated.
    """
    if "patch_size_level0" in attributes:
        side = float(attributes["patch_size_level0"])
        return side, side
    size = float(attributes["patch_size"])
    if "patch_level" in attributes:
        x, y = level_steps(slide, int(attributes["patch_level"]))
        return size * x, size * y
    side = size * float(attributes["level0_magnification"]) / float(attributes["target_magnification"])
    return side, side


def write_boxes(
    path: Path,
    corners: Int[np.ndarray, "n 2"],
    *,
    attributes: Mapping[str, Any],
    columns: Mapping[str, Sequence[int]],
    file_attributes: Mapping[str, Any],
) -> None:
    """Write places in CLAM's layout.

    Args:
        path: file to write.
        corners: top-left corners in level-0 pixels.
        attributes: of ``coords``.
        columns: more datasets, one number a place.
        file_attributes: of the file.

    Raises:
        DiffpathError: h5py is not there.
    """
    h5py = import_h5py(path)
    with replace_file(path) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset(COORDS, data=corners.astype(np.int64)).attrs.update(attributes)
        for name, values in columns.items():
            file.create_dataset(name, data=np.asarray(values, np.int64))
        file.attrs.update(file_attributes)


def import_h5py(path: Path) -> ModuleType:
    """Returns h5py.

    Raises:
        DiffpathError: it is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        fix = "pip install 'diffpath[hdf5]'"
        raise DiffpathError("coordinates", where=path, why="h5py is not installed", fix=fix) from error
    return h5py


def is_within(slide: Slide, box: Box) -> bool:
    """Returns whether a box lies within the slide, to a pixel: corners are whole pixels, and widths need not be."""
    right, bottom = slide.size
    return min(box.x, box.y) > -1 and box.x + box.width < right + 1 and box.y + box.height < bottom + 1
