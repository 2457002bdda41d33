"""RandAugment for histology (Cubuk et al. 2020, "RandAugment: practical automated data augmentation").

Each image goes through a few operations, one after the other, each drawn evenly from a list and all of one magnitude,
on the published scale of 0 to 30. The list is that part of the published one which leaves tissue what it is:

- geometric, about the centre: rotation by up to 30 degrees, shear by up to 0.3, translation by up to 150/331 of a side,
  each in either direction. What comes in from outside is the mirrored tissue, for black corners are no tissue;
- photometric: brightness, colour, contrast and sharpness, each a step of up to 0.9 from the image towards or away from
  black, grey, its mean grey, or its smoothed self;
- identity.

Posterise, solarise, equalise and auto-contrast are left out: they change which colour means which stain, or take away
how much of it there is. Other amounts of stain are what
:func:`diffpath_jax.training.tasks.stain_jitter.jitter_stains` draws. (Faryna et al. 2021 tailor the list to H&E too.)
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float

from diffpath_jax.shapes import PixelImages, PRNGKey, Scalar

# Ends of the published scales of magnitudes.
MOST = 30.0
MOST_DEGREES, MOST_SHEAR, MOST_SHIFT, MOST_BLEND = 30.0, 0.3, 150 / 331, 0.9
# Of red, green and blue in grey (ITU-R BT.601), as Pillow has it.
_GREY = (0.299, 0.587, 0.114)
# Weights of a pixel and of each of its neighbours in its smoothed self, as Pillow's SMOOTH has them.
_CENTRE, _NEIGHBOUR = 5 / 13, 1 / 13

Image = Float[Array, "h w 3"]
# Where a pixel comes from: (x, y) about the centre of the new image, to x and y about that of the old one; the last
# column is a share of the sides.
Transform = Float[Array, "2 3"]


def _same_place(strength: Scalar) -> Transform:
    return jnp.eye(2, 3)


def _same_image(image: Image) -> Image:
    return image


@dataclass(frozen=True)
class Operation:
    """A change of an image, of a strength from -1 to 1; 0 changes nothing.

    Attributes:
        name: its name.
        transform: where pixels come from.
        opposite: the image without what the operation changes; a photometric one blends with it.
    """

    name: str
    transform: Callable[[Scalar], Transform] = _same_place
    opposite: Callable[[Image], Image] = _same_image


def _rotation(strength: Scalar) -> Transform:
    angle = jnp.deg2rad(MOST_DEGREES) * strength
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.array([[cos, sin, 0.0], [-sin, cos, 0.0]])


def _one_entry(row: int, column: int, most: float) -> Callable[[Scalar], Transform]:
    """The identity but for one number, which grows with the strength."""
    return lambda strength: jnp.eye(2, 3).at[row, column].add(most * strength)


def _grey(image: Image) -> Image:
    grey = jnp.matmul(image, jnp.array(_GREY), precision="highest")
    return jnp.broadcast_to(grey[..., None], image.shape)


def _mean_grey(image: Image) -> Image:
    return jnp.full_like(image, _grey(image).mean())


def _smoothed(image: Image) -> Image:
    """The image with each pixel averaged with its neighbours; its border stays as it is."""
    height, width, _ = image.shape
    places = [(top, left) for top in range(3) for left in range(3)]
    total = sum(image[top : height - 2 + top, left : width - 2 + left] for top, left in places)
    inner = image[1:-1, 1:-1]
    return image.at[1:-1, 1:-1].set(_NEIGHBOUR * total + (_CENTRE - _NEIGHBOUR) * inner)


OPERATIONS = (
    Operation("identity"),
    Operation("rotate", transform=_rotation),
    Operation("shear_x", transform=_one_entry(0, 1, MOST_SHEAR)),
    Operation("shear_y", transform=_one_entry(1, 0, MOST_SHEAR)),
    Operation("translate_x", transform=_one_entry(0, 2, MOST_SHIFT)),
    Operation("translate_y", transform=_one_entry(1, 2, MOST_SHIFT)),
    Operation("brightness", opposite=jnp.zeros_like),
    Operation("colour", opposite=_grey),
    Operation("contrast", opposite=_mean_grey),
    Operation("sharpness", opposite=_smoothed),
)


def rand_augment(images: PixelImages, key: PRNGKey, *, ops: int, magnitude: float) -> PixelImages:
    """Images after ``ops`` operations each.

    Args:
        images: pixels.
        key: image i draws its operations and their directions from ``fold_in(key, i)``.
        ops: N, operations of an image (published: 2).
        magnitude: M, from 0 (nothing changes) to 30.
    """

    def augment(image: Image, image_key: PRNGKey) -> Image:
        for number in range(ops):
            which_key, sign_key = jax.random.split(jax.random.fold_in(image_key, number))
            index = jax.random.randint(which_key, (), 0, len(OPERATIONS))
            image = apply(image, index, magnitude / MOST * jax.random.rademacher(sign_key, (), jnp.float32))
        return image

    keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(jnp.arange(images.shape[0]))
    return jnp.round(jax.vmap(augment)(images.astype(jnp.float32), keys)).astype(jnp.uint8)


def apply(image: Image, index: jax.Array, strength: Scalar) -> Image:
    """An image in [0, 255] after the operation of a number in ``OPERATIONS``, which need not be known when compiling.

    Pixels are moved once, by the transform of that operation, and blended once.
    """
    transforms = jnp.stack([operation.transform(strength) for operation in OPERATIONS])
    moved = _moved(image, transforms[index])
    opposite = jax.lax.switch(index, [operation.opposite for operation in OPERATIONS], moved)
    return jnp.clip(opposite + (1 + MOST_BLEND * strength) * (moved - opposite), 0, 255)


def _moved(image: Image, transform: Transform) -> Image:
    """Bilinear interpolation at the places that pixels come from; beyond the border the image is mirrored."""
    height, width, _ = image.shape
    y, x = jnp.meshgrid(jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing="ij")
    (xx, xy, shift_x), (yx, yy, shift_y) = transform
    from_x = xx * x + xy * y + shift_x * width + (width - 1) / 2
    from_y = yx * x + yy * y + shift_y * height + (height - 1) / 2
    return jax.vmap(lambda channel: map_coordinates(channel, [from_y, from_x], 1, "mirror"), -1, -1)(image)
