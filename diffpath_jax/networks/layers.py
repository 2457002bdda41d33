"""Building blocks that several networks share. NHWC, parameters and norms in float32."""

import math
from collections.abc import Sequence
from functools import reduce
from itertools import accumulate

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key, Num

from diffpath_jax.networks import target
from diffpath_jax.networks.group_norm import Normalisation, group_norm

zeros = nnx.initializers.zeros_init()


def fourier_features(t: Num[Array, "b"], dim: int, *, max_period: float = 1e4) -> Float[Array, "b {dim}"]:
    """Sinusoidal embedding of the timestep, cosines first.

    ``[cos(t f_0), ..., cos(t f_{h-1}), sin(t f_0), ..., sin(t f_{h-1})]`` with ``f_i = max_period^(-i / h)`` and
    ``h = dim / 2``, as in ADM and latent diffusion (Vaswani et al. 2017, section 3.5, in another order).
    """
    if dim % 2:
        raise ValueError(f"dim must be even, not {dim}")
    frequencies = jnp.exp(-math.log(max_period) * jnp.arange(dim // 2, dtype=jnp.float32) / (dim // 2))
    angles = t.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def dropout(x: Float[Array, "..."], rate: float, key: Key[Array, ""] | None) -> Float[Array, "..."]:
    """Inverted dropout; the identity without a key (evaluation) or with rate 0."""
    if key is None or rate == 0:
        return x
    kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), 0)


def conv3x3(
    in_channels: int,
    out_channels: int,
    *,
    stride: int = 1,
    padding: int | tuple[tuple[int, int], tuple[int, int]] = 1,
    use_bias: bool = True,
    zero_init: bool = False,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """3x3 convolution; padded by one on each side if ``padding`` does not say how much before and after each axis."""
    return nnx.Conv(
        in_channels,
        out_channels,
        (3, 3),
        strides=stride,
        padding=padding,
        use_bias=use_bias,
        kernel_init=zeros if zero_init else nnx.initializers.lecun_normal(),
        dtype=dtype,
        rngs=rngs,
    )


def linear(
    in_features: int,
    out_features: int,
    *,
    use_bias: bool = True,
    zero_init: bool = False,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> nnx.Linear:
    """Dense layer over the last axis; also serves as 1x1 convolution (as a dot its gradient is 7x faster on CPU)."""
    return nnx.Linear(
        in_features,
        out_features,
        use_bias=use_bias,
        kernel_init=zeros if zero_init else nnx.initializers.lecun_normal(),
        dtype=dtype,
        rngs=rngs,
    )


def apply_to_parts(layer: nnx.Linear, parts: Sequence[Float[Array, "b *space _"]]) -> Float[Array, "b *space c"]:
    """A dense layer of features whose channels lie in several arrays, one after the other, without joining them."""
    ends = list(accumulate(part.shape[-1] for part in parts))
    dtype = layer.dtype
    kernels = jnp.split(layer.kernel[...].astype(dtype), ends[:-1])
    products = [part.astype(dtype) @ kernel for part, kernel in zip(parts, kernels, strict=True)]
    out = reduce(jnp.add, products)
    return out if layer.bias is None else out + layer.bias[...].astype(dtype)


class GroupNorm(nnx.Module):
    """Group normalisation (Wu and He 2018) in float32, with what follows it in one pass.

    ``y = (x - mean_g) / sqrt(var_g + eps) * gamma + beta`` over space and the channels of a group.
    """

    def __init__(self, channels: int, *, groups: int = 32, eps: float = 1e-5) -> None:
        if channels % groups:
            raise ValueError(f"{channels} channels do not divide into {groups} groups")
        self.groups = groups
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(channels, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))

    def __call__(
        self,
        *x: Float[Array, "b *space _"],
        scale_shift: Float[Array, "b c2"] | None = None,
        silu: bool = False,
        dtype: DTypeLike | None = None,
    ) -> Float[Array, "b *space c"]:
        """Normalise; see :func:`group_norm`.

        Args:
            x: features; several arrays count as one whose channels are theirs one after the other.
            scale_shift: per image a scale s and a shift z for each channel: the result is ``y (1 + s) + z`` (Perez et
                al. 2018, "FiLM").
            silu: apply SiLU to the result.
            dtype: type of the result; by default that of ``x``.
        """
        gamma, beta = self.scale[...][None], self.bias[...][None]
        if scale_shift is not None:
            more, offset = jnp.split(scale_shift.astype(jnp.float32), 2, axis=-1)
            gamma, beta = gamma * (1 + more), beta * (1 + more) + offset
        gamma, beta = (jnp.broadcast_to(part, (x[0].shape[0], part.shape[-1])) for part in (gamma, beta))
        return group_norm(tuple(x), gamma, beta, Normalisation(self.groups, self.eps, silu, dtype))


def attention(
    q: Float[Array, "b q n d"], k: Float[Array, "b k n d"], v: Float[Array, "b k n d"]
) -> Float[Array, "b q n d"]:
    """Softmax attention of n heads (Vaswani et al. 2017, equation 1).

    q and k are each scaled by d^(-1/4), which keeps half precision in range; the softmax is taken in float32. GPUs
    take it as one kernel that never writes the weights, where that kernel knows the type and the size of a head.
    """
    if _fused_attention_takes(q, k):
        return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")
    scale = q.shape[-1] ** -0.25
    logits = jnp.einsum("bqhd,bkhd->bhqk", q * scale, k * scale)
    weights = jax.nn.softmax(logits.astype(jnp.float32), axis=-1).astype(v.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


def _fused_attention_takes(q: jax.Array, k: jax.Array) -> bool:
    """Returns True if cuDNN has a kernel for it: half precision, and sizes of heads and lengths that it knows."""
    capability = target.compute_capability()
    if target.platform() != "gpu" or capability < 8 or q.dtype not in (jnp.bfloat16, jnp.float16):
        return False
    largest = 256 if capability >= 9 else 128
    return q.shape[-1] % 8 == 0 and q.shape[-1] <= largest and q.shape[1] % 2 == 0 and k.shape[1] % 2 == 0


class SelfAttention(nnx.Module):
    """Residual self-attention over all positions, with ADM's head order.

    The 3C outputs of the joint projection are split into heads first and into q, k, v second; the output projection
    starts at zero (Dhariwal and Nichol 2021), or, in autoencoders, does not.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_heads: int,
        groups: int,
        eps: float = 1e-5,
        zero_init: bool = True,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        if channels % num_heads:
            raise ValueError(f"{channels} channels do not divide into {num_heads} heads")
        self.num_heads = num_heads
        self.norm = GroupNorm(channels, groups=groups, eps=eps)
        self.qkv = linear(channels, 3 * channels, dtype=dtype, rngs=rngs)
        self.out = linear(channels, channels, zero_init=zero_init, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b h w c"], context: Float[Array, "b tokens d"] | None = None
    ) -> Float[Array, "b h w c"]:
        """Attend to the image itself; other blocks of attention take a ``context``, this one does not look at it."""
        batch, height, width, channels = x.shape
        q, k, v = self._project(self.norm(x).reshape(batch, height * width, channels))
        attended = attention(q, k, v)
        return x + self.out(attended.reshape(batch, height, width, channels)).astype(x.dtype)

    def _project(self, x: Float[Array, "b n c"]) -> list[Float[Array, "b n heads d"]]:
        """q, k and v, each by a product of its own: parts of one product would have to be copied out of it."""
        channels, dtype = x.shape[-1], self.qkv.dtype
        kernels = self.qkv.kernel[...].astype(dtype).reshape(channels, self.num_heads, 3, -1)
        bias = jnp.zeros(3 * channels) if self.qkv.bias is None else self.qkv.bias[...]
        biases = bias.astype(dtype).reshape(self.num_heads, 3, -1)
        return [
            (x.astype(dtype) @ kernels[:, :, i].reshape(channels, channels)).reshape(*x.shape[:2], self.num_heads, -1)
            + biases[:, i]
            for i in range(3)
        ]


def upsample2x(x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c"]:
    """Nearest-neighbour enlargement."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


def downsample2x(x: Float[Array, "b h w c"]) -> Float[Array, "b h/2 w/2 c"]:
    """Mean of each 2x2 block."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def space_to_depth(x: Float[Array, "b h w c"], block: int) -> Float[Array, "b h2 w2 c2"]:
    """Move each ``block`` x ``block`` square of pixels into channels; :func:`depth_to_space` undoes it."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // block, block, width // block, block, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // block, width // block, -1)


def depth_to_space(x: Float[Array, "b h w c"], block: int) -> Float[Array, "b h2 w2 c2"]:
    """Inverse of :func:`space_to_depth`."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, block, block, channels // block**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height * block, width * block, -1)
