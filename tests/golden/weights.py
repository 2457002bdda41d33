"""What both sides of a comparison with PyTorch share: weights and inputs by name, and the error.

Nothing here imports JAX or PyTorch. Numbers come from numpy's RandomState, whose stream never changes.
"""

import math
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path as FilePath
from typing import Any

import numpy as np


def load(name: str) -> dict[str, np.ndarray]:
    """The arrays of a golden file."""
    with np.load(FilePath(__file__).parent / name) as arrays:
        return dict(arrays)


def relative_error(ours: Any, reference: np.ndarray) -> float:
    """Largest difference in units of the largest number of the reference; infinite where shapes or NaNs differ."""
    ours = np.asarray(ours, np.float64)
    if ours.shape != reference.shape or not np.isfinite(ours).all():
        return math.inf
    return float(np.abs(ours - reference).max() / np.abs(reference).max())


def normal(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers that belong to a name, float32."""
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)


def integers(name: str, high: int, shape: tuple[int, ...]) -> np.ndarray:
    """Integers below ``high`` that belong to a name."""
    return np.random.RandomState(zlib.crc32(name.encode())).randint(0, high, shape)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A parameter: no layer is zero, and activations stay of order one (norms near 1, biases near 0).

    Running variances are near a half, which makes up for the half that ReLU takes.
    """
    if name.endswith("running_var"):
        return np.exp(0.2 * normal(name, shape)) / 2
    if len(shape) == 1:
        return 0.1 * normal(name, shape) + np.float32(name.endswith("weight"))
    return normal(name, shape) / np.float32(math.sqrt(math.prod(shape[1:])))


def listing(shapes: Mapping[str, Iterable[int]]) -> np.ndarray:
    """Names and shapes of parameters, for a golden file."""
    return np.array([f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items()])


def state_dict(lines: np.ndarray) -> dict[str, np.ndarray]:
    """The parameters of a :func:`listing`, in its order."""
    parts = (str(line).split() for line in lines)
    return {name: weight(name, tuple(map(int, shape.split("x")))) for name, shape in parts}


def features(name: str, count: int, dimension: int) -> np.ndarray:
    """Features that look like a network's: correlated, none negative, with directions of very different spread."""
    mixed = normal(name, (count, dimension)) @ (weight("features.weight", (dimension, dimension)) + np.eye(dimension))
    return np.maximum(mixed * np.geomspace(1, 0.02, dimension) + 0.4 + 0.1 * (name[-1] == "y"), 0).astype(np.float32)
