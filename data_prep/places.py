"""Where the patches of a prepared data set lie, for other programs: QuPath, and CLAM or TRIDENT.

The places stand in the data set's private table, and the slides say what else the formats need: the files name slides,
and are for the group's own eyes, as that table is.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from data_prep.fields import coordinates
from data_prep.job.patch_table import FILE
from data_prep.qa.pictures import CLASS_COLOURS
from data_prep.slide import slides
from data_prep.sources.find_slides import find_readers
from data_prep.sources.source import PRIVATE
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.files import new_folder, write_text


@dataclass(frozen=True)
class Places:
    """The patches of one slide.

    Attributes:
        rows: of the private table.
        classes: class names of the data set, in order.
        patch_px: side of the stored images.
    """

    rows: Sequence[Mapping[str, Any]]
    classes: tuple[str, ...]
    patch_px: int

    @property
    def labels(self) -> list[int]:
        """Index of the class of each."""
        return [self.classes.index(row["class"]) for row in self.rows]


# (an open slide, its patches, folder to write into)
WritePlaces = Callable[[slides.Slide, Places, Path], None]


def export_places(dataset: Path, slide_path: Path, out: Path, write: WritePlaces) -> int:
    """Write one file a slide into a new folder.

    Args:
        dataset: directory of a prepared data set, with its ``private/``.
        slide_path: a slide, or the folder of the slides.
        out: folder to write.
        write: writes the file of a slide.

    Returns:
        The number of patches.

    Raises:
        DiffpathError: the data set has no places, or a slide is not there.
    """
    by_slide = _read_table(dataset)
    readers = {path.name: (path, kind) for path, kind in find_readers(slide_path).items()}
    if missing := [name for name in by_slide if name not in readers]:
        why = f"{missing[0]} is not there" + (f", nor {len(missing) - 1} more" if missing[1:] else "")
        raise DiffpathError("slides", where=slide_path, why=why, fix="name the slides that the set was made from")
    if len({Path(name).stem for name in by_slide}) < len(by_slide):
        why = "two slides differ in their suffix alone, and files are called by their stems"
        raise DiffpathError("slides", where=slide_path, why=why, fix="prepare them as two data sets")
    with new_folder(out) as temporary:
        for name, places in by_slide.items():
            path, kind = readers[name]
            mpp = places.rows[0]["fov_um"] / places.rows[0]["width_px0"]
            with slides.open_slide(path, kind=kind, scale_table={name: mpp}) as slide:
                write(slide, places, temporary)
    return sum(len(places.rows) for places in by_slide.values())


def _read_table(directory: Path) -> dict[str, Places]:
    dataset = open_dataset(directory)
    dataset.check_images()
    path = directory / PRIVATE / FILE
    fix = "name a data set that `diffpath prep --slides` wrote, with its private folder"
    if not path.is_file():
        raise DiffpathError("places", where=path, why="there is no such table", fix=fix)
    rows = pq.read_table(path).sort_by([("slide_file", "ascending"), ("index", "ascending")]).to_pylist()
    if not rows or rows[0]["slide_mpp_source"] == "--mpp":
        raise DiffpathError("places", where=path, why="its images were not cut from slides", fix=fix)
    grouped = itertools.groupby(rows, key=lambda row: row["slide_file"])
    schema = dataset.schema
    return {name: Places(list(own), schema.classes, schema.image_px[0]) for name, own in grouped}


def write_geojson(slide: slides.Slide, places: Places, folder: Path) -> None:
    """Write patches as QuPath's annotations: rectangles with their class, in pixels of what QuPath shows."""
    features = list(_features(slide, places))
    content = {"type": "FeatureCollection", "features": features}
    write_text(folder / f"{slide.path.stem}.geojson", json.dumps(content))


def _features(slide: slides.Slide, places: Places) -> Iterator[dict[str, Any]]:
    left, top = slide.reader.bounds
    for row, label in zip(places.rows, places.labels, strict=True):
        x, y = row["x_px0"] - left, row["y_px0"] - top
        right, bottom = x + row["width_px0"], y + row["height_px0"]
        ring = [[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]
        colour = CLASS_COLOURS[label % len(CLASS_COLOURS)]
        yield {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {
                "objectType": "annotation",
                "name": f"{row['split']} {row['index']}",
                "classification": {"name": row["class"], "color": [*bytes.fromhex(colour[1:])]},
            },
        }


def write_coordinates(slide: slides.Slide, places: Places, folder: Path) -> None:
    """Write corners in CLAM's layout, with TRIDENT's ``patch_size_level0`` beside it, and labels.

    Raises:
        DiffpathError: h5py is not there, or a field has no whole number of pixels a side of one level in common.
    """
    first = places.rows[0]
    reading = slides.choose_reading(slide, first["width_px0"], first["height_px0"], patch_px=places.patch_px)
    if reading.size[0] != reading.size[1]:
        why = f"a field has {reading.size[0]} x {reading.size[1]} px of it, and the format knows squares alone"
        raise DiffpathError("slide", where=slide.path, why=why, fix="export GeoJSON")
    corners = np.array([[row["x_px0"], row["y_px0"]] for row in places.rows]).round().astype(np.int64)
    level_dim = slide.reader.dimensions[reading.level]
    coordinates.write_boxes(
        folder / f"{slide.path.stem}.h5",
        corners,
        attributes={
            "patch_size": reading.size[0],
            "patch_level": reading.level,
            "downsample": reading.steps,
            "downsampled_level_dim": level_dim,
            "level_dim": level_dim,
            "patch_size_level0": round(first["width_px0"]),
            "name": slide.path.stem,
            "save_path": "",
        },
        columns={"labels": places.labels},
        file_attributes={"classes": list(places.classes)},
    )
