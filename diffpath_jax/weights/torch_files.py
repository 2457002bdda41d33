"""Checkpoints of other projects: read without running pickles, and their arrays put in our places, strictly.

The only place that knows PyTorch. A checkpoint is read with ``torch.load(weights_only=True)``, or from safetensors.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path as FilePath
from types import ModuleType
from typing import Any

import numpy as np

from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import replace_file
from diffpath_jax.networks.adm import AdmConfig
from diffpath_jax.networks.autoencoder import AutoencoderConfig
from diffpath_jax.networks.resnet import ResNetConfig
from diffpath_jax.shapes import Tree
from diffpath_jax.weights.safetensors_file import Flat, read_parameters

Path = tuple[str | int, ...]

# Names that an error tells, of those that have no place.
_NAMED = 5

# Ours -> PyTorch's: the last word of the name of a parameter, or of a norm's running statistics.
LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "bias": "bias",
    "positions": "positional_embedding",
    "mean": "running_mean",
    "var": "running_var",
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
        ValueError: a leaf finds no array or one of another shape, an array is not used or used twice, or a number is
            not finite.
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
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds a number that is not finite")
        return np.ascontiguousarray(array)

    def walk(path: Path, tree: Any) -> Any:
        if isinstance(tree, Mapping):
            return {key: walk((*path, key), value) for key, value in tree.items()}
        return take(path, tree)

    filled = walk((), like)
    if left:
        names_left = sorted(left)
        more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
        raise ValueError(f"not used: {', '.join(names_left[:_NAMED])}{more}")
    return filled


def spill(params: Tree, names: Mapping[Path, str]) -> Flat:
    """PyTorch's parameters from ours, in its layout: the inverse of :func:`fill`, but for convolutions of one pixel.

    Args:
        params: our tree.
        names: path of each layer of ours -> its name.

    Raises:
        KeyError: a layer has no name.
    """
    state: Flat = {}

    def walk(path: Path, tree: Any) -> None:
        if isinstance(tree, Mapping):
            for key, value in tree.items():
                walk((*path, key), value)
            return
        kind, array = str(path[-1]), np.asarray(tree)
        name = ".".join(part for part in (names[path[:-1]], LEAVES[kind]) if part)
        state[name] = np.ascontiguousarray(_theirs(kind, array))

    walk((), params)
    return state


def _theirs(kind: str, array: np.ndarray) -> np.ndarray:
    """Our layout -> PyTorch's."""
    if kind == "kernel" and array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.T if kind in ("kernel", "positions") else array


@contextlib.contextmanager
def expecting(what: str, found: Collection[str], *, where: str, fix: str) -> Iterator[None]:
    """Arrays that are not those of ``what`` are the user's error.

    Args:
        what: is read.
        found: names of the arrays that there are.
        where: the file, for errors.
        fix: what helps.

    Raises:
        DiffpathError: a name was missing, or a shape did not fit (exit code 5).
    """
    try:
        yield
    except (ValueError, KeyError, IndexError, ZeroDivisionError) as error:
        reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else error
        why = f"not {what} ({reason}); its {len(found)} arrays are called {', '.join(sorted(found)[:2])} and so on"
        raise DiffpathError("checkpoint", where=where, why=why, fix=fix, code=ExitCode.DAMAGED) from error


def own_names(
    state: Iterable[str], prefix: str, *, average: str, raw_parameters: bool, other: tuple[str, ...] = ()
) -> dict[str, str]:
    """Places of a network in a checkpoint: each parameter's name within the network -> its name in the checkpoint.

    Args:
        state: names in the checkpoint.
        prefix: what those of the network begin with.
        average: what those of its moving averages begin with; there a parameter's own name follows without its dots.
        raw_parameters: the parameters even where there are averages.
        other: what the names of something else begin with.
    """
    apart = (average, *other)
    names = {
        name.removeprefix(prefix): name for name in state if name.startswith(prefix) and not name.startswith(apart)
    }
    if not raw_parameters and any(name.startswith(average) for name in state):
        return {own: average + own.replace(".", "") for own in names}
    return names


def first_words(names: Iterable[str]) -> dict[str, int]:
    """Counts names by their first word, up to a dot."""
    return dict(Counter(name.partition(".")[0] for name in names))


@dataclass(frozen=True)
class Converted:
    """A checkpoint in our form.

    Attributes:
        kind: the network's name, in a config where it can be trained.
        config: its shape; none where it has only one.
        params: its parameters.
        model_state: its running statistics, where it has any.
        details: what else is known of them.
        unused: arrays of the checkpoint that belong to something else: first word of their names -> how many.
        notes: what was assumed, a line each.
    """

    kind: str
    config: AdmConfig | AutoencoderConfig | ResNetConfig | None
    params: Tree
    model_state: Tree = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    unused: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def about(self) -> dict[str, Any]:
        """Keys a config needs to use the parameters, and what else is known of them."""
        return {"network": {"kind": self.kind, **(asdict(self.config) if self.config else {})}, **self.details}


# Classes that checkpoints name beside the weights, of PyTorch Lightning and of command lines; they are read as empty
# ones of ours.
_BESIDE = (
    "argparse.Namespace",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint",
)


class _Unread:
    """Stands for a class of another package, none of whose code runs."""


# Where training code keeps its weights within what it saves; the first of a line that is there is meant.
_ENTRIES = (
    "state_dict",
    "model_state_dict",
    "model",
    "ema",
    "ema_model",
    "params_ema",
    "params",
    "net",
    "network",
    "unet",
)
# What wrappers put before every name: data parallel training, ``torch.compile``, averages, a Lightning module.
_WRAPPERS = ("module.", "_orig_mod.", "ema_model.", "model.", "net.")
# Names that only begin like a wrapper's.
_NO_WRAPPER = ("model.diffusion_model.",)
# What averages count in, which is no part of a network.
_COUNTERS = ("n_averaged", "initted", "step")


def arrays_of(content: Any, *, where: str, entry: str = "") -> Flat:
    """The arrays of a network in what a training program saved: by itself, or as an entry of a dict of other things.

    Args:
        content: what the file holds: names and tensors, or a dict of such dicts.
        where: the file, for errors.
        entry: the entry to take; empty for the only one there is.

    Raises:
        DiffpathError: there are no arrays, or several entries that hold some (exit code 5); what is there is named.
    """
    if not isinstance(content, Mapping):
        raise _unreadable(where, f"it holds a {type(content).__name__}, not names and tensors", "save its state_dict")
    if _named_arrays(content):
        return _unwrapped(_named_arrays(content))
    held = {str(name): _named_arrays(value) for name, value in content.items() if isinstance(value, Mapping)}
    held = {name: arrays for name, arrays in held.items() if arrays}
    if not entry:
        known = [name for name in _ENTRIES if name in held]
        if len(known) > 1 and known[0] != "state_dict":
            raise _unreadable(where, f"it holds {' and '.join(known)}", "choose one of them with --entry")
        entry = known[0] if known else next(iter(held), "") if len(held) == 1 else ""
    if entry not in held:
        found = ", ".join(map(str, list(content)[:_NAMED])) or "nothing"
        raise _unreadable(where, f"no entry of it holds the arrays of a network: it has {found}", "save its state_dict")
    return _unwrapped(held[entry])


def _named_arrays(content: Mapping[Any, Any]) -> Flat:
    """The tensors of a dict by name, float32; nothing where its tensors are not under names with dots or parts."""
    return {
        name: value.float().numpy()
        for name, value in content.items()
        if isinstance(name, str) and hasattr(value, "float") and hasattr(value, "numpy")
    }


def _unwrapped(arrays: Flat) -> Flat:
    """Without counters, and without what a wrapper put before every name."""
    arrays = {name: array for name, array in arrays.items() if name not in _COUNTERS}
    while prefix := next((word for word in _WRAPPERS if all(name.startswith(word) for name in arrays)), None):
        if not arrays or any(name.startswith(_NO_WRAPPER) for name in arrays):
            break
        arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
        arrays = {name: array for name, array in arrays.items() if name not in _COUNTERS}
    return arrays


def _unreadable(where: Any, why: str, fix: str) -> DiffpathError:
    return DiffpathError("checkpoint", where=where, why=why, fix=fix, code=ExitCode.DAMAGED)


# How PyTorch names, in its long message, the class that it will not make.
_CLASS = re.compile(r"(?:GLOBAL|global|Unsupported class|Unsupported operand)\s+`?([A-Za-z_][\w.]+)`?")


def _refused_class(error: Exception) -> str:
    """Returns the reason of an error of unpickling, in one line."""
    found = _CLASS.search(re.sub(r"\x1b\[[0-9;]*m", "", str(error)))
    if found:
        return f"it holds an object of class {found[1]}, whose code would have to run"
    return "it is no file of torch.save, or it is damaged"


def read_torch(path: FilePath, *, entry: str = "") -> Flat:
    """Arrays of a PyTorch checkpoint by name, float32; safetensors are read without PyTorch.

    Args:
        path: what ``torch.save`` wrote: a network's arrays, or a dict with them and other things, such as a checkpoint
            of PyTorch Lightning.
        entry: which entry of such a dict holds them; empty for the only one.

    Raises:
        DiffpathError: no such file, PyTorch is missing, or the file holds anything but arrays (exit code 5).
    """
    if path.suffix == ".safetensors":
        return _unwrapped({name: np.asarray(array, np.float32) for name, array in read_parameters(path)[0].items()})
    if not path.is_file():
        raise DiffpathError("checkpoint", where=path, why="no such file", fix="check the path")
    torch = _import_torch(path, fix="install PyTorch (its CPU build is enough), or give a .safetensors file")
    try:
        with torch.serialization.safe_globals([(_Unread, name) for name in _BESIDE]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        why = f"not a PyTorch file of arrays alone: {_refused_class(error)}"
        raise _unreadable(path, why, "save its state_dict: a dict of names and tensors") from error
    return arrays_of(content, where=str(path), entry=entry)


def write_torch(path: FilePath, state: Flat) -> None:
    """Write arrays as ``torch.save`` does: names and tensors.

    Raises:
        DiffpathError: PyTorch is missing.
    """
    torch = _import_torch(path, fix="install PyTorch (its CPU build is enough), or export a .safetensors file")
    with replace_file(path) as temporary:
        torch.save({name: torch.from_numpy(np.array(array)) for name, array in state.items()}, temporary)


def _import_torch(path: FilePath, *, fix: str) -> ModuleType:
    try:
        import torch
    except ImportError:
        raise DiffpathError("checkpoint", where=path, why="PyTorch is not installed", fix=fix) from None
    return torch
