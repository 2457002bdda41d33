"""Arrays by published names for a network of ours, in PyTorch's layout: what a checkpoint of it would hold."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffpath_jax.networks.pure import purify
from diffpath_jax.weights import torch_files


def shapes(module: Callable[..., nnx.Module], config: object) -> dict:
    """Shapes of a network's parameters."""
    network = purify(lambda rngs: module(config, dtype=jnp.float32, rngs=rngs))
    return jax.eval_shape(network.init, jax.random.key(0))[0]


def empty(like: dict, names: dict[torch_files.Path, str]) -> dict[str, np.ndarray]:
    """Zeros by name that take no memory.

    Args:
        like: shapes of our parameters.
        names: path of each layer of ours -> its published name.
    """
    state = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(like):
        *layer, kind = (key.key for key in path)
        shape = leaf.shape[::-1] if kind == "positions" else leaf.shape
        if kind == "kernel":
            inputs, outputs = shape[-2:]
            shape = (outputs, inputs, *shape[:-2])
        name = ".".join(part for part in (names[tuple(layer)], torch_files.LEAVES[kind]) if part)
        state[name] = np.broadcast_to(np.float32(0), shape)
    return state
