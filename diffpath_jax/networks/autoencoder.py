"""Autoencoders of latent diffusion, with a codebook or a normal distribution (Esser et al. 2021; Rombach et al. 2022).

Fully convolutional: images of any size that is a multiple of the stride. NHWC, parameters and norms in float32.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int
from pydantic import Field

from diffpath_jax.networks import layers
from diffpath_jax.networks.codebook import Codebook
from diffpath_jax.networks.codecs import CERTAIN, GAUSSIAN, Posterior
from diffpath_jax.networks.config import Conflict, Downsamples, NetworkConfig, NetworkKind, StemBlock, indivisible
from diffpath_jax.ranges import Depth, Levels, Width

EPS = 1e-6
# Padding of a strided convolution: none above and to the left.
BELOW_AND_RIGHT = ((0, 1), (0, 1))
# Attention in the middle: after the first of two blocks.
MIDDLE = (True, False)


@dataclass(frozen=True)
class AutoencoderConfig(NetworkConfig):
    """Shape of the network; the defaults are those of VQ-f4 and KL-f4.

    Attributes:
        channels: base width.
        channel_mult: width of each resolution level, in multiples of ``channels``.
        num_res_blocks: residual blocks a level of the encoder; the decoder has one more.
        attention_downsamples: downsampling factors at which attention follows each residual block; the middle has it
            always.
        latent_channels: of a latent.
        z_channels: channels between encoder and decoder and the layers beside the latent; 0 for those of a latent.
        groups: groups of every group norm.
        stem_block: side of the pixel squares that are moved into channels before the first convolution, and back after
            the last.
        remat: forget the inside of each block and compute it again in the backward pass.
    """

    channels: Width = 128
    channel_mult: Levels = (1, 2, 4)
    num_res_blocks: Depth = 2
    attention_downsamples: Downsamples = ()
    latent_channels: Width = 3
    z_channels: Annotated[int, Field(ge=0, le=2**16)] = 0
    groups: Width = 32
    stem_block: StemBlock = 1
    remat: bool = False

    @property
    def widths(self) -> list[int]:
        """Channels of each resolution level."""
        return [self.channels * mult for mult in self.channel_mult]

    @property
    def factor(self) -> int:
        """Image pixels a latent pixel, along each side."""
        return self.stem_block * 2 ** (len(self.channel_mult) - 1)

    @property
    def stem_channels(self) -> int:
        """Channels of an image after the stem's rearrangement."""
        return self.image_channels * self.stem_block**2

    @property
    def stride(self) -> int:
        """Image sides must be multiples of this."""
        return self.factor

    @property
    def inner_channels(self) -> int:
        """Channels that the decoder takes."""
        return self.z_channels or self.latent_channels

    @property
    def code_parts(self) -> int:
        """Numbers that the encoder gives for a channel of a latent."""
        return 1

    @property
    def codebook_size(self) -> int:
        """Codes that latents are drawn to; 0 without a codebook."""
        return 0

    @property
    def posterior(self) -> Posterior:
        """From what the encoder gives to latents."""
        return CERTAIN

    def conflict(self) -> Conflict | None:
        """Groups divide every width."""
        widths = {f"level {level}": width for level, width in enumerate(self.widths)}
        return indivisible("groups", widths, self.groups)


@dataclass(frozen=True)
class VQConfig(AutoencoderConfig):
    """Shape of an autoencoder with a codebook.

    Attributes:
        codebook_size: codes in the book.
        assignment: code of a latent: the ``nearest``, or that of the largest of its ``logits`` (Jang et al. 2017,
            "Categorical reparameterization with Gumbel-softmax"), which is read from published files and not trained.
    """

    codebook_size: Annotated[int, Field(ge=1, le=2**24)] = 8192
    assignment: Literal["nearest", "logits"] = "nearest"


@dataclass(frozen=True)
class KLConfig(AutoencoderConfig):
    """Shape of an autoencoder whose encoder gives a normal distribution."""

    @property
    def code_parts(self) -> int:
        """A mean and a log-variance."""
        return 2

    @property
    def posterior(self) -> Posterior:
        """A draw from the normal distribution."""
        return GAUSSIAN


class ResBlock(nnx.Module):
    """GN, SiLU, 3x3, twice; the skip branch is projected by 1x1 where the width changes."""

    def __init__(
        self, config: AutoencoderConfig, in_channels: int, out_channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        self.in_norm = layers.GroupNorm(in_channels, groups=config.groups, eps=EPS)
        self.in_conv = layers.conv3x3(in_channels, out_channels, dtype=dtype, rngs=rngs)
        self.out_norm = layers.GroupNorm(out_channels, groups=config.groups, eps=EPS)
        self.out_conv = layers.conv3x3(out_channels, out_channels, dtype=dtype, rngs=rngs)
        self.skip = nnx.data(
            layers.linear(in_channels, out_channels, dtype=dtype, rngs=rngs) if in_channels != out_channels else None
        )

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c2"]:
        """Apply."""
        h = self.in_conv(self.in_norm(x, silu=True))
        h = self.out_conv(self.out_norm(h, silu=True))
        return (x if self.skip is None else self.skip(x)) + h


class Stage(nnx.Module):
    """A residual block and, at some resolutions, attention with one head after it."""

    def __init__(
        self,
        config: AutoencoderConfig,
        in_channels: int,
        out_channels: int,
        *,
        attend: bool = False,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self.remat = config.remat
        self.block = ResBlock(config, in_channels, out_channels, dtype=dtype, rngs=rngs)
        self.attention = nnx.data(
            layers.SelfAttention(
                out_channels, num_heads=1, groups=config.groups, eps=EPS, zero_init=False, dtype=dtype, rngs=rngs
            )
            if attend
            else None
        )

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c2"]:
        """Apply both."""
        return (nnx.remat(Stage._apply) if self.remat else Stage._apply)(self, x)

    def _apply(self, x: jax.Array) -> jax.Array:
        x = self.block(x)
        return x if self.attention is None else self.attention(x)


def _stages(
    config: AutoencoderConfig,
    in_channels: int,
    width: int,
    attends: Sequence[bool],
    *,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> nnx.List[Stage]:
    """One after the other, with or without attention."""
    inputs = [in_channels, *[width] * len(attends)]
    return nnx.List(
        [Stage(config, inputs[i], width, attend=attend, dtype=dtype, rngs=rngs) for i, attend in enumerate(attends)]
    )


def _through(stages: Iterable[Stage], x: jax.Array) -> jax.Array:
    for stage in stages:
        x = stage(x)
    return x


class Encoder(nnx.Module):
    """Images to features of a latent."""

    def __init__(self, config: AutoencoderConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.stride, self.stem_block = config.stride, config.stem_block
        width = config.channels
        self.stem = layers.conv3x3(config.stem_channels, width, dtype=dtype, rngs=rngs)
        levels, shrink = [], []
        for number, out_width in enumerate(config.widths):
            if number:
                shrink.append(layers.conv3x3(width, width, stride=2, padding=BELOW_AND_RIGHT, dtype=dtype, rngs=rngs))
            attends = [2**number in config.attention_downsamples] * config.num_res_blocks
            levels.append(_stages(config, width, out_width, attends, dtype=dtype, rngs=rngs))
            width = out_width
        self.levels, self.shrink = nnx.List(levels), nnx.List(shrink)
        self.middle = _stages(config, width, width, MIDDLE, dtype=dtype, rngs=rngs)
        self.out_norm = layers.GroupNorm(width, groups=config.groups, eps=EPS)
        self.out_conv = layers.conv3x3(width, config.code_parts * config.inner_channels, dtype=jnp.float32, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b h2 w2 c"]:
        """Encode.

        Raises:
            ValueError: height or width is not a multiple of :attr:`AutoencoderConfig.stride`.
        """
        if x.shape[1] % self.stride or x.shape[2] % self.stride:
            raise ValueError(f"{x.shape[1]}x{x.shape[2]} px is not a multiple of {self.stride}")
        h = self.stem(layers.space_to_depth(x, self.stem_block))
        for number, stages in enumerate(self.levels):
            h = _through(stages, self.shrink[number - 1](h) if number else h)
        h = _through(self.middle, h)
        return self.out_conv(self.out_norm(h, silu=True, dtype=jnp.float32))


class Decoder(nnx.Module):
    """Latents to images; its levels are numbered as the encoder's, and used from the last to the first."""

    def __init__(self, config: AutoencoderConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        widths, width, levels = config.widths, config.widths[-1], []
        self.stem = layers.conv3x3(config.inner_channels, width, dtype=dtype, rngs=rngs)
        self.middle = _stages(config, width, width, MIDDLE, dtype=dtype, rngs=rngs)
        for number, (width_above, out_width) in enumerate(zip([*widths[1:], width], widths, strict=True)):
            attends = [2**number in config.attention_downsamples] * (config.num_res_blocks + 1)
            levels.append(_stages(config, width_above, out_width, attends, dtype=dtype, rngs=rngs))
        self.levels = nnx.List(levels)
        self.enlarge = nnx.List([layers.conv3x3(width, width, dtype=dtype, rngs=rngs) for width in widths[1:]])
        self.out_norm = layers.GroupNorm(widths[0], groups=config.groups, eps=EPS)
        self.out_conv = layers.conv3x3(widths[0], config.stem_channels, dtype=jnp.float32, rngs=rngs)

    def features(self, z: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        """Channels before the last convolution."""
        h = _through(self.middle, self.stem(z))
        for number in reversed(range(len(self.levels))):
            h = _through(self.levels[number], h)
            if number:
                h = self.enlarge[number - 1](layers.upsample2x(h))
        return self.out_norm(h, silu=True, dtype=jnp.float32)


class Autoencoder(nnx.Module):
    """Common part of both kinds of autoencoder."""

    def __init__(self, config: AutoencoderConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.stem_block = config.stem_block
        self.encoder = Encoder(config, dtype=dtype, rngs=rngs)
        inner, outer = config.inner_channels, config.latent_channels
        parts = config.code_parts
        self.quant = layers.linear(parts * inner, parts * outer, dtype=jnp.float32, rngs=rngs)
        self.post_quant = layers.linear(outer, inner, dtype=jnp.float32, rngs=rngs)
        self.decoder = Decoder(config, dtype=dtype, rngs=rngs)

    def encode(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b h2 w2 c"]:
        """Images in [-1, 1] to latents before quantisation, or to moments: mean and log-variance of each channel.

        Raises:
            ValueError: height or width is not a multiple of the stride.
        """
        return self.quant(self.encoder(x))

    def features(self, z: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        """All of the decoder but its last layer; of a codebook's latents, those that are quantised."""
        return self.decoder.features(self.post_quant(z))

    def to_image(self, h: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 3"]:
        """The decoder's last layer: images, near [-1, 1]."""
        return layers.depth_to_space(self.decoder.out_conv(h), self.stem_block)


class VQAutoencoder(Autoencoder):
    """Autoencoder whose latents are drawn to the codes of a book (van den Oord et al. 2017)."""

    def __init__(self, config: VQConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        super().__init__(config, dtype=dtype, rngs=rngs)
        size, channels = config.codebook_size, config.latent_channels
        self.codebook = Codebook(size, channels, rngs=rngs)
        has_logits = config.assignment == "logits"
        self.logits = nnx.data(layers.linear(channels, size, dtype=jnp.float32, rngs=rngs) if has_logits else None)

    def quantise(self, z: Float[Array, "b h w c"]) -> tuple[Float[Array, "b h w c"], Int[Array, "b h w"]]:
        """The code of each latent, with gradients to the codes alone, and its index."""
        indices = self.codebook.nearest(z) if self.logits is None else self.logits(z).argmax(axis=-1)
        return self.codebook(indices), indices

    def decode(self, z: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 3"]:
        """Images of latents, which are quantised first."""
        return self.to_image(self.features(self.quantise(z)[0]))

    def __call__(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """Encode and decode."""
        return self.decode(self.encode(x))


class KLAutoencoder(Autoencoder):
    """Autoencoder whose encoder gives a normal distribution of latents (Kingma and Welling 2014)."""

    def decode(self, z: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 3"]:
        """Images of latents."""
        return self.to_image(self.features(z))

    def __call__(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """Encode, and decode the mean."""
        return self.decode(jnp.split(self.encode(x), 2, axis=-1)[0])


VQ = NetworkKind("vq_autoencoder", VQConfig, VQAutoencoder, "autoencoding")
KL = NetworkKind("kl_autoencoder", KLConfig, KLAutoencoder, "autoencoding")
