"""Between uint8 images and the space a diffusion model works in."""

from typing import Protocol, runtime_checkable

import jax.numpy as jnp

from diffpath_jax.shapes import Images, PixelImages


@runtime_checkable
class Codec(Protocol):
    """What a diffusion task and a sampling job need to know of the model's space."""

    def encode(self, images: PixelImages) -> Images:
        """Images to model space."""

    def decode(self, x: Images) -> PixelImages:
        """Model space to images."""

    def shape(self, image_px: tuple[int, int]) -> tuple[int, int, int]:
        """Shape in model space of an image of (height, width) pixels."""


class PixelCodec:
    """Pixels scaled to [-1, 1]."""

    def encode(self, images: PixelImages) -> Images:
        """``x / 127.5 - 1``."""
        return images.astype(jnp.float32) / 127.5 - 1

    def decode(self, x: Images) -> PixelImages:
        """Inverse of :meth:`encode`, clipped and rounded to the nearest of 256 levels."""
        return jnp.round((jnp.clip(x, -1, 1) + 1) * 127.5).astype(jnp.uint8)

    def shape(self, image_px: tuple[int, int]) -> tuple[int, int, int]:
        """Same size, three channels."""
        return (*image_px, 3)
