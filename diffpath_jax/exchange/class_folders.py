"""A split of a data set as image files in folders, one folder a class."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from diffpath_jax.data import marking
from diffpath_jax.data.image_files import encode_png, encode_tiff
from diffpath_jax.data.manifest import Dataset
from diffpath_jax.data.records import PatchRecord
from diffpath_jax.io.files import replace_file

# What writes the files of each suffix, without loss.
ENCODERS: Mapping[str, Callable[[np.ndarray, Mapping[str, str] | None], bytes]] = {
    "png": encode_png,
    "tif": encode_tiff,
}


def write_class_folders(dataset: Dataset, split: str, folder: Path, *, suffix: str = "png") -> int:
    """Write ``folder/CLASS/NAME.suffix``; files of generated images say that they are.

    Names are the hash of the slide with the number of the field, or the number of a generated image.

    Args:
        dataset: whose images.
        split: which of them.
        folder: where to.
        suffix: one of :data:`ENCODERS`.

    Returns:
        The number of images.
    """
    count = 0
    for record in dataset.read(split):
        path = folder / dataset.schema.classes[record.label] / f"{file_stem(record)}.{suffix}"
        with replace_file(path) as temporary:
            temporary.write_bytes(ENCODERS[suffix](record.image, about(dataset, record)))
        count += 1
    return count


def file_stem(record: PatchRecord) -> str:
    """Returns a name for the file of an image, unique in its split."""
    return f"{record.index:07d}" if marking.is_record_source(record.slide) else f"{record.slide}_{record.index:05d}"


def about(dataset: Dataset, record: PatchRecord) -> Mapping[str, str] | None:
    """Returns what the file of an image says of it; nothing for a real one."""
    return marking.about(record.slide) if marking.is_generated(dataset.details, record.slide) else None
