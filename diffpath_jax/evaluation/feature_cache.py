"""Features on disk: computed once for each set of images and extractor, read back as a memory map."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float

from diffpath_jax.evaluation.features.extractor import FeatureExtractor
from diffpath_jax.evaluation.image_sets import ImageSet
from diffpath_jax.evaluation.record import as_json
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.files import replace_file, sha256_file, sha256_json
from diffpath_jax.io.progress import console, track
from diffpath_jax.io.sealed import read_sealed, write_sealed

# Raised whenever the same images and parameters give other features.
FORMAT = 1


def default_directory() -> Path:
    """Returns the directory of features unless the user names another."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "diffpath" / "features"


@dataclass(frozen=True)
class FeatureStore:
    """A directory of features, each file named by what it was computed from.

    Attributes:
        directory: may be emptied at any time.
    """

    directory: Path

    def features(self, images: ImageSet, extractor: FeatureExtractor) -> Float[np.ndarray, "n d"]:
        """Returns features of a set, from disk where they lie there intact (by their digest).

        Raises:
            DiffpathError: a feature is not finite; the image is named.
        """
        key = sha256_json([FORMAT, images.digest, extractor.digest, extractor.name, extractor.resize])
        data, seal = self.directory / f"{key}.npy", self.directory / f"{key}.json"
        if not _intact(data, seal, rows=len(images)):
            with replace_file(data) as temporary:
                _write(temporary, images, extractor)
            write_sealed(
                seal, {"sha256": sha256_file(data), "images": as_json(images.about()), "features": extractor.name}
            )
        return np.load(data, mmap_mode="r", allow_pickle=False)


def _intact(data: Path, seal: Path, *, rows: int) -> bool:
    if not (data.exists() and seal.exists()):
        return False
    try:
        if read_sealed(seal, dict, what="features", fix="").get("sha256") == sha256_file(data):
            return len(np.load(data, mmap_mode="r", allow_pickle=False)) == rows
    except (DiffpathError, ValueError, OSError):
        pass
    console.print(f"features in {data}: damaged; they are computed again", soft_wrap=True, markup=False)
    return False


def _write(path: Path, images: ImageSet, extractor: FeatureExtractor) -> None:
    """Computes the features block by block, into a file that never is in memory whole."""
    start = 0
    title = f"{extractor.name} features of {images.where.name or images.where}"
    with track(title, total=len(images), unit="img") as progress, path.open("wb") as file:
        for block in images.blocks():
            features = extractor.finite(block, first=start, where=images.where)
            if start == 0:
                _write_header(file, (len(images), features.shape[1]))
            # Not through a memory map: on a full disk that ends in a signal that kills, not in an error.
            file.write(np.ascontiguousarray(features, "<f4").data)
            start += len(features)
            progress.advance(len(features))


def _write_header(file: BinaryIO, shape: tuple[int, int]) -> None:
    """Writes the header of numpy's own files of such an array."""
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
