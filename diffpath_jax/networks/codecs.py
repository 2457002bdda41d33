"""Between uint8 images and the space a diffusion model works in: pixels, or the latents of an autoencoder."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from diffpath_jax.networks.pure import PureNetwork
from diffpath_jax.shapes import Batch, Images, PixelImages, PRNGKey, Tree


def to_unit(images: PixelImages) -> Images:
    """Pixels to [-1, 1]: ``x / 127.5 - 1``."""
    return images.astype(jnp.float32) / 127.5 - 1


def to_pixels(x: Images) -> PixelImages:
    """Inverse of :func:`to_unit`, clipped and rounded to the nearest of 256 levels."""
    return jnp.round((jnp.clip(x, -1, 1) + 1) * 127.5).astype(jnp.uint8)


@runtime_checkable
class Codec(Protocol):
    """The space a diffusion model works in, as a diffusion task and a sampling job need it.

    ``weights`` are the codec's own parameters, which nobody trains here; empty for pixels.
    """

    def encode(self, weights: Tree, batch: Batch, key: PRNGKey) -> Images:
        """A batch to model space; ``key`` is for codecs that draw."""

    def decode(self, weights: Tree, x: Images) -> PixelImages:
        """Model space to images."""

    def shape(self, image_px: tuple[int, int]) -> tuple[int, int, int]:
        """Shape in model space of an image of (height, width) pixels."""


class PixelCodec:
    """Pixels scaled to [-1, 1]."""

    def encode(self, weights: Tree, batch: Batch, key: PRNGKey) -> Images:
        """The batch's images, scaled."""
        return to_unit(batch["image"])

    def decode(self, weights: Tree, x: Images) -> PixelImages:
        """Inverse of :meth:`encode`."""
        return to_pixels(x)

    def shape(self, image_px: tuple[int, int]) -> tuple[int, int, int]:
        """Same size, three channels."""
        return (*image_px, 3)


# Beyond it the published code clips a KL encoder's log-variances.
LOG_VARIANCE_RANGE = (-30.0, 20.0)


@runtime_checkable
class Posterior(Protocol):
    """From what an encoder says of images to latents."""

    def moments(self, code: Float[Array, "b h w c2"]) -> tuple[Images, Images]:
        """Mean and variance of the latents."""

    def draw(self, code: Float[Array, "b h w c2"], key: PRNGKey) -> Images:
        """A draw of them."""


def gaussian_moments(code: Float[Array, "b h w c2"]) -> tuple[Images, Images]:
    """Mean and variance that a KL encoder gives: a mean and a log-variance for each channel."""
    mean, log_variance = jnp.split(code, 2, axis=-1)
    return mean, jnp.exp(jnp.clip(log_variance, *LOG_VARIANCE_RANGE))


def draw_gaussian(code: Float[Array, "b h w c2"], key: PRNGKey) -> Images:
    """A draw from a KL encoder's normal distribution."""
    mean, variance = gaussian_moments(code)
    return mean + jnp.sqrt(variance) * jax.random.normal(key, mean.shape)


class _Certain:
    """A VQ encoder's output as it is; to quantise it belongs to decoding (Rombach et al. 2022, section 3.1)."""

    def moments(self, code: Images) -> tuple[Images, Images]:
        return code, jnp.zeros_like(code)

    def draw(self, code: Images, key: PRNGKey) -> Images:
        return code


class _Gaussian:
    """A KL encoder's normal distribution."""

    def moments(self, code: Float[Array, "b h w c2"]) -> tuple[Images, Images]:
        return gaussian_moments(code)

    def draw(self, code: Float[Array, "b h w c2"], key: PRNGKey) -> Images:
        return draw_gaussian(code, key)


CERTAIN, GAUSSIAN = _Certain(), _Gaussian()


@dataclass(frozen=True)
class LatentCodec:
    """Latents of an autoencoder, scaled to a standard deviation near 1.

    Attributes:
        network: the autoencoder, with the methods ``encode`` and ``decode``.
        posterior: from what its encoder says to latents.
        factor: image pixels a latent pixel, along each side.
        channels: of a latent.
        scale: factor of latents.
    """

    network: PureNetwork
    posterior: Posterior
    factor: int
    channels: int
    scale: float

    def encode(self, weights: Tree, batch: Batch, key: PRNGKey) -> Images:
        """Latents of the batch's images; or those that were stored for them, as ``diffpath encode`` does."""
        code = batch["latent"].astype(jnp.float32) if "latent" in batch else self.code(weights, batch["image"])
        return self.scale * self.posterior.draw(code, key)

    def code(self, weights: Tree, images: PixelImages) -> Float[Array, "b h2 w2 c"]:
        """Outputs of the encoder: latents of a VQ encoder, moments of a KL encoder."""
        return jax.lax.stop_gradient(self.network.apply(weights, {}, to_unit(images), method="encode")[0])

    def decode(self, weights: Tree, x: Images) -> UInt8[Array, "b h2 w2 3"]:
        """Images of latents; a VQ decoder quantises first."""
        return to_pixels(self.network.apply(weights, {}, x / self.scale, method="decode")[0])

    def shape(self, image_px: tuple[int, int]) -> tuple[int, int, int]:
        """A ``factor`` smaller along each side."""
        return (image_px[0] // self.factor, image_px[1] // self.factor, self.channels)
