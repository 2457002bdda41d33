"""``.npz`` files of images (``arr_0``) and labels (``arr_1``), as guided-diffusion samples them, as sources.

Images have no names in them but their numbers, from 0, by which a table of patients may name them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data_prep.sources.stored_images import STORED, StoredFile, StoredKind
from diffpath_jax.data import marking
from diffpath_jax.data.image_files import encode_png
from diffpath_jax.data.npz_images import LABELS, SUFFIX, open_npz
from diffpath_jax.io.errors import DiffpathError


def is_own(path: Path) -> bool:
    """Returns whether a file is called as such sets are."""
    return path.suffix == SUFFIX


def list_files(path: Path) -> Iterator[StoredFile]:
    """Yields what the one file says.

    Raises:
        DiffpathError: it is damaged, or has no labels.
    """
    found = open_npz(path)
    if found.labels is None:
        fix = f"add {LABELS}, a class for each image"
        raise DiffpathError("images", where=path, why="it says of no image which class it has", fix=fix)
    yield StoredFile(path, None, tuple(map(str, range(found.shape[0]))), found.classes, None)


def read_rows(file: Path, rows: Sequence[int]) -> Iterator[tuple[str, bytes | np.ndarray]]:
    """Yields class and pixels of some images; generated ones as files that say so."""
    found = open_npz(file)
    assert found.labels is not None
    for row, image in zip(rows, found.read(rows), strict=True):
        content = encode_png(image, marking.about()) if found.generated else image
        yield found.classes[found.labels[row]], content


STORED.register(StoredKind("npz", is_own, list_files, read_rows))
