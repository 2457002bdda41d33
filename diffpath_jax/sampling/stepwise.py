"""Large fields step by step, each step a program of its own: a killed job goes on from the steps that it has made."""

import dataclasses
import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Int, UInt8

from diffpath_jax.data.npz_images import UNREADABLE
from diffpath_jax.devices import sharding
from diffpath_jax.diffusion.samplers import loop
from diffpath_jax.io.files import replace_file
from diffpath_jax.io.progress import console
from diffpath_jax.io.sealed import SEAL
from diffpath_jax.sampling.draw import Draw, Recipe, on_each_device
from diffpath_jax.shapes import Conditions, Labels, PixelImages, PRNGKey, Tree

# Seconds after which what a batch has become is written down.
KEEP_EVERY = 60.0
# What a batch has become: the images between two calls, and the arrays of the sampler's state.
Arrays = tuple[jax.Array, ...]
Starts = Mapping[str, jax.Array]


def make_stepwise_draw(recipe: Recipe, *, mesh: Mesh, file: Path) -> Draw:
    """Returns a function that draws a batch as that of ``make_draw``, and goes on from the steps that were kept.

    Args:
        recipe: how images are drawn.
        mesh: devices.
        file: where the state of one batch is kept; whoever names it sees to it that it belongs to the same job.
    """

    def begin(weights: Tree, key: PRNGKey, numbers: Labels, conditions: Conditions, starts: Starts) -> Arrays:
        x, state, _ = recipe.ready(weights, key, numbers, conditions, starts).drawing
        return x, *state

    def advance(
        weights: Tree,
        key: PRNGKey,
        numbers: Labels,
        conditions: Conditions,
        starts: Starts,
        arrays: Arrays,
        calls: Int[Array, "_"],
    ) -> Arrays:
        ready = recipe.ready(weights, key, numbers, conditions, starts)
        drawing = loop.Drawing(arrays[0], arrays[1:], ready.drawing.trajectory)
        x, state, _ = recipe.advance(dataclasses.replace(ready, drawing=drawing), calls)
        return x, *state

    split, whole = sharding.batch_sharding(mesh).spec, PartitionSpec()
    batch = (whole, whole, split, split, split)
    begin_fn = on_each_device(begin, mesh, batch, split)
    advance_fn = on_each_device(advance, mesh, (*batch, split, whole), split, donate=5)
    decode_fn = on_each_device(recipe.decode, mesh, (whole, split, split), split)

    def draw(
        weights: Tree, key: PRNGKey, numbers: Labels, conditions: Conditions, starts: Starts
    ) -> tuple[PixelImages, UInt8[Array, "frames b h w 3"]]:
        inputs, last = (weights, key, numbers, conditions, starts), recipe.sampler.num_evaluations
        first, arrays = read_state(file, np.asarray(numbers)) or (0, begin_fn(*inputs))
        kept = time.monotonic()
        for call in range(first, last):
            arrays = advance_fn(*inputs, arrays, jnp.array([call]))
            if time.monotonic() - kept > KEEP_EVERY and call + 1 < last:
                write_state(file, np.asarray(numbers), call + 1, arrays)
                console.print(f"{call + 1} of {last} steps are made and kept", soft_wrap=True)
                kept = time.monotonic()
        images = decode_fn(weights, arrays[0], starts)
        return images, jnp.zeros((0, *images.shape), jnp.uint8)

    return draw


def write_state(file: Path, numbers: Int[np.ndarray, "b"], calls: int, arrays: Arrays) -> None:
    """Write down what a batch has become after some calls of the network, with a digest over all of it."""
    parts: dict[str, Any] = {f"array_{i}": np.asarray(array) for i, array in enumerate(arrays)}
    parts |= {"numbers": numbers, "calls": np.asarray(calls)}
    with replace_file(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **{**parts, SEAL: np.asarray(_digest(parts))})


def read_state(file: Path, numbers: Int[np.ndarray, "b"]) -> tuple[int, Arrays] | None:
    """Returns the calls that a batch has had and what it has become; none where it was not kept, or is damaged."""
    if not file.exists():
        return None
    try:
        with np.load(file, allow_pickle=False) as stored:
            if not np.array_equal(stored["numbers"], numbers):
                return None
            parts = {name: stored[name] for name in stored.files if name != SEAL}
            # Earlier versions kept none.
            if SEAL in stored.files and str(stored[SEAL]) != _digest(parts):
                return None
            return int(parts["calls"]), tuple(jnp.asarray(parts[f"array_{i}"]) for i in range(len(parts) - 2))
    except UNREADABLE:
        return None


def _digest(parts: Mapping[str, np.ndarray]) -> str:
    """Zip's own checksums are passed over where a damaged header asks for fewer numbers than there are."""
    digest = hashlib.sha256()
    for name, array in sorted(parts.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()
