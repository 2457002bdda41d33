"""A network over any number of images: batches of one size, split over the devices of this process."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from diffpath_jax.devices import sharding

# Images a device sees at once.
BATCH = 64

# (weights, n images, or a tree of arrays with a row for each) -> arrays of n rows, as the network returns them
Batched = Callable[[Any, Any], Any]


def batched(function: Callable[[Any, Any], Any]) -> Batched:
    """Run a function of weights and images over any number of images.

    It is compiled once for each size of image. The last batch is filled up, and what is over thrown away.

    Args:
        function: (weights, uint8 images of one batch, or a tree of arrays with a row an image) -> arrays with a row an
            image; traced.
    """
    mesh = sharding.local_mesh()
    everywhere, split = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    compiled = jax.jit(function, in_shardings=(everywhere, split), out_shardings=split)
    size = BATCH * mesh.size

    def run(weights: Any, images: Any) -> Any:
        count = len(jax.tree.leaves(images)[0])
        parts = []
        for start in range(0, count, size):
            block = jax.tree.map(lambda rows, start=start: _filled(rows[start : start + size], size), images)
            parts.append(jax.device_get(compiled(weights, block)))
        return jax.tree.map(lambda *arrays: np.concatenate(arrays)[:count], *parts)

    return run


def _filled(rows: np.ndarray, size: int) -> np.ndarray:
    """Returns the rows and further ones of zeros, ``size`` in all."""
    return np.concatenate([rows, np.zeros((size - len(rows), *rows.shape[1:]), rows.dtype)])
