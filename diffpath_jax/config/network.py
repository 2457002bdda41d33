"""A section ``network`` to the typed config of its kind, and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffpath_jax.config.files import convert
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.networks.config import NetworkConfig, TaskName
from diffpath_jax.networks.kinds import find_kind, kind_of
from diffpath_jax.weights.safetensors_file import read_about

# Key that takes the network from a file of parameters, and the keys that stay the config's own beside it: they change
# nothing of what its parameters mean.
FROM, OWN = "from_file", ("dropout", "remat")


def network_of_file(section: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Returns the section ``network`` with every key of the file that ``from_file`` names, or as it is without one.

    Raises:
        DiffpathError: the file does not say what network it holds, or cannot be read.
    """
    own = {key: value for key, value in section.items() if key != FROM}
    source = section.get(FROM)
    if not source:
        return own
    about = read_about(Path(source))
    if not isinstance(about.get("network"), Mapping):
        fix = "name a file of `diffpath convert` or `diffpath export`"
        raise DiffpathError("key 'network.from_file'", where=where, why=f"{source} names no network", fix=fix)
    kept = {key: own[key] for key in OWN if key in own and key in about["network"]}
    return {**about["network"], **kept}


def read_network(section: object, *, task: TaskName, where: str) -> NetworkConfig:
    """The config of the network that a section ``network`` describes.

    Raises:
        DiffpathError: a kind that is unknown or for another task, a key that does not fit, or two that do not fit each
            other.
    """
    if not isinstance(section, Mapping):
        fix = "give it as a mapping with a key 'kind'"
        raise DiffpathError("section 'network'", where=where, why=f"{section!r} describes no network", fix=fix)
    section = network_of_file(section, where=where)
    kind = find_kind(section.get("kind"), task=task, where=where)
    content = {key: value for key, value in section.items() if key not in ("kind", *kind.config.FROM_DATA)}
    config = convert(kind.config, content, where=f"section 'network' of {where}")
    conflict = config.conflict()
    if conflict:
        key, why = conflict
        raise DiffpathError(f"key 'network.{key}'", where=where, why=why, fix="choose values that go together")
    return config


def network_section(config: NetworkConfig) -> dict[str, Any]:
    """The section ``network`` that describes a network, with every key."""
    return {"kind": kind_of(config).name, **config.as_json()}
