"""Checkpoints of other projects: read without running pickles, and their arrays put in our places, strictly.

The only place that knows PyTorch. A checkpoint is read with ``torch.load(weights_only=True)``, or from safetensors.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from diffpath_jax.errors import DiffpathError, ExitCode
from diffpath_jax.networks.adm import AdmConfig
from diffpath_jax.parameters import Flat, read_parameters
from diffpath_jax.shapes import Tree

Path = tuple[str | int, ...]

# Ours -> PyTorch's: the last word of a parameter's name.
LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "bias": "bias",
    "positions": "positional_embedding",
}


def layers(table: Mapping[str, str], path: Path = (), prefix: str = "") -> dict[Path, str]:
    """Path of each layer of a block in our tree -> its published name; dots part the steps of a path within it."""
    return {
        (*path, *_steps(ours)): ".".join(part for part in (prefix, theirs) if part) for ours, theirs in table.items()
    }


def _steps(text: str) -> Path:
    return tuple(int(step) if step.isdecimal() else step for step in text.split(".") if step)


def _ours(kind: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """PyTorch's layout -> ours: OIHW -> HWIO, (out, in, 1...) -> (in, out), positions last -> positions first."""
    if kind == "kernel" and len(shape) == 4:
        return value.transpose(2, 3, 1, 0)
    if kind == "kernel":
        return value.reshape(value.shape[:2]).T
    return value.T if kind == "positions" else value


def fill(like: Tree, names: Mapping[Path, str], state: Mapping[str, np.ndarray]) -> dict:
    """Our parameters from PyTorch's.

    Args:
        like: our tree; leaves need a shape only.
        names: path of each layer of ours -> its name; more than ``like`` has do no harm.
        state: PyTorch's parameters by name.

    Raises:
        ValueError: a leaf finds no array or one of another shape, or an array is not used or used twice.
    """
    left = dict(state)

    def take(path: Path, leaf: Any) -> np.ndarray:
        layer, kind = path[:-1], str(path[-1])
        if layer not in names:
            raise ValueError(f"no name for {path}")
        name = ".".join(part for part in (names[layer], LEAVES[kind]) if part)
        if name not in left:
            raise ValueError(f"{name} ({path}) is missing or was used before")
        value = left.pop(name)
        array = _ours(kind, value, leaf.shape)
        if array.shape != leaf.shape:
            raise ValueError(f"{name} {value.shape} does not fit {path} {leaf.shape}")
        return np.ascontiguousarray(array)

    def walk(path: Path, tree: Any) -> Any:
        if isinstance(tree, Mapping):
            return {key: walk((*path, key), value) for key, value in tree.items()}
        return take(path, tree)

    filled = walk((), like)
    if left:
        raise ValueError(f"not used: {sorted(left)}")
    return filled


@dataclass(frozen=True)
class Converted:
    """A checkpoint in our form.

    Attributes:
        kind: the network's name, in a config where it can be trained.
        config: its shape; none where it has only one.
        params: its parameters.
    """

    kind: str
    config: AdmConfig | None
    params: Tree

    def about(self) -> dict[str, Any]:
        """What a config must say to use the parameters."""
        return {"network": {"kind": self.kind, **(asdict(self.config) if self.config else {})}}


def read_torch(path: FilePath) -> Flat:
    """Arrays of a PyTorch checkpoint by name, float32; safetensors are read without PyTorch.

    Raises:
        DiffpathError: no such file, PyTorch is missing, or the file holds anything but arrays (exit code 5).
    """
    if path.suffix == ".safetensors":
        return read_parameters(path)[0]
    if not path.is_file():
        raise DiffpathError("checkpoint", where=path, why="no such file", fix="check the path")
    try:
        import torch
    except ImportError:
        fix = "install PyTorch (its CPU build is enough), or give a .safetensors file"
        raise DiffpathError("checkpoint", where=path, why="PyTorch is not installed", fix=fix) from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return {name: value.float().numpy() for name, value in content.items()}
    except Exception as error:
        why = f"not a PyTorch file of arrays alone ({str(error).strip().splitlines()[0][:120]})"
        fix = "save its state_dict: a dict of names and tensors"
        raise DiffpathError("checkpoint", where=path, why=why, fix=fix, code=ExitCode.DAMAGED) from error
