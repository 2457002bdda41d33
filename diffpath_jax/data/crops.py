"""Crops: batches cut to square pieces, as many micrometres to a pixel as before.

A crop costs less than the image it is of, and a network that has seen crops of several sides draws images of several
sides (Wang et al. 2023, "Patch Diffusion"; here without coordinates, as a piece of tissue has no place of its own).
"""

from dataclasses import dataclass

import grain
import numpy as np

# What a batch holds that has height and width.
_FIELDS = ("image", "latent")


@dataclass(frozen=True)
class Crops:
    """The sides that batches are cut to; a function of the seed and of the batch's number alone.

    Attributes:
        sides: in pixels, or places of stored latents, of which each batch has one, drawn evenly.
        steps: batches that are cut, the first ones of a run; 0 for all.
        seed: of sides and places.
    """

    sides: tuple[int, ...]
    steps: int
    seed: int

    def is_cut(self, number: int) -> bool:
        """Returns true where a batch is cut."""
        return not self.steps or number < self.steps


@dataclass(frozen=True)
class Crop(grain.transforms.MapWithIndex):
    """Cut batches, each image at a place of its own.

    Attributes:
        crops: sides.
        part: this process's images in the global batch: the first, and the one after the last.
        batch_size: images of the global batch.
    """

    crops: Crops
    part: tuple[int, int]
    batch_size: int

    def map_with_index(self, index: int, element: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Cut the images, or latents, of batch ``index``."""
        if not self.crops.is_cut(index):
            return element
        rng = np.random.default_rng([self.crops.seed, index])
        side = int(rng.choice(self.crops.sides))
        # Drawn for the global batch, so that it is the same for any number of processes.
        places = rng.random((self.batch_size, 2))[slice(*self.part)]
        return {name: _cut(value, side, places) if name in _FIELDS else value for name, value in element.items()}


def _cut(images: np.ndarray, side: int, places: np.ndarray) -> np.ndarray:
    """Returns a square of each image, whose corner lies at a share of the room that there is."""
    room = np.array(images.shape[1:3]) - side
    corners = (places * (room + 1)).astype(int)
    return np.stack([image[y : y + side, x : x + side] for image, (y, x) in zip(images, corners, strict=True)])
