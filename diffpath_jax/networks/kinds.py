"""Every kind of network that a config can name. ``KINDS.register(kind)`` adds one from outside the package."""

import jax.numpy as jnp
from jax.typing import DTypeLike

from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.registry import Registry
from diffpath_jax.networks import autoencoder, classifier_adm, resnet, unet_adm, unet_authors, unet_ldm
from diffpath_jax.networks.config import NetworkConfig, NetworkKind, TaskName
from diffpath_jax.networks.pure import PureNetwork, purify

KINDS: Registry[NetworkKind] = Registry(
    "network",
    (
        unet_adm.KIND,
        unet_authors.KIND,
        unet_ldm.KIND,
        resnet.KIND,
        classifier_adm.KIND,
        autoencoder.VQ,
        autoencoder.KL,
    ),
    unique={"config": lambda kind: kind.config},
)


def kinds_for(task: TaskName) -> list[str]:
    """Names of the kinds that can be trained for a task."""
    return [name for name, kind in KINDS.items() if kind.task == task]


def find_kind(name: object, *, task: TaskName, where: str) -> NetworkKind:
    """The kind of a name.

    Raises:
        DiffpathError: there is none, or it is for another task.
    """
    known = kinds_for(task)
    if not isinstance(name, str) or name not in known:
        why = f"{name!r} is no network for {task}"
        raise DiffpathError("key 'network.kind'", where=where, why=why, fix=f"use one of {', '.join(known)}")
    return KINDS[name]


def kind_of(config: NetworkConfig) -> NetworkKind:
    """The kind that a config belongs to.

    Raises:
        KeyError: its kind is not registered.
    """
    for kind in KINDS.values():
        if kind.config is type(config):
            return kind
    raise KeyError(f"{type(config).__name__} belongs to no registered kind of network")


def make_network(config: NetworkConfig, *, dtype: DTypeLike) -> PureNetwork:
    """The network of a config.

    Args:
        config: its numbers, those that the data decide included.
        dtype: of activations.
    """
    make = kind_of(config).make
    return purify(lambda rngs: make(config, dtype=jnp.dtype(dtype), rngs=rngs))
