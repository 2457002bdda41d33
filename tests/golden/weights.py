"""What both sides of a comparison with PyTorch share: weights and inputs by name, the table of names, the error.

Nothing here imports JAX or PyTorch. Numbers come from numpy's RandomState, whose stream never changes.
"""

import math
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path as FilePath
from typing import Any

import numpy as np

Path = tuple[str | int, ...]
Tree = Mapping[Any, Any]


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
    """A parameter: no layer is zero, and activations stay of order one (norms near 1, biases near 0)."""
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


# Ours -> guided-diffusion's, inside a block; what a block does not have is not asked for.
BLOCK = {
    "in_norm": "in_layers.0",
    "in_conv": "in_layers.2",
    "condition": "emb_layers.1",
    "out_norm": "out_layers.0",
    "out_conv": "out_layers.3",
    "skip": "skip_connection",
}
DOWN, UP = {"conv": "op"}, {"conv": "conv"}
ATTENTION = {"norm": "norm", "qkv": "qkv", "out": "proj_out"}
POOL = {"": "", "qkv": "qkv_proj", "out": "c_proj"}
LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "bias": "bias",
    "positions": "positional_embedding",
}


def layers(table: Mapping[str, str], path: Path = (), prefix: str = "") -> dict[Path, str]:
    """Path of each layer of a block in our tree -> its published name."""
    return {
        (*path, *([ours] if ours else [])): ".".join(part for part in (prefix, theirs) if part)
        for ours, theirs in table.items()
    }


def adm_names(like: Tree) -> dict[Path, str]:
    """Path of each layer in our UNet or noisy classifier -> its name in guided-diffusion.

    There every stage of ours is one or two neighbours in a numbered sequence: the block, then its attention.
    """
    names: dict[Path, str] = {
        ("time", "into"): "time_embed.0",
        ("time", "out"): "time_embed.2",
        ("classes",): "label_emb",
        ("encoder", "stem"): "input_blocks.0.0",
        ("out_norm",): "out.0",
        ("out_conv",): "out.2",
        **layers(POOL, ("pool",), "out.2"),
    }
    encoder, decoder = like["encoder"], like.get("decoder", {})
    sequences: dict[str, list[Path]] = {f"input_blocks.{i + 1}": [("encoder", "down", i)] for i in encoder["down"]}
    sequences["middle_block"] = [("encoder", "middle", i) for i in encoder["middle"]]
    sequences |= {f"output_blocks.{i}": [("decoder", i, j) for j in stages] for i, stages in decoder.items()}
    for sequence, paths in sequences.items():
        number = 0
        for path in paths:
            stage = like
            for key in path:
                stage = stage[key]
            tables = {"block": BLOCK | (UP if path[0] == "decoder" else DOWN), "attention": ATTENTION}
            for part in tables.keys() & stage.keys():
                place = number + (part == "attention")
                names |= layers(tables[part], (*path, part), f"{sequence}.{place}")
            number += len(stage)
    return names


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


def adm_params(state: Mapping[str, np.ndarray], like: Tree) -> dict:
    """Parameters of our UNet or noisy classifier from those of guided-diffusion; ``like`` is our tree (of shapes)."""
    return fill(like, adm_names(like), state)
