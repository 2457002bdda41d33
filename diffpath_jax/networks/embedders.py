"""Kinds of conditions by what they are: one of several values, several labels at once, or a number.

Each function makes a row for ``CONDITIONS.register``; how it is read from a record may look anything up by the record's
patient or slide. Embeddings are added up, so that a network may be told combinations that it has never seen.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffpath_jax.networks.conditions import Conditioned, ConditionKind
from diffpath_jax.networks.embeddings import LabelsEmbedding, NumberEmbedding

# Labels are the bits of a number; a negative one stands for "not given".
MAX_LABELS, NOT_GIVEN = 30, -1


def category(
    name: str, values: Sequence[str], *, read: Callable[[Any], str | None], dropout: float = 0.0
) -> ConditionKind:
    """Returns a condition that has one of several values, such as a site, a scanner or a stain.

    Args:
        name: of the condition.
        values: it can have; further ones go to the end, or parameters lose their meaning.
        read: value for a record; none where it is not known.
        dropout: share of images that are not told it, whatever else they are told.
    """

    def number(value: str | None) -> int:
        return len(values) if value is None else _index(value, values)

    def make(config: Conditioned, *, rngs: nnx.Rngs) -> nnx.Module:
        return nnx.Embed(len(values) + 1, config.condition_width, dtype=jnp.float32, rngs=rngs)

    return ConditionKind(
        name=name,
        attribute=name,
        read=lambda record: np.asarray(number(read(record)), np.int32),
        null=lambda num_classes: np.asarray(len(values), np.int32),
        parse=number,
        make=make,
        dropout=dropout,
    )


def labels(
    name: str, values: Sequence[str], *, read: Callable[[Any], Collection[str] | None], dropout: float = 0.0
) -> ConditionKind:
    """Returns a condition that has any number of labels at once, which ``A+B`` names on the command line.

    Args:
        name: of the condition.
        values: labels; further ones go to the end, or parameters lose their meaning.
        read: labels of a record, perhaps none of them; none where they are not known.
        dropout: share of images that are not told them, whatever else they are told.

    Raises:
        ValueError: more labels than fit a number.
    """
    if len(values) > MAX_LABELS:
        raise ValueError(f"{name!r} has {len(values)} labels, more than {MAX_LABELS}")

    def bits(chosen: Collection[str] | None) -> int:
        return NOT_GIVEN if chosen is None else sum(1 << _index(value, values) for value in set(chosen))

    def make(config: Conditioned, *, rngs: nnx.Rngs) -> nnx.Module:
        return LabelsEmbedding(len(values), config.condition_width, rngs)

    return ConditionKind(
        name=name,
        attribute=name,
        read=lambda record: np.asarray(bits(read(record)), np.int32),
        null=lambda num_classes: np.asarray(NOT_GIVEN, np.int32),
        parse=lambda text: bits([part for part in text.split("+") if part]),
        make=make,
        dropout=dropout,
    )


def number(
    name: str, *, low: float, high: float, read: Callable[[Any], float | None], dropout: float = 0.0
) -> ConditionKind:
    """Returns a condition that is a number, such as an age or um/px.

    Args:
        name: of the condition.
        low: least value that training sees, or near it.
        high: greatest.
        read: value for a record; none where it is not known.
        dropout: share of images that are not told it, whatever else they are told.
    """

    def value(record: Any) -> np.ndarray:
        known = read(record)
        return np.asarray(np.nan if known is None else known, np.float32)

    def make(config: Conditioned, *, rngs: nnx.Rngs) -> nnx.Module:
        return NumberEmbedding(low, high, config.condition_width, rngs)

    return ConditionKind(
        name=name,
        attribute=name,
        read=value,
        null=lambda num_classes: np.asarray(np.nan, np.float32),
        parse=float,
        make=make,
        dropout=dropout,
    )


def _index(value: str, values: Sequence[str]) -> int:
    if value not in values:
        raise ValueError(f"{value!r} is none of {', '.join(values)}")
    return values.index(value)
