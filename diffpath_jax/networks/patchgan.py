"""PatchGAN: a discriminator that judges overlapping patches of an image (Isola et al. 2017)."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffpath_jax.networks.batch_norm import BatchNorm

SLOPE, WIDEST = 0.2, 8


@dataclass(frozen=True)
class PatchGanConfig:
    """Shape of the network.

    Attributes:
        width: of the first layer; it doubles with each further one, up to eight times.
        num_layers: layers of stride 2; with 3 a logit sees 70 x 70 px.
    """

    width: int = 64
    num_layers: int = 3


def smallest_side(num_layers: int) -> int:
    """Side (px) of the smallest image of which a logit is left: each 4x4 convolution of stride 1 takes a pixel away."""
    return 3 * 2**num_layers


class PatchDiscriminator(nnx.Module):
    """4x4 convolutions, BatchNorm, leaky ReLU; a logit for each patch."""

    def __init__(self, config: PatchGanConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        conv = functools.partial(
            nnx.Conv, kernel_size=(4, 4), padding=1, kernel_init=nnx.initializers.normal(0.02), rngs=rngs
        )
        widths = [config.width * min(2**i, WIDEST) for i in range(config.num_layers + 1)]
        strides = [2] * (config.num_layers - 1) + [1]
        layers = zip(widths[:-1], widths[1:], strides, strict=True)
        self.stem = conv(3, widths[0], strides=2, dtype=dtype)
        self.convs = nnx.List(
            [conv(width, out_width, strides=stride, use_bias=False, dtype=dtype) for width, out_width, stride in layers]
        )
        self.norms = nnx.List([BatchNorm(width, scale_init=_near_one, rngs=rngs) for width in widths[1:]])
        self.out = conv(widths[-1], 1, dtype=jnp.float32)

    def __call__(self, x: Float[Array, "b h w 3"], *, train: bool) -> Float[Array, "b h2 w2 1"]:
        """Logits of images in [-1, 1]; in training the batch's own statistics are used and remembered."""
        h = nnx.leaky_relu(self.stem(x), SLOPE)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = nnx.leaky_relu(norm(conv(h), train=train), SLOPE)
        return self.out(h)


def _near_one(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    return 1 + 0.02 * jax.random.normal(key, shape, jnp.dtype(dtype))
