"""The UNet of latent diffusion (Rombach et al. 2022): ADM's, with transformers that attend to a token a condition."""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffpath_jax.networks import adm, layers
from diffpath_jax.networks.config import Downsamples, NetworkKind
from diffpath_jax.networks.unet_adm import UNet, UNetConfig
from diffpath_jax.ranges import Depth, Multiples, Width

FEED_FORWARD = 4


@dataclass(frozen=True)
class LatentUNetConfig(UNetConfig):
    """Shape of the network; the defaults are those of the paper's ``kgh.yaml``, for 32 x 32 latents.

    Attributes:
        context_width: width of the class token.
        transformer_depth: transformer blocks at each place of attention.
    """

    channels: Width = 192
    channel_mult: Multiples = (1, 2, 3, 4)
    attention_downsamples: Downsamples = (2, 4, 8)
    num_heads: Width = 1
    film: bool = False
    resample: Literal["block", "conv"] = "conv"
    context_width: Width = 512
    transformer_depth: Depth = 1

    @property
    def condition_width(self) -> int:
        """Width of the embedding of a condition: it is a token."""
        return self.context_width

    def attention(self, channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.Module:
        """A fresh spatial transformer."""
        return SpatialTransformer(self, channels, dtype=dtype, rngs=rngs)


class LatentUNet(UNet):
    """Noise predictor for latents: conditions reach it through attention, not through the time embedding."""

    def __init__(self, config: LatentUNetConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        super().__init__(config, dtype=dtype, rngs=rngs)

    def _condition(
        self, time: Float[Array, "b e"], embedded: list[Float[Array, "b d"]]
    ) -> tuple[Float[Array, "b e"], adm.Context | None]:
        return time, jnp.stack(embedded, axis=1) if embedded else None


class SpatialTransformer(nnx.Module):
    """GN, 1x1, transformer blocks over all positions, zero-initialised 1x1; residual."""

    def __init__(self, config: LatentUNetConfig, channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.norm = layers.GroupNorm(channels, groups=config.groups, eps=1e-6)
        self.into = layers.linear(channels, channels, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List(
            [TransformerBlock(config, channels, dtype=dtype, rngs=rngs) for _ in range(config.transformer_depth)]
        )
        self.out = layers.linear(channels, channels, zero_init=True, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"], context: adm.Context | None) -> Float[Array, "b h w c"]:
        """Attend to the image and to the context."""
        batch, height, width, channels = x.shape
        h = self.into(self.norm(x)).reshape(batch, height * width, channels)
        for block in self.blocks:
            h = block(h, context)
        return x + self.out(h.reshape(x.shape))


class TransformerBlock(nnx.Module):
    """Self-attention, cross-attention and a gated feed-forward network, each after a layer norm and residual."""

    def __init__(self, config: LatentUNetConfig, channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        heads = config.heads(channels)
        self.norms = nnx.List([layer_norm(channels, rngs=rngs) for _ in range(3)])
        self.to_self = Attention(channels, channels, num_heads=heads, dtype=dtype, rngs=rngs)
        self.to_context = Attention(channels, config.context_width, num_heads=heads, dtype=dtype, rngs=rngs)
        self.gate = layers.linear(channels, 2 * FEED_FORWARD * channels, dtype=dtype, rngs=rngs)
        self.feed = layers.linear(FEED_FORWARD * channels, channels, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b n c"], context: adm.Context | None) -> Float[Array, "b n c"]:
        """Apply; without a context the second attention looks at the image once more."""
        before_self, before_context, before_feed = self.norms
        h = before_self(x).astype(x.dtype)
        x = x + self.to_self(h, h)
        h = before_context(x).astype(x.dtype)
        x = x + self.to_context(h, h if context is None else context.astype(x.dtype))
        # GEGLU (Shazeer 2020): half of the numbers, times GELU of the others.
        values, gates = jnp.split(self.gate(before_feed(x).astype(x.dtype)), 2, axis=-1)
        return x + self.feed(values * nnx.gelu(gates, approximate=False))


def layer_norm(channels: int, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Layer normalisation, computed in float32."""
    return nnx.LayerNorm(channels, epsilon=1e-5, dtype=jnp.float32, rngs=rngs)


class Attention(nnx.Module):
    """Multi-head attention of tokens to others of any width, with an output projection."""

    def __init__(self, channels: int, width: int, *, num_heads: int, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        if channels % num_heads:
            raise ValueError(f"{channels} channels do not divide into {num_heads} heads")
        self.num_heads = num_heads
        self.q = layers.linear(channels, channels, use_bias=False, dtype=dtype, rngs=rngs)
        self.k = layers.linear(width, channels, use_bias=False, dtype=dtype, rngs=rngs)
        self.v = layers.linear(width, channels, use_bias=False, dtype=dtype, rngs=rngs)
        self.out = layers.linear(channels, channels, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b n c"], tokens: Float[Array, "b m d"]) -> Float[Array, "b n c"]:
        """Attend to ``tokens``.

        Of a single token all weight goes to it, whatever q and k are: its value is added to every position, exactly.
        """
        if tokens.shape[1] == 1:
            return jnp.broadcast_to(self.out(self.v(tokens)), x.shape)
        q, k, v = (
            part.reshape(*part.shape[:2], self.num_heads, -1) for part in (self.q(x), self.k(tokens), self.v(tokens))
        )
        return self.out(layers.attention(q, k, v).reshape(x.shape))


KIND = NetworkKind("unet_ldm", LatentUNetConfig, LatentUNet, "diffusion")
