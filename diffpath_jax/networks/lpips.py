"""LPIPS: the distance between two images in the features of VGG16 (Zhang et al. 2018; Simonyan and Zisserman 2015)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffpath_jax.networks import layers

# Width and number of the 3x3 convolutions between poolings; what follows the last of each is compared.
GROUPS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
# Images in [-1, 1] to the standardised numbers that VGG16 was trained on.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
EPS = 1e-10


class Lpips(nnx.Module):
    """The distance; nothing here trains it."""

    def __init__(self, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs) -> None:
        trunk, width = [], 3
        for out_width, count in GROUPS:
            convs = []
            for _ in range(count):
                convs.append(layers.conv3x3(width, out_width, dtype=dtype, rngs=rngs))
                width = out_width
            trunk.append(nnx.List(convs))
        self.trunk = nnx.List(trunk)
        self.heads = nnx.List(
            [layers.linear(width, 1, use_bias=False, dtype=jnp.float32, rngs=rngs) for width, _ in GROUPS]
        )

    def __call__(self, a: Float[Array, "b h w 3"], b: Float[Array, "b h w 3"]) -> Float[Array, "b"]:
        """Distance of each pair of images in [-1, 1].

        ``sum_l mean_hw w_l (a_l / |a_l| - b_l / |b_l|)^2`` over five depths l of the trunk.
        """
        pairs = zip(self.heads, self._features(a), self._features(b), strict=True)
        return sum(
            (head(jnp.square(_unit(of_a) - _unit(of_b))).mean(axis=(1, 2, 3)) for head, of_a, of_b in pairs),
            start=jnp.zeros(len(a)),
        )

    def _features(self, x: jax.Array) -> list[jax.Array]:
        h = (x - jnp.array(SHIFT)) / jnp.array(SCALE)
        features: list[jax.Array] = []
        for convs in self.trunk:
            if features:
                h = nnx.max_pool(h, (2, 2), strides=(2, 2))
            for conv in convs:
                h = nnx.relu(conv(h))
            features.append(h)
        return features


def _unit(features: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Features of length one at each position; where all are zero they stay so, and so does their gradient."""
    x = features.astype(jnp.float32)
    squared = jnp.square(x).sum(axis=-1, keepdims=True)
    return x / (jnp.sqrt(jnp.maximum(squared, EPS**2)) + EPS)
