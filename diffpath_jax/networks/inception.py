"""Inception-v3 as the Frechet Inception distance sees it: the TensorFlow graph of 2015-12-05, inference only.

The network of Szegedy et al. 2016 ("Rethinking the Inception architecture for computer vision") as Heusel et al. 2017
used it for the distance. It departs from the paper in two places: mean pools divide by the pixels that are there, not
by nine, and the last block pools by maximum. Layers carry the graph's names. Nothing trains this network, so each
BatchNorm (epsilon 1e-3) is folded into the convolution before it when weights are converted.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from diffpath_jax.networks import layers

NUM_FEATURES, NUM_LOGITS = 2048, 1008
# What a layer of a block may read beside layers above it.
INPUT, POOL = "input", "pool"
# Layers of the stem whose output is pooled.
POOLED = ("conv2d_2b_3x3", "conv2d_4a_3x3")

Pool = Literal["mean", "max", "max_halved"]


@dataclass(frozen=True)
class Layer:
    """A convolution of a block, with what follows it.

    Attributes:
        name: as published.
        source: what it reads: a layer above, the block's input, or that input pooled.
        channels: of its output.
        kernel: height and width.
        stride: 1, padded to the same size; 2, not padded.
    """

    name: str
    source: str
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


@dataclass(frozen=True)
class Block:
    """Convolutions side by side and in chains. What no other layer reads is the output, in this order.

    Attributes:
        layers: each after what it reads.
        pool: over 3x3: ``mean`` and ``max`` keep the size, ``max_halved`` has stride 2 and no padding.
    """

    layers: tuple[Layer, ...]
    pool: Pool

    @property
    def outputs(self) -> list[str]:
        """Names of what is put side by side."""
        read = {layer.source for layer in self.layers}
        return [name for name in (*(layer.name for layer in self.layers), POOL) if name not in read]


def block_a(pooled: int) -> Block:
    """35 x 35: 1x1, 5x5 and two 3x3."""
    return Block(
        (
            Layer("branch1x1", INPUT, 64),
            Layer("branch5x5_1", INPUT, 48),
            Layer("branch5x5_2", "branch5x5_1", 64, (5, 5)),
            Layer("branch3x3dbl_1", INPUT, 64),
            Layer("branch3x3dbl_2", "branch3x3dbl_1", 96, (3, 3)),
            Layer("branch3x3dbl_3", "branch3x3dbl_2", 96, (3, 3)),
            Layer("branch_pool", POOL, pooled),
        ),
        pool="mean",
    )


BLOCK_B = Block(
    (
        Layer("branch3x3", INPUT, 384, (3, 3), stride=2),
        Layer("branch3x3dbl_1", INPUT, 64),
        Layer("branch3x3dbl_2", "branch3x3dbl_1", 96, (3, 3)),
        Layer("branch3x3dbl_3", "branch3x3dbl_2", 96, (3, 3), stride=2),
    ),
    pool="max_halved",
)


def block_c(width: int) -> Block:
    """17 x 17: 7x7 as rows and columns, once and twice."""
    return Block(
        (
            Layer("branch1x1", INPUT, 192),
            Layer("branch7x7_1", INPUT, width),
            Layer("branch7x7_2", "branch7x7_1", width, (1, 7)),
            Layer("branch7x7_3", "branch7x7_2", 192, (7, 1)),
            Layer("branch7x7dbl_1", INPUT, width),
            Layer("branch7x7dbl_2", "branch7x7dbl_1", width, (7, 1)),
            Layer("branch7x7dbl_3", "branch7x7dbl_2", width, (1, 7)),
            Layer("branch7x7dbl_4", "branch7x7dbl_3", width, (7, 1)),
            Layer("branch7x7dbl_5", "branch7x7dbl_4", 192, (1, 7)),
            Layer("branch_pool", POOL, 192),
        ),
        pool="mean",
    )


BLOCK_D = Block(
    (
        Layer("branch3x3_1", INPUT, 192),
        Layer("branch3x3_2", "branch3x3_1", 320, (3, 3), stride=2),
        Layer("branch7x7x3_1", INPUT, 192),
        Layer("branch7x7x3_2", "branch7x7x3_1", 192, (1, 7)),
        Layer("branch7x7x3_3", "branch7x7x3_2", 192, (7, 1)),
        Layer("branch7x7x3_4", "branch7x7x3_3", 192, (3, 3), stride=2),
    ),
    pool="max_halved",
)


def block_e(pool: Pool) -> Block:
    """8 x 8: 3x3 as a row beside a column."""
    return Block(
        (
            Layer("branch1x1", INPUT, 320),
            Layer("branch3x3_1", INPUT, 384),
            Layer("branch3x3_2a", "branch3x3_1", 384, (1, 3)),
            Layer("branch3x3_2b", "branch3x3_1", 384, (3, 1)),
            Layer("branch3x3dbl_1", INPUT, 448),
            Layer("branch3x3dbl_2", "branch3x3dbl_1", 384, (3, 3)),
            Layer("branch3x3dbl_3a", "branch3x3dbl_2", 384, (1, 3)),
            Layer("branch3x3dbl_3b", "branch3x3dbl_2", 384, (3, 1)),
            Layer("branch_pool", POOL, 192),
        ),
        pool=pool,
    )


BLOCKS = {
    "mixed_5b": block_a(32),
    "mixed_5c": block_a(64),
    "mixed_5d": block_a(64),
    "mixed_6a": BLOCK_B,
    "mixed_6b": block_c(128),
    "mixed_6c": block_c(160),
    "mixed_6d": block_c(160),
    "mixed_6e": block_c(192),
    "mixed_7a": BLOCK_D,
    "mixed_7b": block_e("mean"),
    # By maximum in the graph alone: the paper of the network has a mean here too.
    "mixed_7c": block_e("max"),
}


class ConvNorm(nnx.Module):
    """``relu(x * kernel + bias)``: a convolution with its BatchNorm folded in, in full float32 on every device."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int],
        *,
        stride: int = 1,
        padded: bool = True,
        rngs: nnx.Rngs,
    ) -> None:
        self.stride = stride
        self.padded = padded
        init = nnx.initializers.he_normal()
        self.kernel = nnx.Param(init(rngs.params(), (*kernel, in_channels, out_channels), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out_channels, jnp.float32))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        """Apply."""
        kernel = self.kernel[...]
        # XLA's CPU convolutions take a path that is 2-3 times slower where nothing is padded: pad, then cut off the
        # first row and column of the output, which alone saw the padding.
        spared = not self.padded and jax.default_backend() == "cpu"
        before = self.stride if spared else 0
        padding = [(side // 2, side // 2) if self.padded else (before, 0) for side in kernel.shape[:2]]
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            (self.stride, self.stride),
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )
        return jax.nn.relu((y[:, 1:, 1:] if spared else y) + self.bias[...])


class Mixed(nnx.Module):
    """A block; ``num_outputs`` is its number of channels."""

    def __init__(self, in_channels: int, block: Block, *, rngs: nnx.Rngs) -> None:
        self.block = block
        self.layers: nnx.Dict = nnx.Dict()
        channels = {INPUT: in_channels, POOL: in_channels}
        for layer in block.layers:
            self.layers[layer.name] = ConvNorm(
                channels[layer.source],
                layer.channels,
                layer.kernel,
                stride=layer.stride,
                padded=layer.stride == 1,
                rngs=rngs,
            )
            channels[layer.name] = layer.channels
        self.num_outputs = sum(channels[name] for name in block.outputs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        """Apply."""
        outputs = {INPUT: x, **self._pointwise(x)}
        if self.block.pool != "mean":
            outputs[POOL] = pool(x, self.block.pool)
        for layer in self.block.layers:
            if layer.name not in outputs:
                outputs[layer.name] = self.layers[layer.name](outputs[layer.source])
        return jnp.concatenate([outputs[name] for name in self.block.outputs], axis=-1)

    def _pointwise(self, x: Float[Array, "b h w c"]) -> dict[str, Float[Array, "b h w c2"]]:
        """Output of each 1x1 convolution of the input or of its mean pool, by name, from one product.

        A mean over space and a sum over channels may change places: what is pooled has fewer channels then.
        """
        chosen = [
            layer
            for layer in self.block.layers
            if layer.kernel == (1, 1) and (layer.source == INPUT or self.block.pool == "mean")
        ]
        kernel = jnp.concatenate([self.layers[layer.name].kernel[0, 0] for layer in chosen], axis=-1)
        product = jnp.matmul(x, kernel, precision=jax.lax.Precision.HIGHEST)
        parts = jnp.split(product, np.cumsum([layer.channels for layer in chosen])[:-1], axis=-1)
        return {
            layer.name: jax.nn.relu(
                (part if layer.source == INPUT else pool(part, "mean")) + self.layers[layer.name].bias[...]
            )
            for layer, part in zip(chosen, parts, strict=True)
        }


def pool(x: Float[Array, "b h w c"], kind: Pool) -> Float[Array, "b h2 w2 c"]:
    """Mean or maximum over 3x3; padding counts in neither."""
    return _pool_along(_pool_along(x, 1, kind), 2, kind)


def _pool_along(x: Float[Array, "b h w c"], axis: int, kind: Pool) -> Float[Array, "b h2 w2 c"]:
    """Pool three neighbours along one axis, as sums of slices: XLA's windows are slower on CPU."""
    stride, size = 2 if kind == "max_halved" else 1, x.shape[axis]
    if stride == 1:
        padding = [(1, 1) if i == axis else (0, 0) for i in range(x.ndim)]
        x = jnp.pad(x, padding, constant_values=0 if kind == "mean" else -jnp.inf)
    places = x.shape[axis] - 2
    before, here, after = (jax.lax.slice_in_dim(x, i, i + places, stride, axis) for i in range(3))
    if kind != "mean":
        return jnp.maximum(jnp.maximum(before, here), after)
    there = np.full(size, 3, np.float32)
    there[0] -= 1
    there[-1] -= 1
    return (before + here + after) / np.expand_dims(there, [i for i in range(x.ndim) if i != axis])


class Activations(NamedTuple):
    """Features and logits of images.

    Attributes:
        stages: output of each layer before the blocks and of each block, by name. Under ``jit`` those that nobody
            reads cost nothing.
        features: "pool3", the mean of the last block over space: what the distance is taken in.
        logits: of 1008 classes; the Inception score leaves out the bias.
    """

    stages: dict[str, Float[Array, "b h w c"]]
    features: Float[Array, "b 2048"]
    logits: Float[Array, "b 1008"]


class InceptionV3(nnx.Module):
    """Features and logits; fully convolutional, but published numbers are of 299 x 299 pixels."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Dict(
            conv2d_1a_3x3=ConvNorm(3, 32, (3, 3), stride=2, padded=False, rngs=rngs),
            conv2d_2a_3x3=ConvNorm(32, 32, (3, 3), padded=False, rngs=rngs),
            conv2d_2b_3x3=ConvNorm(32, 64, (3, 3), rngs=rngs),
            conv2d_3b_1x1=ConvNorm(64, 80, (1, 1), rngs=rngs),
            conv2d_4a_3x3=ConvNorm(80, 192, (3, 3), padded=False, rngs=rngs),
        )
        self.blocks: nnx.Dict = nnx.Dict()
        channels = 192
        for name, block in BLOCKS.items():
            self.blocks[name] = Mixed(channels, block, rngs=rngs)
            channels = self.blocks[name].num_outputs
        self.fc = layers.linear(NUM_FEATURES, NUM_LOGITS, dtype=jnp.float32, rngs=rngs)

    def __call__(self, images: Float[Array, "b h w 3"]) -> Activations:
        """Apply to images already resized, with values from 0 to 255 that need not be whole."""
        stages: dict[str, jax.Array] = {}
        x = (images - 128) / 128
        for name, layer in self.stem.items():
            stages[name] = x = layer(x)
            if name in POOLED:
                x = pool(x, "max_halved")
        for name, block in self.blocks.items():
            stages[name] = x = block(x)
        features = x.mean(axis=(1, 2))
        return Activations(stages, features, self.fc(features))
