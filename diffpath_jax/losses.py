"""Training losses, one value an image, and their sums for the logs."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from diffpath_jax.shapes import Images, Labels, Weighted

NOISE_LEVELS = 4


def squared_error(output: Images, target: Images) -> Float[Array, "b"]:
    """Mean squared error of each image."""
    return jnp.square(output - target).mean(axis=tuple(range(1, output.ndim)))


def by_noise_level(values: Float[Array, "b"], t: Int[Array, "b"], num_steps: int) -> dict[str, Weighted]:
    """Sum and number of ``values`` in each quarter of the noise schedule, for the logs."""
    member = jax.nn.one_hot(t * NOISE_LEVELS // num_steps, NOISE_LEVELS)
    sums, counts = values @ member, member.sum(axis=0)
    return {f"loss_noise_{i + 1}of{NOISE_LEVELS}": jnp.stack([sums[i], counts[i]]) for i in range(NOISE_LEVELS)}


def weighted(values: Float[Array, "b"]) -> Weighted:
    """Sum and number of ``values``."""
    return jnp.stack([values.sum(), jnp.asarray(values.size, values.dtype)])


def cross_entropy(logits: Float[Array, "b n"], labels: Labels, *, smoothing: float = 0.0) -> Float[Array, "b"]:
    """Softmax cross-entropy of each image, with optional label smoothing."""
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)
