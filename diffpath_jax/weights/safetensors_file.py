"""Parameters as safetensors files, and how a network takes over those of another."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import parse_json, replace_file
from diffpath_jax.io.sealed import opened, sealed
from diffpath_jax.shapes import Tree

Flat = dict[str, np.ndarray]
# Names of both halves of a network with a state in a file.
_PARAMS, _STATE = "params", "state"
# Of the header: what is said about the arrays, and in it the digest of the arrays themselves.
_ABOUT, _ARRAYS = "diffpath", "arrays_sha256"
_FIX = "use the config of the network that the file holds"


def flatten(params: Tree) -> Flat:
    """Nested parameters as one dict, ``encoder.down.0.block.in_conv.kernel`` and the like."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {_name(path): np.asarray(leaf) for path, leaf in leaves}


def unflatten(flat: Mapping[str, Any], like: Tree) -> Tree:
    """The inverse, in the structure of ``like``."""
    return jax.tree_util.tree_map_with_path(lambda path, _: flat[_name(path)], like)


def flatten_network(params: Tree, model_state: Tree) -> Flat:
    """Parameters alone, or, of a network with running statistics, both: ``params.NAME`` and ``state.NAME``."""
    return flatten({_PARAMS: params, _STATE: model_state} if model_state else params)


def split_network(flat: Flat) -> tuple[Flat, Flat]:
    """Parameters and running statistics of what :func:`flatten_network` made, by their own names."""
    if not all(name.startswith((f"{_PARAMS}.", f"{_STATE}.")) for name in flat):
        return flat, {}
    parts: dict[str, Flat] = {_PARAMS: {}, _STATE: {}}
    for name, array in flat.items():
        group, _, own = name.partition(".")
        parts[group][own] = array
    return parts[_PARAMS], parts[_STATE]


def _name(path: tuple) -> str:
    return ".".join(str(getattr(key, "key", key)) for key in path)


def write_parameters(path: Path, params: Flat, about: Mapping[str, Any]) -> None:
    """Write a safetensors file; ``about`` goes into its header as JSON, with digests of itself and of the arrays.

    Raises:
        DiffpathError: there is no room for it (exit code 7).
    """
    contiguous = {name: np.ascontiguousarray(array) for name, array in params.items()}
    header = json.dumps(sealed({**about, _ARRAYS: _digest(contiguous)}))
    with replace_file(path) as temporary:
        try:
            safetensors.numpy.save_file(contiguous, temporary, metadata={_ABOUT: header})
        except safetensors.SafetensorError as error:
            fix = "make room there and run the same command again"
            raise DiffpathError("parameters", where=path, why=str(error), fix=fix, code=ExitCode.SYSTEM) from error


def _digest(arrays: Flat) -> str:
    """SHA-256 over names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {arrays[name].shape};".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def read_parameters(path: Path) -> tuple[Flat, dict[str, Any]]:
    """Read a safetensors file.

    Returns:
        The arrays by name, and what was written about them.

    Raises:
        DiffpathError: no such file, or not safetensors or damaged (exit code 5).
    """
    with _opened(path) as file:
        arrays, about = {name: file.get_tensor(name) for name in file.keys()}, _about(file)
        # Files of earlier versions and of other programs have no digest.
        if about.pop(_ARRAYS, None) not in (None, _digest(arrays)):
            raise ValueError("its arrays do not match their digest")
        return arrays, about


def read_about(path: Path) -> dict[str, Any]:
    """Returns what was written about the arrays of a safetensors file, which are not read.

    Raises:
        DiffpathError: no such file, or not safetensors or damaged (exit code 5).
    """
    with _opened(path) as file:
        about = _about(file)
        about.pop(_ARRAYS, None)
        return about


def _about(file: Any) -> dict[str, Any]:
    return opened(parse_json((file.metadata() or {}).get(_ABOUT, "{}").encode()), dict)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An open safetensors file; whatever is wrong with it is one line."""
    fix = "name a .safetensors file of `diffpath convert` or `diffpath export`"
    if not path.is_file():
        raise DiffpathError("parameters", where=path, why="no such file", fix=fix)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            yield file
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        why = f"not a safetensors file, or damaged ({error})"
        raise DiffpathError("parameters", where=path, why=why, fix=fix, code=ExitCode.DAMAGED) from error


def arrange(tensors: Flat, like: Tree, *, where: str) -> Tree:
    """Arrays by name in the structure of ``like``, of which shapes suffice.

    Raises:
        DiffpathError: a name is missing or left over, or a shape differs.
    """
    wanted = {_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(like)}
    _check_names(tensors, wanted, where=where)
    for name, shape in wanted.items():
        if tensors[name].shape != shape:
            raise _wrong_shape(name, tensors[name].shape, shape, where=where)
    return unflatten(tensors, like)


def _check_names(names: Collection[str], wanted: Collection[str], *, where: str) -> None:
    missing, spare = sorted(set(wanted) - set(names)), sorted(set(names) - set(wanted))
    if missing or spare:
        first = f"no {missing[0]!r}" if missing else f"{spare[0]!r} has no place"
        why = f"{len(missing)} names missing and {len(spare)} left over: {first}"
        raise DiffpathError("parameters", where=where, why=why, fix=_FIX)


def _wrong_shape(name: str, shape: tuple, wanted: tuple, *, where: str) -> DiffpathError:
    why = f"{name} has shape {shape} where {wanted} is asked for"
    return DiffpathError("parameters", where=where, why=why, fix=_FIX)


@dataclass(frozen=True)
class Adapted:
    """Parameters taken over from another network.

    Attributes:
        params: in the new network's structure.
        notes: what could not be taken over as it was, a line each.
    """

    params: Tree
    notes: tuple[str, ...]


def adapt(tensors: Flat, fresh: Tree, *, where: str) -> Adapted:
    """Fill a fresh network with the parameters of another, by name.

    Arrays of the same name and shape are copied. Otherwise:

    - a class embedding with another number of rows: every row becomes the mean of the old rows, so that each class
      (and the null class) starts as the average class;
    - the last convolution with or without channels for a learned variance: the prediction's channels are copied;
      variance channels are dropped, or start at zero, which is the middle of the range;
    - a classifier's last layer with another number of classes: the fresh one stays.

    Raises:
        DiffpathError: names are missing or left over, or another shape differs; all are counted, the first named.
    """
    wanted = flatten(fresh)
    _check_names(tensors, wanted, where=where)
    taken, notes = {}, []
    for name, own in wanted.items():
        other = tensors[name]
        if other.shape == own.shape:
            taken[name] = other.astype(own.dtype)
            continue
        axis, rule = next((rule for ending, rule in _RULES.items() if name.endswith(ending)), (None, None))
        if rule is None or _without(other.shape, axis) != _without(own.shape, axis):
            raise _wrong_shape(name, other.shape, own.shape, where=where)
        taken[name] = rule(other, own)
        notes.append(f"{name}: {other.shape} -> {own.shape}, {(rule.__doc__ or '').rstrip('.').lower()}")
    return Adapted(unflatten(taken, fresh), tuple(notes))


def _mean_row(tensor: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    """Every row the mean of the old ones."""
    return np.broadcast_to(tensor.mean(axis=0), fresh.shape).astype(fresh.dtype)


def _first_channels(tensor: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    """The channels in common, zeros for more."""
    out = np.zeros_like(fresh)
    common = min(tensor.shape[-1], fresh.shape[-1])
    out[..., :common] = tensor[..., :common]
    return out


def _keep_fresh(tensor: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    """A fresh start."""
    return fresh


# Ending of a name -> the axis that may differ, and what is done then.
_RULES: dict[str, tuple[int, Callable[[np.ndarray, np.ndarray], np.ndarray]]] = {
    "classes.embedding": (0, _mean_row),
    "out_conv.kernel": (-1, _first_channels),
    "out_conv.bias": (-1, _first_channels),
    "pool.out.kernel": (-1, _keep_fresh),
    "pool.out.bias": (-1, _keep_fresh),
    "head.kernel": (-1, _keep_fresh),
    "head.bias": (-1, _keep_fresh),
}


def _without(shape: tuple[int, ...], axis: int | None) -> list[int]:
    """The other sides of a shape."""
    sides = list(shape)
    if axis is not None and sides:
        del sides[axis]
    return sides
