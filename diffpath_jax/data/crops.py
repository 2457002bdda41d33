"""Crops: batches cut to square pieces, as many micrometres to a pixel as before.

A crop costs less than the image it is of, and a network that has seen crops of several sides draws images of several
sides (Wang et al. 2023, "Patch Diffusion"; here without coordinates, as a piece of tissue has no place of its own).
"""

from dataclasses import dataclass

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

    def cut(
        self, batch: dict[str, np.ndarray], number: int, *, part: tuple[int, int], batch_size: int
    ) -> dict[str, np.ndarray]:
        """Returns a batch, cut to the side that belongs to its number, each image at a place of its own.

        Args:
            batch: a process's part of the global batch.
            number: of the batch.
            part: of the process: its first image in the global batch, and the one after its last.
            batch_size: images of the global batch, for which places are drawn, so that it is the same for any number
                of processes.
        """
        if not self.is_cut(number):
            return batch
        rng = np.random.default_rng([self.seed, number])
        side = int(rng.choice(self.sides))
        places = rng.random((batch_size, 2))[slice(*part)]
        return {name: _cut(value, side, places) if name in _FIELDS else value for name, value in batch.items()}


def _cut(images: np.ndarray, side: int, places: np.ndarray) -> np.ndarray:
    """Returns a square of each image, whose corner lies at a share of the room that there is."""
    room = np.array(images.shape[1:3]) - side
    corners = (places * (room + 1)).astype(int)
    return np.stack([image[y : y + side, x : x + side] for image, (y, x) in zip(images, corners, strict=True)])
