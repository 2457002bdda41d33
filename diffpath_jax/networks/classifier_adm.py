"""ADM's noisy classifier: the encoder half of its UNet and an attention pool (Dhariwal and Nichol 2021, section 4)."""

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key
from pydantic import Field

from diffpath_jax.networks import adm, layers
from diffpath_jax.networks.config import NetworkKind
from diffpath_jax.ranges import Width


@dataclass(frozen=True)
class NoisyClassifierConfig(adm.AdmConfig):
    """Shape of the network; the defaults are the published one for 128 px.

    Attributes:
        pool_side: side of the feature map for which the pool has position embeddings (image side / stride); other
            image sizes interpolate them.
    """

    channels: Width = 128
    head_channels: Width = 64
    pool_side: Annotated[int, Field(ge=1, le=1024)] = 8


class AttentionPool(nnx.Module):
    """The mean of all positions attends to all positions (and itself); the result is projected.

    Heads are split after q, k, v, unlike in the rest of ADM. Only the first query is worth computing.
    """

    def __init__(
        self, channels: int, outputs: int, *, side: int, head_channels: int, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        self.side = side
        self.heads = channels // head_channels
        shape = (side * side + 1, channels)
        self.positions = nnx.Param(jax.random.normal(rngs.params(), shape) / channels**0.5)
        self.qkv = layers.linear(channels, 3 * channels, dtype=dtype, rngs=rngs)
        self.out = layers.linear(channels, outputs, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b n"]:
        """Pool a feature map of any size."""
        batch, height, width, channels = x.shape
        own, grid = self.positions[0], self.positions[1:]
        if (height, width) != (self.side, self.side):
            square = grid.reshape(self.side, self.side, channels)
            grid = jax.image.resize(square, (height, width, channels), "bilinear").reshape(-1, channels)
        tokens = x.reshape(batch, height * width, channels)
        tokens = jnp.concatenate([tokens.mean(axis=1, keepdims=True), tokens], axis=1)
        tokens = tokens + jnp.concatenate([own[None], grid]).astype(x.dtype)
        parts = jnp.split(self.qkv(tokens), 3, axis=-1)
        q, k, v = (part.reshape(batch, -1, self.heads, channels // self.heads) for part in parts)
        attended = layers.attention(q[:, :1], k, v)
        return self.out(attended.reshape(batch, channels))


class NoisyClassifier(nnx.Module):
    """Class of a noisy image at timestep t; any image side divisible by the stride works."""

    def __init__(self, config: NoisyClassifierConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.time = adm.TimeEmbedding(config.channels, config.embedding, rngs=rngs)
        self.encoder = adm.Encoder(config, dtype=dtype, rngs=rngs)
        self.out_norm = layers.GroupNorm(self.encoder.width, groups=config.groups)
        self.pool = AttentionPool(
            self.encoder.width,
            config.num_classes,
            side=config.pool_side,
            head_channels=config.head_channels,
            dtype=jnp.float32,
            rngs=rngs,
        )

    def __call__(
        self, x: Float[Array, "b h w 3"], t: Int[Array, "b"], key: Key[Array, ""] | None = None
    ) -> Float[Array, "b n"]:
        """Logits, float32.

        Args:
            x: noisy images.
            t: timestep of the unrespaced schedule.
            key: draws the dropout masks; none means evaluation.
        """
        keys = adm.dropout_keys(key, self.encoder.num_keys)
        h, _ = self.encoder(x, self.time(t), keys)
        return self.pool(self.out_norm(h, silu=True, dtype=jnp.float32))


KIND = NetworkKind("noisy_classifier", NoisyClassifierConfig, NoisyClassifier, "noisy_classification")
