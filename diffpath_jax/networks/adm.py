"""Common parts of ADM's two networks: residual blocks, the encoder half and the middle (Dhariwal and Nichol 2021)."""

from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key
from pydantic import Field

from diffpath_jax.networks import layers
from diffpath_jax.networks.config import (
    ClassNetworkConfig,
    Conflict,
    Downsamples,
    StemBlock,
    indivisible,
    indivisible_heads,
    odd,
)
from diffpath_jax.ranges import Depth, Multiples, Share, Width

Resampling = Literal["none", "up", "down"]
# Tokens that attention may look at besides the image: (batch, tokens, width).
Context = Float[Array, "b tokens d"]


@dataclass(frozen=True)
class AdmConfig(ClassNetworkConfig):
    """Shape of the encoder half and of every block.

    Attributes:
        channels: base width.
        channel_mult: width of each resolution level, in multiples of ``channels`` (the published networks for 512 px
            begin with .5).
        num_res_blocks: residual blocks a level.
        attention_downsamples: downsampling factors (after the stem) at which attention is used.
        num_heads: heads of each attention block.
        head_channels: channels of a head; above 0 it decides the number of heads instead of ``num_heads``.
        groups: groups of every group norm.
        dropout: rate inside residual blocks.
        film: the embedding scales and shifts the second norm; otherwise it is added before that norm.
        resample: between levels: ``block``, inside residual blocks (nearest, 2x2 mean); ``conv``, by a strided 3x3
            convolution down and nearest plus 3x3 up.
        image_channels: channels of what is denoised or classified: 3 for images, those of its codec for latents.
        stem_block: side of the pixel squares that are moved into channels before the first convolution.
        remat: forget the inside of each block and compute it again in the backward pass: less memory, about a third
            more work.
    """

    channels: Width = 256
    channel_mult: Multiples = (1, 1, 2, 3, 4)
    num_res_blocks: Depth = 2
    attention_downsamples: Downsamples = (4, 8, 16)
    num_heads: Width = 4
    head_channels: Annotated[int, Field(ge=0, le=2**16)] = 0
    groups: Width = 32
    dropout: Share = 0.0
    film: bool = True
    resample: Literal["block", "conv"] = "block"
    image_channels: Width = 3
    stem_block: StemBlock = 1
    remat: bool = False

    @property
    def stride(self) -> int:
        """Image sides must be multiples of this."""
        return self.stem_block * 2 ** (len(self.channel_mult) - 1)

    @property
    def widths(self) -> list[int]:
        """Channels of each resolution level."""
        return [int(self.channels * mult) for mult in self.channel_mult]

    @property
    def embedding(self) -> int:
        """Width of the time (and class) embedding."""
        return 4 * self.channels

    @property
    def stem_channels(self) -> int:
        """Channels of an image after the stem's rearrangement."""
        return self.image_channels * self.stem_block**2

    def heads(self, channels: int) -> int:
        """Heads of an attention block of so many channels."""
        return channels // self.head_channels if self.head_channels else self.num_heads

    def attention(self, channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.Module:
        """A fresh attention block: ``(x, context) -> x``."""
        heads = self.heads(channels)
        return layers.SelfAttention(channels, num_heads=heads, groups=self.groups, dtype=dtype, rngs=rngs)

    def conflict(self) -> Conflict | None:
        """Sinusoids come in pairs; groups divide every width, heads those at which there is attention."""
        widths = {f"level {level}": width for level, width in enumerate(self.widths)}
        attended = {f"level {i}": w for i, w in enumerate(self.widths) if 2**i in self.attention_downsamples}
        attended[f"level {len(self.widths) - 1}"] = self.widths[-1]  # the middle has attention always
        return (
            odd(self.channels)
            or indivisible("groups", widths, self.groups)
            or indivisible_heads(attended, num_heads=self.num_heads, head_channels=self.head_channels)
        )


class ResBlock(nnx.Module):
    """Residual block with the embedding, and optional resampling on both branches.

    GN, SiLU, [resample], 3x3; then ``GN (1 + scale) + shift`` (or the embedding added before GN), SiLU, dropout,
    zero-initialised 3x3. The skip branch is resampled too, and projected by 1x1 where the width changes.
    """

    def __init__(
        self,
        config: AdmConfig,
        in_channels: int,
        out_channels: int,
        *,
        resampling: Resampling = "none",
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self.resample = {"none": lambda x: x, "up": layers.upsample2x, "down": layers.downsample2x}[resampling]
        self.dropout = config.dropout
        self.film = config.film
        self.in_norm = layers.GroupNorm(in_channels, groups=config.groups)
        self.in_conv = layers.conv3x3(in_channels, out_channels, dtype=dtype, rngs=rngs)
        numbers = 2 * out_channels if config.film else out_channels
        self.condition = layers.linear(config.embedding, numbers, dtype=dtype, rngs=rngs)
        self.out_norm = layers.GroupNorm(out_channels, groups=config.groups)
        self.out_conv = layers.conv3x3(out_channels, out_channels, zero_init=True, dtype=dtype, rngs=rngs)
        self.skip = (
            nnx.data(layers.linear(in_channels, out_channels, dtype=dtype, rngs=rngs))
            if in_channels != out_channels
            else None
        )

    def __call__(
        self,
        x: Float[Array, "b h w _"],
        embedding: Float[Array, "b e"],
        key: Key[Array, ""] | None,
        skip: tuple[Float[Array, "b h w _"], ...] = (),
    ) -> Float[Array, "b h2 w2 c2"]:
        """Apply; ``key`` draws the dropout mask, the channels of ``skip`` follow those of ``x``."""
        h = self.in_conv(self.resample(self.in_norm(x, *skip, silu=True)))
        condition = self.condition(nnx.silu(embedding))
        if self.film:
            h = self.out_norm(h, scale_shift=condition, silu=True)
        else:
            h = self.out_norm(h + condition[:, None, None, :], silu=True)
        h = self.out_conv(layers.dropout(h, self.dropout, key))
        parts = [self.resample(part) for part in (x, *skip)]
        return (parts[0] if self.skip is None else layers.apply_to_parts(self.skip, parts)) + h


class ConvResample(nnx.Module):
    """Change of resolution by a 3x3 convolution: strided downwards, after nearest-neighbour enlargement upwards."""

    def __init__(self, channels: int, *, resampling: Resampling, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.enlarge = resampling == "up"
        stride = 1 if self.enlarge else 2
        self.conv = layers.conv3x3(channels, channels, stride=stride, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        embedding: Float[Array, "b e"],
        key: Key[Array, ""] | None,
        skip: tuple[Float[Array, "b h w _"], ...] = (),
    ) -> Float[Array, "b h2 w2 c"]:
        """Apply; a block of the network like any other, so it takes what the others take, and uses only ``x``."""
        return self.conv(layers.upsample2x(x) if self.enlarge else x)


class Stage(nnx.Module):
    """A block and, at some resolutions, attention after it."""

    def __init__(
        self,
        config: AdmConfig,
        in_channels: int,
        out_channels: int,
        *,
        attend: bool = False,
        resampling: Resampling = "none",
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self.remat = config.remat
        self.block = (
            ConvResample(in_channels, resampling=resampling, dtype=dtype, rngs=rngs)
            if resampling != "none" and config.resample == "conv"
            else ResBlock(config, in_channels, out_channels, resampling=resampling, dtype=dtype, rngs=rngs)
        )
        self.attention = nnx.data(config.attention(out_channels, dtype=dtype, rngs=rngs) if attend else None)

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        embedding: Float[Array, "b e"],
        key: Key[Array, ""] | None,
        context: Context | None = None,
        skip: tuple[Float[Array, "b h w _"], ...] = (),
    ) -> Float[Array, "b h2 w2 c2"]:
        """Apply both; the channels of ``skip`` follow those of ``x``."""
        apply = nnx.remat(Stage._apply) if self.remat else Stage._apply
        return apply(self, x, embedding, key, context, skip)

    def _apply(
        self,
        x: jax.Array,
        embedding: jax.Array,
        key: jax.Array | None,
        context: jax.Array | None,
        skip: tuple[jax.Array, ...],
    ) -> jax.Array:
        x = self.block(x, embedding, key, skip)
        return x if self.attention is None else self.attention(x, context)


class TimeEmbedding(nnx.Module):
    """Sinusoids of the timestep through two dense layers, in float32: half precision confuses neighbouring steps."""

    def __init__(self, channels: int, embedding: int, *, rngs: nnx.Rngs) -> None:
        self.channels = channels
        self.into = layers.linear(channels, embedding, dtype=jnp.float32, rngs=rngs)
        self.out = layers.linear(embedding, embedding, dtype=jnp.float32, rngs=rngs)

    def __call__(self, t: Int[Array, "b"]) -> Float[Array, "b e"]:
        """Embed."""
        return self.out(nnx.silu(self.into(layers.fourier_features(t, self.channels))))


class Encoder(nnx.Module):
    """Stem, the downward path, and the middle (block, attention, block)."""

    def __init__(self, config: AdmConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.config = config
        widths = config.widths
        self.stem = layers.conv3x3(config.stem_channels, widths[0], dtype=dtype, rngs=rngs)
        skip_widths, width = [widths[0]], widths[0]
        down: list[Stage] = []
        for level, out_width in enumerate(widths):
            for _ in range(config.num_res_blocks):
                attend = 2**level in config.attention_downsamples
                down.append(Stage(config, width, out_width, attend=attend, dtype=dtype, rngs=rngs))
                width = out_width
                skip_widths.append(width)
            if level < len(widths) - 1:
                down.append(Stage(config, width, width, resampling="down", dtype=dtype, rngs=rngs))
                skip_widths.append(width)
        self.down = nnx.List(down)
        self.middle = nnx.List(
            [Stage(config, width, width, attend=attend, dtype=dtype, rngs=rngs) for attend in (True, False)]
        )
        self.skip_widths, self.width = tuple(skip_widths), width

    @property
    def num_keys(self) -> int:
        """Dropout keys that a call takes."""
        return len(self.down) + len(self.middle)

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        embedding: Float[Array, "b e"],
        keys: list[Key[Array, ""] | None],
        context: Context | None = None,
    ) -> tuple[Float[Array, "b h2 w2 c2"], list[Float[Array, "b _ _ _"]]]:
        """Encode.

        Returns:
            The features after the middle, and those that a decoder takes up again, finest first.

        Raises:
            ValueError: height or width is not a multiple of :attr:`AdmConfig.stride`.
        """
        if x.shape[1] % self.config.stride or x.shape[2] % self.config.stride:
            raise ValueError(f"{x.shape[1]}x{x.shape[2]} px is not a multiple of {self.config.stride}")
        h = self.stem(layers.space_to_depth(x, self.config.stem_block))
        skips = [h]
        keys = list(keys)
        for stage in self.down:
            h = stage(h, embedding, keys.pop(), context)
            skips.append(h)
        for stage in self.middle:
            h = stage(h, embedding, keys.pop(), context)
        return h, skips


def dropout_keys(key: Key[Array, ""] | None, count: int) -> list[Key[Array, ""] | None]:
    """A key for each block; none in evaluation."""
    return [None] * count if key is None else list(jax.random.split(key, count))
