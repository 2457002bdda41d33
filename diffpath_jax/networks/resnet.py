"""ResNet with bottleneck blocks (He et al. 2016), stride in the 3x3 convolution (v1.5): ResNet-50 and its family."""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffpath_jax.networks import layers
from diffpath_jax.networks.batch_norm import BatchNorm
from diffpath_jax.networks.config import ClassNetworkConfig, NetworkKind
from diffpath_jax.networks.lpips import SCALE, SHIFT
from diffpath_jax.ranges import Levels, Width

EXPANSION = 4


@dataclass(frozen=True)
class ResNetConfig(ClassNetworkConfig):
    """Shape of the network; the defaults are ResNet-50.

    Attributes:
        width: width of the first stage; stage i has ``4 * width * 2^i`` channels.
        stage_sizes: blocks of each stage.
        small_images: a 3x3 stem without pooling, for images below about 64 px.
        standardise: shift and scale the colours of images as for networks trained on ImageNet; its weights need it.
    """

    width: Width = 64
    stage_sizes: Levels = (3, 4, 6, 3)
    small_images: bool = False
    standardise: bool = False

    @property
    def title(self) -> str:
        """Its family and the blocks of its stages."""
        return f"ResNet ({'-'.join(str(size) for size in self.stage_sizes)} blocks)"


class ConvNorm(nnx.Module):
    """Convolution without bias, then BatchNorm."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        zero_scale: bool = False,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self.conv = nnx.Conv(
            in_channels,
            out_channels,
            (kernel, kernel),
            strides=stride,
            padding=kernel // 2,
            use_bias=False,
            kernel_init=nnx.initializers.variance_scaling(2.0, "fan_out", "truncated_normal"),
            dtype=dtype,
            rngs=rngs,
        )
        scale_init = nnx.initializers.zeros if zero_scale else nnx.initializers.ones
        self.norm = BatchNorm(out_channels, scale_init=scale_init, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 c2"]:
        """Apply; in training the batch's own statistics are used and remembered."""
        return self.norm(self.conv(x), train=train)


class BottleneckBlock(nnx.Module):
    """1x1, 3x3, 1x1 with a residual branch; the last norm starts at zero."""

    def __init__(self, in_channels: int, width: int, *, stride: int, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        out_channels = EXPANSION * width
        self.reduce = ConvNorm(in_channels, width, 1, dtype=dtype, rngs=rngs)
        self.spatial = ConvNorm(width, width, 3, stride=stride, dtype=dtype, rngs=rngs)
        self.expand = ConvNorm(width, out_channels, 1, zero_scale=True, dtype=dtype, rngs=rngs)
        self.skip = nnx.data(
            ConvNorm(in_channels, out_channels, 1, stride=stride, dtype=dtype, rngs=rngs)
            if stride > 1 or in_channels != out_channels
            else None
        )

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 c2"]:
        """Apply."""
        h = nnx.relu(self.reduce(x, train=train))
        h = nnx.relu(self.spatial(h, train=train))
        h = self.expand(h, train=train)
        return nnx.relu(h + (x if self.skip is None else self.skip(x, train=train)))


class ResNet(nnx.Module):
    """Classifier; any image size."""

    def __init__(self, config: ResNetConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.config = config
        kernel = 3 if config.small_images else 7
        self.stem = ConvNorm(3, config.width, kernel, stride=2, dtype=dtype, rngs=rngs)
        blocks, channels = [], config.width
        for stage, size in enumerate(config.stage_sizes):
            width = config.width * 2**stage
            for number in range(size):
                stride = 2 if stage and number == 0 else 1
                blocks.append(BottleneckBlock(channels, width, stride=stride, dtype=dtype, rngs=rngs))
                channels = EXPANSION * width
        self.blocks = nnx.List(blocks)
        self.head = layers.linear(channels, config.num_classes, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w 3"], *, train: bool) -> tuple[Float[Array, "b n"], Float[Array, "b f"]]:
        """Logits, and the pooled features before the last layer, of images in [-1, 1]."""
        if self.config.standardise:
            x = (x - jnp.array(SHIFT, x.dtype)) / jnp.array(SCALE, x.dtype)
        x = nnx.relu(self.stem(x, train=train))
        if not self.config.small_images:
            x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for block in self.blocks:
            x = block(x, train=train)
        features = x.mean(axis=(1, 2), dtype=jnp.float32)
        return self.head(features), features


KIND = NetworkKind("resnet", ResNetConfig, ResNet, "classification")
