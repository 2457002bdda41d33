"""The origin that a file of parameters states, compared with the network that is to start from it."""

from collections.abc import Mapping
from typing import Any

from diffpath_jax.io.errors import DiffpathError

# Keys of a network that may differ: rules of :func:`diffpath_jax.weights.safetensors_file.adapt` bridge the first two,
# the others change nothing of what the parameters mean.
MAY_DIFFER = ("num_classes", "learn_sigma", "dropout", "remat")


def origin_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """Returns ``network``, ``noise`` and ``prediction`` of what a file or a run says of itself, where it says so.

    Args:
        about: header of a file of ``diffpath convert`` or ``diffpath export``, or the config of a run.
    """
    config = about.get("config", about)
    objective = config.get("diffusion") or {}
    parts = {
        "network": about.get("network") or config.get("network"),
        "noise": about.get("noise") or config.get("noise"),
        "prediction": about.get("prediction") or objective.get("prediction"),
    }
    return {name: value for name, value in parts.items() if value}


def check_origin(
    origin: Mapping[str, Any], own: Mapping[str, Any], *, defaults: Mapping[str, Any], where: str
) -> list[str]:
    """Hold what the parameters came from against what is to start from them.

    Shapes do not tell everything: another number of heads, another arrangement of the stem, another noise fit the same
    arrays and make other numbers of them.

    Args:
        origin: as :func:`origin_of` gives it for the file.
        own: the same for the new run.
        defaults: of its network's keys, which came to be one after the other.
        where: the file, for errors.

    Returns:
        What the new run has to learn anew, a line each.

    Raises:
        DiffpathError: the networks differ in a key that decides what the parameters mean.
    """
    if "network" not in origin:
        return ["the file does not say what network it holds: heads, stem and noise are taken to be this config's"]
    theirs, ours = _plain({**defaults, **origin["network"]}), _plain(own["network"])
    different = [key for key in theirs if key in ours and key not in MAY_DIFFER and theirs[key] != ours[key]]
    if different:
        why = ", ".join(f"{key} is {theirs[key]!r} there and {ours[key]!r} here" for key in different)
        keys = " ".join(f"--config.network.{key}={_typed(theirs[key])}" for key in different)
        raise DiffpathError("network of train.init_from", where=where, why=why, fix=f"add {keys}")
    notes = []
    for part in ("noise", "prediction"):
        if part in origin and part in own and (changed := _changed(origin[part], own[part])):
            notes.append(f"{part} was {changed}: the network has to learn that anew")
    return notes


def _changed(theirs: Any, ours: Any) -> str:
    """Both sides in words where they differ; of two sections, their keys that do."""
    if not isinstance(theirs, Mapping):
        return "" if theirs == ours else f"{theirs} and is {ours}"
    keys = [key for key in theirs if key in ours and theirs[key] != ours[key]]
    return ", ".join(f"{key} {theirs[key]} and is {ours[key]}" for key in keys)


def _plain(network: Mapping[str, Any]) -> dict[str, Any]:
    """With tuples for lists, as JSON gives them back."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in network.items()}


def _typed(value: Any) -> str:
    """A value as it is typed on a command line."""
    return f"'{value}'" if isinstance(value, tuple) else str(value)
