"""The smaller UNet of the paper's own code (58,663,683 parameters with 5 classes), which its text calls ADM.

A post-norm UNet after Ho et al. 2020: convolution, GroupNorm, SiLU; attention of Vaswani et al. 2017 with a norm after
the residual sum; resampling by strided convolution and by bilinear enlargement with aligned corners.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key
from pydantic import Field

from diffpath_jax.networks import layers
from diffpath_jax.networks.conditions import LABEL
from diffpath_jax.networks.config import ClassNetworkConfig, Conflict, NetworkKind, indivisible, indivisible_heads, odd
from diffpath_jax.ranges import Levels, Width
from diffpath_jax.shapes import Conditions


@dataclass(frozen=True)
class AuthorsUNetConfig(ClassNetworkConfig):
    """Shape of the network; the defaults are the authors'.

    The null class is the last row of the class embedding here; the authors have no row for it and add nothing, which
    ``null_row = False`` does.

    Attributes:
        channels: width of the first level.
        channel_mult: width of each level, in multiples of ``channels``; every level halves the resolution.
        attention_levels: levels (from 0, the finest) with attention.
        num_heads: heads of each attention block.
        groups: groups of every group norm.
        null_row: give the null class a row of its own.
    """

    channels: Width = 128
    channel_mult: Levels = (1, 1, 2, 2, 4)
    attention_levels: Annotated[tuple[Annotated[int, Field(ge=0, lt=16)], ...], Field(max_length=16)] = (3,)
    num_heads: Width = 4
    groups: Width = 32
    null_row: bool = False

    @property
    def stride(self) -> int:
        """Image sides must be multiples of this."""
        return 2 ** len(self.channel_mult)

    @property
    def widths(self) -> list[int]:
        """Channels of each level."""
        return [self.channels * mult for mult in self.channel_mult]

    def conflict(self) -> Conflict | None:
        """Sinusoids come in pairs; groups divide every width, heads those at which there is attention."""
        widths = {f"level {level}": width for level, width in enumerate(self.widths)}
        attended = {f"level {i}": w for i, w in enumerate(self.widths) if i in self.attention_levels}
        attended[f"level {len(self.widths) - 1}"] = self.widths[-1]  # the middle has attention always
        normed = {**widths, "level 0 and the stem": self.widths[0] + self.channels}
        return (
            odd(self.channels)
            or indivisible("groups", normed, self.groups)
            or indivisible_heads(attended, num_heads=self.num_heads)
        )


def sinusoids(t: Int[Array, "b"], dim: int) -> Float[Array, "b {dim}"]:
    """Sines and cosines in turn (Vaswani et al. 2017, section 3.5)."""
    frequencies = jnp.exp(-math.log(1e4) * jnp.arange(0, dim, 2, dtype=jnp.float32) / dim)
    angles = t.astype(jnp.float32)[:, None] * frequencies
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(t.shape[0], dim)


def enlarge(x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c"]:
    """Bilinear enlargement in which the corners of input and output coincide."""
    for axis in (1, 2):
        size = x.shape[axis]
        place = jnp.arange(2 * size) * ((size - 1) / (2 * size - 1))
        low = jnp.clip(jnp.floor(place).astype(int), 0, max(size - 2, 0))
        high = jnp.minimum(low + 1, size - 1)
        shape = [1, 1, 1, 1]
        shape[axis] = 2 * size
        weight = (place - low).astype(x.dtype).reshape(shape)
        x = x.take(low, axis) * (1 - weight) + x.take(high, axis) * weight
    return x


class PostNormBlock(nnx.Module):
    """3x3, GN, SiLU; plus the embedding; 3x3, GN, SiLU; plus the input."""

    def __init__(
        self, in_channels: int, out_channels: int, *, embedding: int, groups: int, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        self.condition = layers.linear(embedding, out_channels, dtype=dtype, rngs=rngs)
        self.in_conv = layers.conv3x3(in_channels, out_channels, dtype=dtype, rngs=rngs)
        self.in_norm = layers.GroupNorm(out_channels, groups=groups)
        self.out_conv = layers.conv3x3(out_channels, out_channels, dtype=dtype, rngs=rngs)
        self.out_norm = layers.GroupNorm(out_channels, groups=groups)
        self.skip = (
            nnx.data(layers.linear(in_channels, out_channels, dtype=dtype, rngs=rngs))
            if in_channels != out_channels
            else None
        )

    def __call__(self, x: Float[Array, "b h w c"], embedding: Float[Array, "b e"]) -> Float[Array, "b h w c2"]:
        """Apply."""
        h = self.in_norm(self.in_conv(x), silu=True)
        h = h + self.condition(nnx.silu(embedding))[:, None, None, :]
        h = self.out_norm(self.out_conv(h), silu=True)
        return h + (x if self.skip is None else self.skip(x))


class PostNormAttention(nnx.Module):
    """Scaled dot-product attention over all positions; GN of the sum with the input."""

    def __init__(self, channels: int, *, num_heads: int, groups: int, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.num_heads = num_heads
        self.query, self.key, self.value, self.out = (
            layers.linear(channels, channels, dtype=dtype, rngs=rngs) for _ in range(4)
        )
        self.norm = layers.GroupNorm(channels, groups=groups)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Attend."""
        batch, height, width, channels = x.shape
        heads = (batch, height * width, self.num_heads, channels // self.num_heads)
        attended = layers.attention(*(part(x).reshape(heads) for part in (self.query, self.key, self.value)))
        return self.norm(x + self.out(attended.reshape(x.shape)))


class Level(nnx.Module):
    """Two blocks, each with attention where asked for, and a change of resolution."""

    def __init__(
        self,
        config: AuthorsUNetConfig,
        in_channels: int,
        out_channels: int,
        *,
        attend: bool,
        resampling: str,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        options: dict[str, Any] = {"groups": config.groups, "dtype": dtype, "rngs": rngs}
        embedding = 4 * config.channels
        self.blocks = nnx.List(
            [
                PostNormBlock(width, out_channels, embedding=embedding, **options)
                for width in (in_channels, out_channels)
            ]
        )
        self.attentions = nnx.data(
            nnx.List([PostNormAttention(out_channels, num_heads=config.num_heads, **options) for _ in range(2)])
            if attend
            else None
        )
        self.resampling = resampling
        stride = 2 if resampling == "down" else 1
        self.conv = nnx.data(
            None
            if resampling == "none"
            else layers.conv3x3(out_channels, out_channels, stride=stride, dtype=dtype, rngs=rngs)
        )

    def __call__(self, x: Float[Array, "b h w c"], embedding: Float[Array, "b e"]) -> Float[Array, "b h2 w2 c2"]:
        """Apply."""
        for number, block in enumerate(self.blocks):
            x = block(x, embedding)
            if self.attentions is not None:
                x = self.attentions[number](x)
        if self.conv is None:
            return x
        return self.conv(enlarge(x) if self.resampling == "up" else x)


class AuthorsUNet(nnx.Module):
    """Class-conditional noise predictor of the paper's code."""

    def __init__(self, config: AuthorsUNetConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.config = config
        base, embedding = config.channels, 4 * config.channels
        self.time_in = layers.linear(base, embedding, dtype=jnp.float32, rngs=rngs)
        self.time_out = layers.linear(embedding, embedding, dtype=jnp.float32, rngs=rngs)
        self.rows = config.num_classes if config.null_row else config.num_classes - 1
        self.classes = nnx.Embed(self.rows, embedding, dtype=jnp.float32, rngs=rngs)
        self.stem = layers.conv3x3(3, base, dtype=dtype, rngs=rngs)
        widths = config.widths

        def level(inputs: int, outputs: int, *, attend: bool, resampling: str) -> Level:
            return Level(config, inputs, outputs, attend=attend, resampling=resampling, dtype=dtype, rngs=rngs)

        attended = [number in config.attention_levels for number in range(len(widths))]
        before = [base, *widths]
        self.down = nnx.List(
            [
                level(before[number], width, attend=attended[number], resampling="down")
                for number, width in enumerate(widths)
            ]
        )
        self.middle = level(widths[-1], widths[-1], attend=True, resampling="none")
        up, width = [], widths[-1]
        for number in reversed(range(len(widths))):
            inputs = width + widths[number]
            width = widths[number]
            up.append(level(inputs, width, attend=attended[number], resampling="up"))
        self.up = nnx.List(up)
        self.out_norm = layers.GroupNorm(width + base, groups=config.groups)
        self.out_conv = layers.conv3x3(width + base, 3, dtype=jnp.float32, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        t: Int[Array, "b"],
        conditions: Conditions,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b h w 3"]:
        """Predict eps; ``key`` is not used, there is no dropout.

        Raises:
            ValueError: height or width is not a multiple of :attr:`AuthorsUNetConfig.stride`.
        """
        if x.shape[1] % self.config.stride or x.shape[2] % self.config.stride:
            raise ValueError(f"{x.shape[1]}x{x.shape[2]} px is not a multiple of {self.config.stride}")
        embedding = self.time_out(jax.nn.gelu(self.time_in(sinusoids(t, self.config.channels)), approximate=False))
        labels = conditions[LABEL.name]
        known = (labels < self.rows)[:, None]
        embedding = embedding + jnp.where(known, self.classes(jnp.minimum(labels, self.rows - 1)), 0)
        h = self.stem(x)
        skips = [h]
        for level in self.down:
            h = level(h, embedding)
            skips.append(h)
        h = self.middle(h, embedding)
        for level in self.up:
            h = level(jnp.concatenate([h, skips.pop()], axis=-1), embedding)
        h = jnp.concatenate([h, skips.pop()], axis=-1)
        return self.out_conv(self.out_norm(h, silu=True, dtype=jnp.float32))


KIND = NetworkKind("unet_authors", AuthorsUNetConfig, AuthorsUNet, "diffusion")
