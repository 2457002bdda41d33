"""A network over any number of images: batches of one size, split over the devices of this process."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from diffpath_jax.devices import sharding

# Images a device sees at once.
BATCH = 64

# (weights, (n, h, w, 3) uint8 images) -> arrays of n rows, as the network returns them
Batched = Callable[[Any, np.ndarray], Any]


def batched(function: Callable[[Any, jax.Array], Any]) -> Batched:
    """Run a function of weights and images over any number of images.

    It is compiled once for each size of image. The last batch is filled up, and what is over thrown away.

    Args:
        function: (weights, uint8 images of one batch) -> arrays with a row an image; traced.
    """
    mesh = sharding.local_mesh()
    everywhere, split = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    compiled = jax.jit(function, in_shardings=(everywhere, split), out_shardings=split)
    size = BATCH * mesh.size

    def run(weights: Any, images: UInt8[np.ndarray, "n h w 3"]) -> Any:
        parts = []
        for start in range(0, len(images), size):
            block = images[start : start + size]
            fill = np.zeros((size - len(block), *block.shape[1:]), np.uint8)
            parts.append(jax.device_get(compiled(weights, np.concatenate([block, fill]))))
        return jax.tree.map(lambda *arrays: np.concatenate(arrays)[: len(images)], *parts)

    return run
