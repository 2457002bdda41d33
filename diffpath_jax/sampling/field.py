"""Fields larger than a model's images: how a job covers them with windows, and which class each window has."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, UInt8

from diffpath_jax.data.image_files import read_image
from diffpath_jax.diffusion.windows import Windows
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.files import sha256_json
from diffpath_jax.networks.conditions import LABEL
from diffpath_jax.shapes import Conditions

# Where a class map says nothing, a window has the class of its image.
OWN_CLASS = 255


@dataclass(frozen=True, eq=False)
class FieldOptions:
    """Windows over each image of a job.

    Attributes:
        window_px: side of a window, as large as the images that the network was trained on or any size that it takes.
        stride_px: most pixels from one window to the next.
        at_once: windows that go through the network together.
        class_map: class of each part of an image, from its top left to its bottom right; none where an image has one.
    """

    window_px: int
    stride_px: int
    at_once: int
    class_map: UInt8[np.ndarray, "rows columns"] | None = None

    def as_json(self) -> dict[str, Any]:
        """Everything of it that decides pixels."""
        classes = "" if self.class_map is None else sha256_json(self.class_map.tolist())
        return {"window_px": self.window_px, "window_stride_px": self.stride_px, "class_map": classes}

    def windows(self, image_px: tuple[int, int], shape: tuple[int, int, int]) -> Windows | None:
        """Returns the windows over images of a shape in model space; none where one window is all."""
        factor = image_px[0] // shape[0]
        side, stride = self.window_px // factor, max(1, self.stride_px // factor)
        return None if shape[:2] == (side, side) else Windows(shape[:2], side, stride, self.at_once)

    def of_windows(self, conditions: Conditions, windows: Windows) -> Conditions:
        """Returns the conditions of all windows of some images, from those of the images."""
        count = len(windows.corners())
        told = {name: jnp.repeat(value, count, axis=0) for name, value in conditions.items()}
        if self.class_map is None:
            return told
        labels = jnp.asarray(classes_of_windows(self.class_map, windows))
        labels = jnp.tile(labels, len(told[LABEL.name]) // count)
        return {**told, LABEL.name: jnp.where(labels == OWN_CLASS, told[LABEL.name], labels)}


def classes_of_windows(class_map: UInt8[np.ndarray, "rows columns"], windows: Windows) -> Int[np.ndarray, "n"]:
    """Returns the most frequent class of the inner half of each window, where its prediction has most of its weight."""
    quarter, scale = windows.side / 4, np.array(class_map.shape) / windows.size

    def label(corner: Int[np.ndarray, "2"]) -> int:
        top, left = np.floor((corner + quarter) * scale).astype(int)
        bottom, right = np.ceil((corner + 3 * quarter) * scale).astype(int)
        return int(np.bincount(class_map[top:bottom, left:right].ravel()).argmax())

    return np.array([label(corner) for corner in windows.corners()], np.int32)


def read_class_map(path: Path, num_classes: int) -> UInt8[np.ndarray, "rows columns"]:
    """Returns a class map from an image file whose grey values are numbers of classes, in the order of the run.

    Raises:
        DiffpathError: no image, a coloured one, or a value that is no class.
    """
    image = read_image(path)
    grey = image[..., 0]
    fix = f"draw one whose values are 0 to {num_classes - 1}, and {OWN_CLASS} for the class of the image"
    if (image != grey[..., None]).any():
        raise DiffpathError("class map", where=path, why="it has colours", fix=fix)
    if wrong := sorted({*np.unique(grey).tolist()} - {*range(num_classes), OWN_CLASS}):
        raise DiffpathError("class map", where=path, why=f"the value {wrong[0]} is no class", fix=fix)
    return grey
