"""Vector quantisation: a book of codes, and which of them is nearest (van den Oord et al. 2017)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

# Codes that a latent is compared with at once.
CHUNK = 128


class Codebook(nnx.Embed):
    """Codes, drawn uniformly from [-1 / size, 1 / size]; called with indices it gives codes."""

    def __init__(self, size: int, channels: int, *, rngs: nnx.Rngs) -> None:
        def init(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
            return jax.random.uniform(key, shape, dtype, -1 / size, 1 / size)

        super().__init__(size, channels, embedding_init=init, rngs=rngs)

    def nearest(self, z: Float[Array, "*n d"]) -> Int[Array, "*n"]:
        """Index of the nearest code of each latent."""
        return nearest(z, self.embedding[...])


def nearest(z: Float[Array, "*n d"], codes: Float[Array, "k d"]) -> Int[Array, "*n"]:
    """Index of the code at the smallest squared distance from each latent; of equal ones, the first.

    Differences are squared as they are: ``|z|^2 - 2 z e + |e|^2`` would lose digits, and its matrix product more on
    accelerators. The codes come in chunks, so memory does not grow with the book, and latents stay on their device.
    """
    size, width = codes.shape
    z, codes = jax.lax.stop_gradient((z, codes))
    # What fills up the last chunk is farther than any code.
    filled = jnp.pad(codes, ((0, -size % CHUNK), (0, 0)), constant_values=jnp.inf)
    last_first = jnp.moveaxis(z, -1, 0)[..., None]

    def closer(best: tuple[jax.Array, jax.Array], chunk: tuple[jax.Array, jax.Array]) -> tuple[tuple, None]:
        distance, index = best
        of_chunk, start = chunk
        squared = jnp.square(last_first - of_chunk.T.reshape(width, *(1,) * (z.ndim - 1), CHUNK)).sum(axis=0)
        lowest = squared.min(axis=-1)
        there = start + jnp.argmin(squared, axis=-1).astype(jnp.int32)
        return (jnp.minimum(distance, lowest), jnp.where(lowest < distance, there, index)), None

    starts = jnp.arange(0, len(filled), CHUNK, dtype=jnp.int32)
    none = (jnp.full(z.shape[:-1], jnp.inf, z.dtype), jnp.zeros(z.shape[:-1], jnp.int32))
    (_, index), _ = jax.lax.scan(closer, none, (filled.reshape(-1, CHUNK, width), starts))
    return index
