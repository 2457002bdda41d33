"""Placement of arrays: the one home of meshes and of the rules by which states are split.

The mesh has two axes. Batches are split over both. Parameters, their average and the optimiser's moments are copied
along ``data`` and split along ``fsdp`` (Rajbhandari et al. 2020, "ZeRO", stage 3; XLA inserts the gathers), so one
device holds ``1 / fsdp`` of the state.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS, FSDP_AXIS = "data", "fsdp"
# Smaller arrays are copied: splitting them costs more than it saves.
MIN_SPLIT_SIZE = 2**14
# The first pattern found in an array's path decides: True splits its longest divisible axis, False copies it.
RULES: tuple[tuple[str, bool], ...] = (
    (r"window|model_state", False),
    (r"kernel|embedding|positions", True),
    (r".*", False),
)
# Batches on their way to the device while it works.
BATCHES_AHEAD = 2


def make_mesh(devices: Sequence[jax.Device] | None = None, *, fsdp: int = 1) -> Mesh:
    """Devices (default: all of all processes) as (data, fsdp).

    Raises:
        ValueError: the devices do not divide into groups of ``fsdp``.
    """
    devices = jax.devices() if devices is None else devices
    if len(devices) % fsdp:
        raise ValueError(f"{len(devices)} devices do not divide into groups of {fsdp}")
    shape = (len(devices) // fsdp, fsdp)
    # Two chips of a slice of 4 x 4 x 4 are half an axis of it, which `jax.make_mesh` would refuse.
    placed = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(placed, (DATA_AXIS, FSDP_AXIS), axis_types=(AxisType.Auto,) * 2)


def local_mesh() -> Mesh:
    """All devices of this process."""
    return make_mesh(jax.local_devices())


def abstract_mesh(count: int, *, fsdp: int = 1) -> AbstractMesh:
    """The mesh of ``count`` devices that this machine need not have."""
    return AbstractMesh((count // fsdp, fsdp), (DATA_AXIS, FSDP_AXIS))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis split over all devices."""
    return NamedSharding(mesh, PartitionSpec((DATA_AXIS, FSDP_AXIS)))


def state_shardings(shapes: Any, mesh: Mesh | AbstractMesh) -> Any:
    """Returns the sharding of each array of a state, by the rules above.

    Args:
        shapes: the state, or its shapes.
        mesh: devices.

    Returns:
        The same structure, of shardings.
    """
    parts = mesh.shape[FSDP_AXIS]

    def place(path: tuple, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path)
        split = next(split for pattern, split in RULES if re.search(pattern, name))
        axes = [axis for axis, size in enumerate(leaf.shape) if size % parts == 0]
        if parts == 1 or not split or not axes or leaf.size < MIN_SPLIT_SIZE:
            return replicated(mesh)
        spec: list[str | None] = [None] * len(leaf.shape)
        spec[max(axes, key=lambda axis: leaf.shape[axis])] = FSDP_AXIS
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree_util.tree_map_with_path(place, shapes)


def shard_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Make global arrays out of the part of the batch that this process loaded."""
    sharding = batch_sharding(mesh)
    return {key: jax.make_array_from_process_local_data(sharding, value) for key, value in batch.items()}


def prefetch(batches: Iterable[dict[str, np.ndarray]], mesh: Mesh) -> Iterator[dict[str, jax.Array]]:
    """The batches as global arrays, a few of them sent ahead of their use."""
    waiting: deque[dict[str, jax.Array]] = deque()
    for batch in batches:
        waiting.append(shard_batch(batch, mesh))
        if len(waiting) > BATCHES_AHEAD:
            yield waiting.popleft()
    yield from waiting


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copy a state to every device."""
    return jax.device_put(tree, replicated(mesh))


def from_host(array: np.ndarray, place: NamedSharding) -> jax.Array:
    """A global array out of one that every process holds whole."""
    return jax.make_array_from_callback(array.shape, place, lambda index: array[index])


def to_host(array: jax.Array) -> np.ndarray:
    """A global array as numpy, whole in every process."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
