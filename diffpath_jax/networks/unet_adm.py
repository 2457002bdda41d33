"""The UNet of ADM (Dhariwal and Nichol 2021, "Diffusion models beat GANs on image synthesis", section 3)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from diffpath_jax.networks import layers


@dataclass(frozen=True)
class UNetConfig:
    """Shape of the network.

    Attributes:
        num_classes: rows of the class embedding, the null class included; 0 for an unconditional network.
        channels: base width.
        channel_mult: width of each resolution level, in multiples of ``channels``.
        num_res_blocks: residual blocks a level.
        attention_downsamples: downsampling factors (after the stem) at which attention is used.
        num_heads: heads of each attention block.
        groups: groups of every group norm.
        dropout: rate inside residual blocks.
        learn_sigma: give three more output channels for the variance (learned range).
        stem_block: side of the pixel squares that are moved into channels before the first convolution.
    """

    num_classes: int
    channels: int = 256
    channel_mult: tuple[int, ...] = (1, 1, 2, 3, 4)
    num_res_blocks: int = 2
    attention_downsamples: tuple[int, ...] = (4, 8, 16)
    num_heads: int = 4
    groups: int = 32
    dropout: float = 0.0
    learn_sigma: bool = False
    stem_block: int = 1

    @property
    def stride(self) -> int:
        """Image sides must be multiples of this."""
        return self.stem_block * 2 ** (len(self.channel_mult) - 1)


class ResBlock(nnx.Module):
    """Residual block: FiLM (scale and shift) from the embedding, optional resampling on both branches.

    GN, SiLU, [resample], 3x3; then GN (1 + scale) + shift, SiLU, dropout, zero-initialised 3x3. The skip branch is
    resampled too, and projected by 1x1 where the width changes.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        embedding: int,
        groups: int,
        dropout: float,
        resample: str = "none",
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self.resample = {
            "none": lambda x: x,
            "up": layers.upsample2x,
            "down": layers.downsample2x,
        }[resample]
        self.dropout = dropout
        self.in_norm = layers.GroupNorm(in_channels, groups=groups)
        self.in_conv = layers.conv3x3(in_channels, out_channels, dtype=dtype, rngs=rngs)
        self.film = layers.linear(embedding, 2 * out_channels, dtype=dtype, rngs=rngs)
        self.out_norm = layers.GroupNorm(out_channels, groups=groups)
        self.out_conv = layers.conv3x3(out_channels, out_channels, zero_init=True, dtype=dtype, rngs=rngs)
        self.skip = (
            nnx.data(layers.linear(in_channels, out_channels, dtype=dtype, rngs=rngs))
            if in_channels != out_channels
            else None
        )

    def __call__(
        self, x: Float[Array, "b h w c"], embedding: Float[Array, "b e"], key: Key[Array, ""] | None
    ) -> Float[Array, "b h2 w2 c2"]:
        """Apply; ``key`` draws the dropout mask."""
        h = self.in_conv(self.resample(nnx.silu(self.in_norm(x))))
        scale, shift = jnp.split(self.film(nnx.silu(embedding))[:, None, None, :], 2, axis=-1)
        h = nnx.silu(self.out_norm(h) * (1 + scale) + shift)
        h = self.out_conv(layers.dropout(h, self.dropout, key))
        x = self.resample(x)
        return (x if self.skip is None else self.skip(x)) + h


class Stage(nnx.Module):
    """A residual block and, at some resolutions, attention after it."""

    def __init__(self, block: ResBlock, attention: layers.SelfAttention | None) -> None:
        self.block = block
        self.attention = nnx.data(attention)

    def __call__(
        self, x: Float[Array, "b h w c"], embedding: Float[Array, "b e"], key: Key[Array, ""] | None
    ) -> Float[Array, "b h2 w2 c2"]:
        """Apply both."""
        x = self.block(x, embedding, key)
        return x if self.attention is None else self.attention(x)


class UNet(nnx.Module):
    """Class-conditional noise predictor; fully convolutional, so any image side divisible by the stride works."""

    def __init__(self, config: UNetConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.config = config
        embedding = 4 * config.channels
        stem_channels = 3 * config.stem_block**2
        self.time_in = layers.linear(config.channels, embedding, dtype=dtype, rngs=rngs)
        self.time_out = layers.linear(embedding, embedding, dtype=dtype, rngs=rngs)
        self.classes = nnx.data(
            nnx.Embed(config.num_classes, embedding, dtype=dtype, rngs=rngs) if config.num_classes else None
        )

        def stage(in_channels: int, out_channels: int, *, attend: bool = False, resample: str = "none") -> Stage:
            block = ResBlock(
                in_channels,
                out_channels,
                embedding=embedding,
                groups=config.groups,
                dropout=config.dropout,
                resample=resample,
                dtype=dtype,
                rngs=rngs,
            )
            attention = (
                layers.SelfAttention(
                    out_channels, num_heads=config.num_heads, groups=config.groups, dtype=dtype, rngs=rngs
                )
                if attend
                else None
            )
            return Stage(block, attention)

        widths = [config.channels * mult for mult in config.channel_mult]
        self.stem = layers.conv3x3(stem_channels, widths[0], dtype=dtype, rngs=rngs)
        skips, width = [widths[0]], widths[0]
        encoder: list[Stage] = []
        for level, out_width in enumerate(widths):
            for _ in range(config.num_res_blocks):
                encoder.append(stage(width, out_width, attend=2**level in config.attention_downsamples))
                width = out_width
                skips.append(width)
            if level < len(widths) - 1:
                encoder.append(stage(width, width, resample="down"))
                skips.append(width)
        self.encoder = nnx.List(encoder)
        self.middle = nnx.List([stage(width, width, attend=True), stage(width, width)])
        decoder: list[nnx.List] = []
        for level, out_width in reversed(list(enumerate(widths))):
            for number in range(config.num_res_blocks + 1):
                attend = 2**level in config.attention_downsamples
                stages = [stage(width + skips.pop(), out_width, attend=attend)]
                width = out_width
                if level and number == config.num_res_blocks:
                    stages.append(stage(width, width, resample="up"))
                decoder.append(nnx.List(stages))
        self.decoder = nnx.List(decoder)
        self.out_norm = layers.GroupNorm(width, groups=config.groups)
        out_channels = stem_channels * (2 if config.learn_sigma else 1)
        self.out_conv = layers.conv3x3(width, out_channels, zero_init=True, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        t: Int[Array, "b"],
        labels: Int[Array, "b"] | None,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b h w out"]:
        """Predict from noisy images.

        Args:
            x: noisy images.
            t: timestep of the unrespaced schedule.
            labels: class of each image, the null class included.
            key: draws the dropout masks; none means evaluation.

        Raises:
            ValueError: height or width is not a multiple of :attr:`UNetConfig.stride`.
        """
        if x.shape[1] % self.config.stride or x.shape[2] % self.config.stride:
            raise ValueError(f"{x.shape[1]}x{x.shape[2]} px is not a multiple of {self.config.stride}")
        embedding = self.time_out(nnx.silu(self.time_in(layers.fourier_features(t, self.config.channels))))
        if self.classes is not None and labels is not None:
            embedding = embedding + self.classes(labels)
        keys = _keys(key, len(self.encoder) + 2 + sum(len(stages) for stages in self.decoder))
        h = self.stem(layers.space_to_depth(x, self.config.stem_block))
        skips = [h]
        for stage in self.encoder:
            h = stage(h, embedding, keys.pop())
            skips.append(h)
        for stage in self.middle:
            h = stage(h, embedding, keys.pop())
        for stages in self.decoder:
            h = jnp.concatenate([h, skips.pop()], axis=-1)
            for stage in stages:
                h = stage(h, embedding, keys.pop())
        out = self.out_conv(nnx.silu(self.out_norm(h))).astype(jnp.float32)
        return layers.depth_to_space(out, self.config.stem_block)


def _keys(key: Key[Array, ""] | None, count: int) -> list[Key[Array, ""] | None]:
    return [None] * count if key is None else list(jax.random.split(key, count))
