"""Batch normalisation (Ioffe and Szegedy 2015) as PyTorch has it, so that its checkpoints go on where they stopped."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

EPSILON = 1e-5
# Share of the running statistics that a step keeps; PyTorch's momentum is the rest.
KEPT = 0.9


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last, in float32; the result has the type of the input.

    ``y = (x - mean) / sqrt(var + eps) * gamma + beta``. In training mean and variance are those of the batch, the
    whole of it on however many devices, and the running statistics move towards them: towards the mean, and towards
    the *unbiased* variance ``n / (n - 1) var`` of the n values of a channel.
    """

    def __init__(
        self, channels: int, *, scale_init: Callable[..., jax.Array] = nnx.initializers.ones, rngs: nnx.Rngs
    ) -> None:
        self.scale = nnx.Param(scale_init(rngs.params(), (channels,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros(channels, jnp.float32))
        self.var = nnx.BatchStat(jnp.ones(channels, jnp.float32))

    def __call__(self, x: Float[Array, "b *space c"], *, train: bool) -> Float[Array, "b *space c"]:
        """Normalise; in training by the batch's own statistics, which are remembered."""
        values = x.astype(jnp.float32)
        mean, var = self._of_batch(values) if train else (self.mean[...], self.var[...])
        factor = self.scale[...] * jax.lax.rsqrt(var + EPSILON)
        return ((values - mean) * factor + self.bias[...]).astype(x.dtype)

    def _of_batch(self, values: Float[Array, "b *space c"]) -> tuple[Float[Array, "c"], Float[Array, "c"]]:
        """Mean and (biased) variance of each channel; moves the running statistics."""
        axes = tuple(range(values.ndim - 1))
        mean = values.mean(axis=axes)
        var = jnp.square(values - mean).mean(axis=axes)
        count = values.size // values.shape[-1]
        unbiased = var * (count / max(count - 1, 1))
        for running, new in ((self.mean, mean), (self.var, unbiased)):
            running[...] = KEPT * running[...] + (1 - KEPT) * jax.lax.stop_gradient(new)
        return mean, var
