"""Conditions of a denoiser.

Each kind of condition is one row: how it is read from a record, what stands for "not given", and the module that embeds
it. The class label and um/px are there; ``CONDITIONS.register(kind)`` adds one from outside the package.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffpath_jax.io.registry import Registry
from diffpath_jax.networks.config import CLASS_LABEL, Conflict, NetworkConfig
from diffpath_jax.networks.embeddings import GREATEST_MPP, LEAST_MPP, ScaleEmbedding


@runtime_checkable
class MakeEmbedder(Protocol):
    """Constructor of the module that embeds a condition."""

    def __call__(self, *, num_classes: int, width: int, rngs: nnx.Rngs) -> nnx.Module | None:
        """A fresh module from the values of a batch to (batch, width), float32; none where there is nothing to embed.

        Args:
            num_classes: of the network, the null class included.
            width: of the embedding.
            rngs: for its parameters.
        """


@dataclass(frozen=True)
class ConditionKind:
    """A kind of condition.

    Attributes:
        name: in batches, in ``network.conditions`` and in ``--condition NAME=VALUE``.
        attribute: of the embedder in a network, and so part of its parameters' names.
        read: value for one record of a data set (of images or latents).
        null: value that stands for "not given", for so many classes; of the shape and type of one value.
        parse: value of a word of the command line; a ``ValueError`` says what is wrong with it.
        make: embedder.
        dropout: share of images that are not told it, whatever else they are told.
    """

    name: str
    attribute: str
    read: Callable[[Any], np.ndarray]
    null: Callable[[int], np.ndarray]
    parse: Callable[[str], float | int]
    make: MakeEmbedder
    dropout: float = 0.0


def _class_embedding(*, num_classes: int, width: int, rngs: nnx.Rngs) -> nnx.Module | None:
    return nnx.Embed(num_classes, width, dtype=jnp.float32, rngs=rngs) if num_classes else None


# A network with N classes has N + 1 rows of class embedding; the last is the null class.
LABEL = ConditionKind(
    name=CLASS_LABEL,
    attribute="classes",
    read=lambda record: np.asarray(record.label, np.int32),
    null=lambda num_classes: np.asarray(num_classes, np.int32),
    parse=int,
    make=_class_embedding,
)


def _um_per_px(text: str) -> float:
    value = float(text)
    if not 2.0**LEAST_MPP <= value <= 2.0**GREATEST_MPP:
        raise ValueError(f"{text} um/px are not between {2.0**LEAST_MPP:g} and {2.0**GREATEST_MPP:g}")
    return value


def _scale_embedding(*, num_classes: int, width: int, rngs: nnx.Rngs) -> nnx.Module:
    return ScaleEmbedding(width, rngs)


# um/px, so that one network serves several magnifications (ZoomLDM, Yellapragada et al. 2025).
SCALE = ConditionKind(
    name="mpp",
    attribute="mpp",
    read=lambda record: np.asarray(record.mpp, np.float32),
    null=lambda num_classes: np.asarray(np.nan, np.float32),
    parse=_um_per_px,
    make=_scale_embedding,
)
CONDITIONS: Registry[ConditionKind] = Registry(
    "condition", [LABEL, SCALE], unique={"attribute": lambda kind: kind.attribute}
)


def null_values(config: NetworkConfig, num_classes: int) -> dict[str, np.ndarray]:
    """Returns what stands for "not given", by the names of the conditions that a network takes.

    Args:
        config: of the network.
        num_classes: of the data, without the null class.
    """
    return {name: CONDITIONS[name].null(num_classes) for name in config.conditions}


def own_dropout(config: NetworkConfig) -> dict[str, float]:
    """Returns the share of images that are not told a condition, by the names of those that have one of their own."""
    return {name: CONDITIONS[name].dropout for name in config.conditions if CONDITIONS[name].dropout}


def readers(config: NetworkConfig) -> Mapping[str, Callable[[Any], np.ndarray]]:
    """Returns how each condition that a network takes is read from a record, by name."""
    return {name: CONDITIONS[name].read for name in config.conditions}


def unknown_condition(names: Iterable[str]) -> Conflict | None:
    """A conflict of the key ``conditions`` with the first name that is not known, or is there twice."""
    seen: set[str] = set()
    for name in names:
        if name not in CONDITIONS or name in seen:
            return "conditions", f"{name!r} is {'there twice' if name in seen else 'none of ' + ', '.join(CONDITIONS)}"
        seen.add(name)
    return None
