"""Group normalisation with what follows it, in as few passes over memory as there can be."""

import math
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffpath_jax.networks import target


class Normalisation(NamedTuple):
    """Settings of a group norm.

    Attributes:
        groups: groups of channels that share a mean and a variance.
        eps: added to the variance.
        silu: apply ``y sigmoid(y)`` to the result.
        dtype: type of the result; none means that of the input.
    """

    groups: int
    eps: float
    silu: bool = False
    dtype: DTypeLike | None = None


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def group_norm(
    parts: tuple[Float[Array, "b *space _"], ...],
    gamma: Float[Array, "b c"],
    beta: Float[Array, "b c"],
    norm: Normalisation,
) -> Float[Array, "b *space c"]:
    """``silu(norm(x) gamma + beta)``, SiLU on request: two passes over x, and two for all gradients.

    A plain differentiation goes over x and the gradient several times more, and on the way back reads what the way
    there could have left unwritten.

    Args:
        parts: features; their channels one after the other are those that are normalised.
        gamma: factor of each channel, float32.
        beta: what is added to each channel, float32.
        norm: how.
    """
    return _forward(parts, gamma, beta, norm)[0]


def _forward(
    parts: tuple[jax.Array, ...], gamma: jax.Array, beta: jax.Array, norm: Normalisation
) -> tuple[jax.Array, tuple]:
    """The result, and what the gradient needs."""
    mean, inverse = _statistics(parts, norm)
    scale = inverse * gamma
    out = []
    for part, a, b in zip(parts, _split(parts, scale), _split(parts, beta - mean * scale), strict=True):
        y = part.astype(jnp.float32) * a + b
        out.append((y * jax.nn.sigmoid(y) if norm.silu else y).astype(norm.dtype or part.dtype))
    return out[0] if len(out) == 1 else jnp.concatenate(out, axis=-1), (parts, gamma, beta, mean, inverse)


def _statistics(parts: tuple[jax.Array, ...], norm: Normalisation) -> tuple[jax.Array, jax.Array]:
    """Mean and inverse standard deviation of each channel's group, (b, c), from sums and sums of squares.

    Both sums are taken of the distance to one value of the channel: their difference stays exact where the mean is
    large against the deviation.
    """
    means, variances = [], []
    for part in parts:
        space = tuple(range(1, part.ndim - 1))
        pivot = jax.lax.stop_gradient(part[(slice(None), *(slice(1) for _ in space))].astype(jnp.float32))
        distance = part.astype(jnp.float32) - pivot
        count = math.prod(part.shape[1:-1])
        mean, square = (total / count for total in _sums((distance, jnp.square(distance)), space))
        variances.append(square - jnp.square(mean))
        means.append(mean + pivot.reshape(mean.shape))
    # The variance of a group is the mean of its channels' variances plus the variance of their means.
    mean_c, variance_c = (jnp.concatenate(rows, axis=-1) for rows in (means, variances))
    mean = _group_mean(mean_c, norm.groups)
    variance = _group_mean(variance_c + jnp.square(mean_c - mean), norm.groups)
    return mean, jax.lax.rsqrt(jnp.maximum(variance, 0) + norm.eps)


def _sums(values: tuple[jax.Array, ...], axes: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """Sums of several arrays over the same axes.

    On GPUs in one reduction, so that nothing is written in between, and one axis after the other, so that there is
    work for all processors.
    """
    if target.platform() != "gpu":
        return tuple(value.sum(axis=axes) for value in values)
    zeros = tuple(jnp.zeros((), value.dtype) for value in values)
    for axis in reversed(axes):
        values = tuple(jax.lax.reduce(values, zeros, lambda a, b: tuple(map(jnp.add, a, b)), (axis,)))
    return values


def _group_mean(values: jax.Array, groups: int) -> jax.Array:
    """(b, c) -> (b, c): each channel the mean over its group."""
    grouped = values.reshape(len(values), groups, -1)
    return jnp.broadcast_to(grouped.mean(axis=-1, keepdims=True), grouped.shape).reshape(values.shape)


def _split(parts: tuple[jax.Array, ...], values: jax.Array) -> list[jax.Array]:
    """Numbers of each channel, (b, c), for each part, shaped to be broadcast over space."""
    ends = list(accumulate(part.shape[-1] for part in parts))
    return [
        value.reshape(len(value), *(1 for _ in part.shape[1:-1]), -1)
        for part, value in zip(parts, jnp.split(values, ends[:-1], axis=-1), strict=True)
    ]


def _terms(
    parts: tuple[jax.Array, ...], gradient: jax.Array, rows: list[list[jax.Array]], silu: bool
) -> list[tuple[jax.Array, jax.Array]]:
    """For each part the gradient for y, and x - mean; ``rows`` are y's factor and summand of x, and the mean."""
    ends = list(accumulate(part.shape[-1] for part in parts))
    terms = []
    for part, out, a, b, mean in zip(parts, jnp.split(gradient, ends[:-1], axis=-1), *rows, strict=True):
        x, slope = part.astype(jnp.float32), out.astype(jnp.float32)
        if silu:
            y = x * a + b
            sigmoid = jax.nn.sigmoid(y)
            slope = slope * sigmoid * (1 + y * (1 - sigmoid))
        terms.append((slope, x - mean))
    return terms


def _backward(
    norm: Normalisation, kept: tuple, gradient: jax.Array
) -> tuple[tuple[jax.Array, ...], jax.Array, jax.Array]:
    """Gradients for x, gamma and beta: sums over space of g and g (x - mean) first, then x.

    With x' = (x - mean) / sigma and g the gradient for y: beta's is sum g, gamma's sum g x', and
    ``dx = (g gamma - mean(g gamma) - x' mean(g gamma x')) / sigma``, means over the group.
    """
    parts, gamma, beta, mean, inverse = kept
    scale = inverse * gamma
    rows = [_split(parts, values) for values in (scale, beta - mean * scale, mean)]
    space = tuple(range(1, gradient.ndim - 1))
    terms = _terms(parts, gradient, rows, norm.silu)
    sums = [_sums((slope, slope * centred), space) for slope, centred in terms]
    d_beta, products = (jnp.concatenate(columns, axis=-1) for columns in zip(*sums, strict=True))
    d_gamma = products * inverse
    count = math.prod(gradient.shape[1:-1])
    from_mean = inverse * _group_mean(gamma * d_beta, norm.groups) / count
    from_variance = jnp.square(inverse) * _group_mean(gamma * d_gamma, norm.groups) / count
    # Compute the terms again rather than write them in float32 and read them.
    parts, gradient, from_mean = jax.lax.optimization_barrier((parts, gradient, from_mean))
    terms = _terms(parts, gradient, rows, norm.silu)
    means = [_split(parts, values) for values in (scale, from_mean, from_variance)]
    d_parts = tuple(
        (slope * a - p - centred * q).astype(part.dtype)
        for part, (slope, centred), a, p, q in zip(parts, terms, *means, strict=True)
    )
    if target.platform() == "cpu":
        # XLA's CPU compiler joins the gradients of several norms and residual sums and computes them again for
        # each: a train step takes up to a quarter longer.
        d_parts = jax.lax.optimization_barrier(d_parts)
    return d_parts, d_gamma, d_beta


group_norm.defvjp(_forward, _backward)
