"""Checks of the sizes of images: what a network, its codec and its discriminator can halve as often as they want to."""

from diffpath_jax.config.first_stage import FirstStage, published_first_stage
from diffpath_jax.config.sections import AutoencodingRun, RunConfig
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.networks.patchgan import smallest_side


def check_image_size(
    config: RunConfig, image_px: tuple[int, int], *, first_stage: FirstStage | None = None, where: str, fix: str
) -> None:
    """Refuse images that network and codec cannot halve as often as they want to.

    Args:
        config: of the run.
        image_px: (height, width).
        first_stage: autoencoder whose latents the network works in, where it is known.
        where: where the size comes from.
        fix: what the user can do about it.

    Raises:
        DiffpathError: naming the stride, or the channels of latents that are not those of the network.
    """
    stride, image_channels = _stride(config, first_stage), config.network.image_channels
    if config.codec is not None:
        latents = (first_stage or published_first_stage()).network
        if image_channels != latents.latent_channels:
            why = f"{image_channels}, but latents of the first stage have {latents.latent_channels} channels"
            name = "key 'network.image_channels'"
            raise DiffpathError(name, where=where, why=why, fix=f"make it {latents.latent_channels}")
    if any(side <= 0 or side % stride for side in image_px):
        raise DiffpathError(
            "section 'network'",
            where=where,
            why=f"images of {image_px[0]}x{image_px[1]} px are not a multiple of its stride {stride}",
            fix=fix,
        )
    _check_discriminator(config, image_px, where=where)


def check_crops(
    config: RunConfig, image_px: tuple[int, int], *, first_stage: FirstStage | None = None, where: str
) -> None:
    """Refuse crops that the images of training, or network and codec, cannot give; arguments as for images.

    Raises:
        DiffpathError: naming the side.
    """
    stride = _stride(config, first_stage)
    for side in config.data.crop_px:
        if side > min(image_px) or side % stride:
            why = f"{side} is no multiple of the network's stride {stride} up to {min(image_px)} px, the images' side"
            raise DiffpathError("key 'data.crop_px'", where=where, why=why, fix="name such sides")


def check_latent_size(first_stage: FirstStage, image_px: tuple[int, int], *, where: str) -> None:
    """Refuse images that an autoencoder cannot halve as often as it wants to.

    Raises:
        DiffpathError: naming the stride.
    """
    stride = first_stage.network.factor
    if any(side % stride for side in image_px):
        why = f"{image_px[0]}x{image_px[1]} px are not a multiple of the autoencoder's stride {stride}"
        raise DiffpathError("images", where=where, why=why, fix="prepare patches of another size")


def _stride(config: RunConfig, first_stage: FirstStage | None) -> int:
    """Returns what the sides of images are multiples of, so that network and codec can halve them."""
    factor = (first_stage or published_first_stage()).network.factor if config.codec is not None else 1
    return config.network.stride * factor


def _check_discriminator(config: RunConfig, image_px: tuple[int, int], *, where: str) -> None:
    """Refuse a discriminator whose layers leave no patch of an image to judge."""
    if not isinstance(config, AutoencodingRun) or not config.autoencoding.adversarial_weight:
        return
    layers = config.autoencoding.discriminator_layers
    least = smallest_side(layers)
    if min(image_px) < least:
        why = f"{layers} layers need {least} px, but images have {image_px[0]}x{image_px[1]}"
        raise DiffpathError("key 'autoencoding.discriminator_layers'", where=where, why=why, fix="use fewer")
