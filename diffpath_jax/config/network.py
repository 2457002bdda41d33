"""A section ``network`` to the typed config of its kind, and back."""

from collections.abc import Mapping
from typing import Any

from diffpath_jax.config.files import convert
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.networks.config import NetworkConfig, TaskName
from diffpath_jax.networks.kinds import find_kind, kind_of


def read_network(section: object, *, task: TaskName, where: str) -> NetworkConfig:
    """The config of the network that a section ``network`` describes.

    Raises:
        DiffpathError: a kind that is unknown or for another task, a key that does not fit, or two that do not fit each
            other.
    """
    if not isinstance(section, Mapping):
        fix = "give it as a mapping with a key 'kind'"
        raise DiffpathError("section 'network'", where=where, why=f"{section!r} describes no network", fix=fix)
    kind = find_kind(section.get("kind"), task=task, where=where)
    content = {key: value for key, value in section.items() if key not in ("kind", *kind.config.FROM_DATA)}
    config = convert(kind.config, content, where=f"section 'network' of {where}")
    conflict = config.conflict()
    if conflict:
        key, why = conflict
        raise DiffpathError(f"key 'network.{key}'", where=where, why=why, fix="choose numbers that divide")
    return config


def network_section(config: NetworkConfig) -> dict[str, Any]:
    """The section ``network`` that describes a network, with every key."""
    return {"kind": kind_of(config).name, **config.as_json()}
