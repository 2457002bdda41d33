"""The flips and quarter turns of a square image, by number, and the groups of them that training draws from."""

from typing import Literal

import numpy as np

Augmentation = Literal["none", "hflip", "flips", "dihedral"]


# Symmetries by number: three bits, of 90 degrees' turns (two) and, afterwards, a flip of left and right (one).
SYMMETRIES: dict[Augmentation, tuple[int, ...]] = {
    "none": (0,),
    "hflip": (0, 4),
    "flips": (0, 4, 2, 6),  # half a turn and a flip of left and right are a flip of up and down
    "dihedral": (0, 1, 2, 3, 4, 5, 6, 7),
}


def symmetric(image: np.ndarray, number: int) -> np.ndarray:
    """The copy of a square (height, width, ...) image that a symmetry's number stands for."""
    turned = np.rot90(image, number % 4)
    return np.ascontiguousarray(turned[:, ::-1] if number >= 4 else turned)
