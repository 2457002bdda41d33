"""Modules that embed conditions: sets of labels, numbers, um/px, features of an encoder, columns of a table."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

# Waves of a number over its range: one, two, four, ... half periods.
NUM_WAVES = 6
# Least variance of a number that is standardised.
EPSILON = 1e-6
# um/px that an embedding tells apart, as powers of 2.
LEAST_MPP, GREATEST_MPP = -4.0, 4.0


class LabelsEmbedding(nnx.Module):
    """The sum of the rows of the labels that an image has; a row of its own where nothing is known."""

    def __init__(self, count: int, width: int, rngs: nnx.Rngs) -> None:
        self.rows = nnx.Embed(count + 1, width, dtype=jnp.float32, rngs=rngs)
        self.count = count

    def __call__(self, bits: Int[Array, "b"]) -> Float[Array, "b d"]:
        """Returns the embeddings of some sets of labels."""
        there = (bits[:, None] >> jnp.arange(self.count)) & 1
        unknown = bits[:, None] < 0
        chosen = jnp.concatenate([jnp.where(unknown, 0, there), unknown], axis=1).astype(jnp.float32)
        return chosen @ self.rows.embedding[...]


class NumberEmbedding(nnx.Module):
    """A linear map of a number and of waves of it; a vector of its own where it is not known (NaN)."""

    def __init__(self, low: float, high: float, width: int, rngs: nnx.Rngs) -> None:
        self.map = nnx.Linear(1 + 2 * NUM_WAVES, width, dtype=jnp.float32, rngs=rngs)
        self.null = nnx.Param(jnp.zeros(width))
        self.low, self.high = low, high

    def __call__(self, x: Float[Array, "b"]) -> Float[Array, "b d"]:
        """Returns the embeddings of some numbers."""
        unknown = jnp.isnan(x)
        share = (jnp.where(unknown, self.low, x) - self.low) / (self.high - self.low)
        angles = np.pi * share[:, None] * 2.0 ** jnp.arange(NUM_WAVES)
        features = jnp.concatenate([share[:, None], jnp.sin(angles), jnp.cos(angles)], axis=1)
        return jnp.where(unknown[:, None], self.null[...], self.map(features))


class ScaleEmbedding(nnx.Module):
    """That of the logarithm of um/px, as half as many is the same step everywhere; NaN where they are not known."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.logarithm = NumberEmbedding(LEAST_MPP, GREATEST_MPP, width, rngs)

    def __call__(self, mpp: Float[Array, "b"]) -> Float[Array, "b d"]:
        """Returns the embeddings of some um/px."""
        return self.logarithm(jnp.log2(mpp))


class Standardisation(nnx.Module):
    """Numbers less their mean, over their standard deviation, of all batches so far; rows of NaN do not count.

    Features of an encoder differ in scale by orders of magnitude, and what tells images apart is a small part of many.
    Running moments serve training and drawing alike, so that both see the same numbers; what a batch adds is taken in
    after it. They are those of all images seen, and follow slowly after ``MEMORY`` batches.
    """

    MEMORY = 1000

    def __init__(self, count: int) -> None:
        self.mean, self.var = nnx.BatchStat(jnp.zeros(count)), nnx.BatchStat(jnp.ones(count))
        self.seen = nnx.BatchStat(jnp.zeros(()))

    def __call__(self, x: Float[Array, "b n"]) -> Float[Array, "b n"]:
        """Returns the numbers, and takes them in; the first batch is standardised by its own moments."""
        known = ~jnp.isnan(x).any(axis=1, keepdims=True)
        rows, values = jnp.maximum(known.sum(), 1), jax.lax.stop_gradient(jnp.where(known, x, 0))
        mean = values.sum(axis=0) / rows
        var = jnp.where(known, jnp.square(values - mean), 0).sum(axis=0) / rows
        at_hand = [jnp.where(self.seen[...] == 0, *pair) for pair in ((mean, self.mean[...]), (var, self.var[...]))]
        # Of two groups together, with the distance of their means (Chan, Golub and LeVeque 1979).
        share = known.any() / (jnp.minimum(self.seen[...], self.MEMORY) + 1)
        away = mean - self.mean[...]
        self.mean[...] += share * away
        self.var[...] += share * (var - self.var[...]) + share * (1 - share) * jnp.square(away)
        self.seen[...] += known.any()
        return (x - at_hand[0]) * jax.lax.rsqrt(at_hand[1] + EPSILON)


class FeaturesEmbedding(nnx.Module):
    """Two layers on standardised features of an encoder; a vector of its own where they are not known (NaN)."""

    def __init__(self, inputs: int, width: int, rngs: nnx.Rngs) -> None:
        self.standardise = Standardisation(inputs)
        self.first = nnx.Linear(inputs, width, dtype=jnp.float32, rngs=rngs)
        self.second = nnx.Linear(width, width, dtype=jnp.float32, rngs=rngs)
        self.null = nnx.Param(jnp.zeros(width))

    def __call__(self, x: Float[Array, "b n"]) -> Float[Array, "b d"]:
        """Returns the embeddings of the features of some images."""
        unknown = jnp.isnan(x).any(axis=1, keepdims=True)
        standard = self.standardise(x)
        hidden = self.first(jnp.where(unknown, 0, standard))
        return jnp.where(unknown, self.null[...], self.second(nnx.silu(hidden)))


class ColumnsEmbedding(nnx.Module):
    """The sum of the embeddings of some columns: a row for each value, or a number in [0, 1]; NaN where not known."""

    def __init__(self, counts: Sequence[int], width: int, rngs: nnx.Rngs) -> None:
        def embedding(count: int) -> nnx.Module:
            if count:
                return nnx.Embed(count + 1, width, dtype=jnp.float32, rngs=rngs)
            return NumberEmbedding(0.0, 1.0, width, rngs)

        self.counts = tuple(counts)
        self.parts = nnx.List([embedding(count) for count in counts])

    def __call__(self, x: Float[Array, "b k"]) -> Float[Array, "b d"]:
        """Returns the embeddings of the values of some images."""
        values = [
            jnp.where(jnp.isnan(column), count, column).astype(jnp.int32) if count else column
            for count, column in zip(self.counts, x.T, strict=True)
        ]
        return sum((part(value) for part, value in zip(self.parts, values, strict=True)), start=jnp.zeros(()))
