"""Conditions of a denoiser.

Each kind of condition is one row: how it is read from a record, what stands for "not given", and the module that embeds
it. The class label, um/px, an encoder's features and columns of a user's table are there; ``CONDITIONS.register(kind)``
adds one from outside the package.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffpath_jax.io.registry import Registry
from diffpath_jax.networks.config import CLASS_LABEL, Conflict, NetworkConfig
from diffpath_jax.networks.embeddings import (
    GREATEST_MPP,
    LEAST_MPP,
    ColumnsEmbedding,
    FeaturesEmbedding,
    ScaleEmbedding,
)

# Of the value of a condition: () for one number.
Shape = tuple[int, ...]


@runtime_checkable
class Conditioned(Protocol):
    """What the config of a network that is told conditions says of them."""

    @property
    def num_classes(self) -> int:
        """Rows of the class embedding, the null class included."""

    @property
    def condition_width(self) -> int:
        """Width of the embedding of a condition."""

    @property
    def feature_width(self) -> int:
        """Numbers of the features of an image."""

    @property
    def columns(self) -> tuple[int, ...]:
        """How many values each column has, 0 for a number."""


@runtime_checkable
class MakeEmbedder(Protocol):
    """Constructor of the module that embeds a condition."""

    def __call__(self, config: Conditioned, *, rngs: nnx.Rngs) -> nnx.Module | None:
        """A fresh module from the values of a batch to (batch, width), float32; none where there is nothing to embed.

        Args:
            config: of the network.
            rngs: for its parameters.
        """


def _one_number(config: NetworkConfig) -> Shape:
    return ()


@dataclass(frozen=True)
class ConditionKind:
    """A kind of condition.

    Attributes:
        name: in batches, in ``network.conditions`` and in ``--condition NAME=VALUE``.
        attribute: of the embedder in a network, and so part of its parameters' names.
        read: value for one record of a data set (of images or latents).
        null: number that stands for "not given", for so many classes; of the type of the value.
        parse: value of a word of the command line; a ``ValueError`` says what is wrong with it. None for what no word
            can say.
        make: embedder.
        dropout: share of images that are not told it, whatever else they are told.
        shape: of one value, by the network's config.
        one_by_one: the numbers of a value are dropped by themselves, each by ``dropout``.
    """

    name: str
    attribute: str
    read: Callable[[Any], np.ndarray]
    null: Callable[[int], np.ndarray]
    parse: Callable[[str], float | int] | None
    make: MakeEmbedder
    dropout: float = 0.0
    shape: Callable[[NetworkConfig], Shape] = _one_number
    one_by_one: bool = False


def _class_embedding(config: Conditioned, *, rngs: nnx.Rngs) -> nnx.Module | None:
    rows = config.num_classes
    return nnx.Embed(rows, config.condition_width, dtype=jnp.float32, rngs=rngs) if rows else None


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


def _scale_embedding(config: Conditioned, *, rngs: nnx.Rngs) -> nnx.Module:
    return ScaleEmbedding(config.condition_width, rngs)


# um/px, so that one network serves several magnifications (ZoomLDM, Yellapragada et al. 2025).
SCALE = ConditionKind(
    name="mpp",
    attribute="mpp",
    read=lambda record: np.asarray(record.mpp, np.float32),
    null=lambda num_classes: np.asarray(np.nan, np.float32),
    parse=_um_per_px,
    make=_scale_embedding,
)


def _beside(name: str) -> Callable[[Any], np.ndarray]:
    """Returns what reads something that lies beside the images of some data sets."""

    def read(record: Any) -> np.ndarray:
        if (value := getattr(record, name)) is None:
            raise ValueError(f"no {name} lie beside it")
        return value

    return read


def _features_embedding(config: Conditioned, *, rngs: nnx.Rngs) -> nnx.Module:
    return FeaturesEmbedding(config.feature_width, config.condition_width, rngs)


def _columns_embedding(config: Conditioned, *, rngs: nnx.Rngs) -> nnx.Module:
    return ColumnsEmbedding(config.columns, config.condition_width, rngs)


# What an encoder sees in the image, so that a network can draw variations of one (PixCell, Yellapragada et al. 2025).
FEATURES = ConditionKind(
    name="features",
    attribute="features",
    read=_beside("features"),
    null=lambda num_classes: np.asarray(np.nan, np.float32),
    parse=None,
    make=_features_embedding,
    # At a tenth, a network of few steps drew other classes by its class alone.
    dropout=0.25,
    shape=lambda config: (config.feature_width,),
)
# Columns of a user's table, such as site and scanner, together: each adds its embedding and is dropped by itself.
COLUMNS = ConditionKind(
    name="columns",
    attribute="columns",
    read=_beside("columns"),
    null=lambda num_classes: np.asarray(np.nan, np.float32),
    parse=None,
    make=_columns_embedding,
    dropout=0.1,
    shape=lambda config: (len(config.columns),),
    one_by_one=True,
)
CONDITIONS: Registry[ConditionKind] = Registry(
    "condition", [LABEL, SCALE, FEATURES, COLUMNS], unique={"attribute": lambda kind: kind.attribute}
)


def null_values(config: NetworkConfig, num_classes: int) -> dict[str, np.ndarray]:
    """Returns what stands for "not given", by the names of the conditions that a network takes.

    Args:
        config: of the network.
        num_classes: of the data, without the null class.
    """
    kinds = [CONDITIONS[name] for name in config.conditions]
    return {kind.name: np.broadcast_to(kind.null(num_classes), kind.shape(config)) for kind in kinds}


def own_dropout(config: NetworkConfig) -> dict[str, np.ndarray]:
    """Returns the share of images that are not told a condition, by the names of those that have one of their own.

    Of a condition whose numbers are dropped one by one there is a share for each.
    """
    kinds = [CONDITIONS[name] for name in config.conditions]
    shapes = {kind.name: kind.shape(config) if kind.one_by_one else () for kind in kinds}
    return {kind.name: np.full(shapes[kind.name], kind.dropout) for kind in kinds if kind.dropout}


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
