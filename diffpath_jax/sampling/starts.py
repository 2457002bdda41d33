"""Images that a job starts from: which image of a data set each sample gets, and how a batch begins with them.

Sample n of a class gets the n-th image of that class in an order of the seed; with ``between``, so many samples lead in
even steps from one image to the next of its class, all from the same noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from diffpath_jax.data.image_files import read_image
from diffpath_jax.data.manifest import Dataset
from diffpath_jax.data.records import same_scale
from diffpath_jax.diffusion import starts
from diffpath_jax.diffusion.schedule import NoiseSchedule
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.files import sha256_json
from diffpath_jax.networks.codecs import Codec
from diffpath_jax.sampling.references import References
from diffpath_jax.shapes import Images, PixelImages, PRNGKeys, Tree

# Arrays of a batch, by name: images, the images that they are blended with, the weights of these, what is known.
IMAGE, OTHER, WEIGHT, KNOWN = "image", "other", "weight", "known"
# Number that an image's key is folded with where its encoder draws; those of the sampler's noise count from 0.
_ENCODING = 2**32 - 1


@dataclass(frozen=True, eq=False)
class Starts:
    """Images to start from.

    Attributes:
        references: the images.
        between: samples from each image to the next, both included; 0 for variations of single images.
        masks: what is known; sample n of a class gets mask n, and they begin again; none paints nothing.
    """

    references: References
    between: int = 0
    masks: Sequence[Bool[np.ndarray, "h w"]] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """Everything of it that decides pixels."""
        masks = sha256_json([np.packbits(mask).tolist() for mask in self.masks]) if self.masks else ""
        return {**self.references.as_json(), "between": self.between, "masks": masks}

    def noise_numbers(self, indices: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """Returns the number of the noise of each sample: samples between the same two images share theirs."""
        labels, ranks = self.references.places(indices)
        return ranks // self.between * len(self.references.order) + labels if self.between else indices

    def columns(self, indices: Int[np.ndarray, "n"]) -> dict[str, np.ndarray]:
        """Returns which images of the split each sample is made from, as columns of a table."""
        labels, ranks = self.references.places(indices)
        if not self.between:
            return {"start_image": self.references.numbers(labels, ranks)}
        pairs = ranks // self.between
        return {
            "start_image": self.references.numbers(labels, 2 * pairs),
            "start_other": self.references.numbers(labels, 2 * pairs + 1),
            "start_weight": (ranks % self.between / (self.between - 1)).astype(np.float32),
        }

    def batch(self, indices: Int[np.ndarray, "n"]) -> dict[str, np.ndarray]:
        """Returns what some samples start from, as arrays by name."""
        columns, (_, ranks) = self.columns(indices), self.references.places(indices)
        arrays = {IMAGE: self.references.fetch("image", columns["start_image"])}
        if self.between:
            other = self.references.fetch("image", columns["start_other"])
            arrays |= {OTHER: other, WEIGHT: columns["start_weight"]}
        if self.masks:
            arrays[KNOWN] = np.stack([self.masks[rank % len(self.masks)] for rank in ranks])[..., None]
        return arrays


def open_starts(
    references: References,
    dataset: Dataset,
    *,
    image_px: tuple[int, int],
    mpp: float,
    between: int = 0,
    masks: Sequence[Path] = (),
) -> Starts:
    """Returns what a job starts from.

    Args:
        references: the images.
        dataset: that they are of.
        image_px: (height, width) of the samples.
        mpp: um per pixel of the samples.
        between: see :class:`Starts`.
        masks: image files of the size of the samples; what is white is painted, what is black is known.

    Raises:
        DiffpathError: the images, or the masks, are of another size or um/px.
    """
    _check_fits(dataset, image_px, mpp)
    return Starts(references, between, [read_mask(mask, image_px) for mask in masks])


def _check_fits(dataset: Dataset, image_px: tuple[int, int], mpp: float) -> None:
    """Refuse images of another size or scale than those that are drawn.

    Raises:
        DiffpathError: naming both.
    """
    own, scale = dataset.schema.image_px, dataset.details.mpp
    if own != image_px:
        why = f"its images have {own[1]} x {own[0]} px, not {image_px[1]} x {image_px[0]}"
        raise DiffpathError("start", where=dataset.directory, why=why, fix="name images of that size, or `patch_px`")
    if not same_scale(scale, mpp):
        why = f"its images have {scale:.4g} um/px, those that are drawn {mpp:.4g}"
        raise DiffpathError("start", where=dataset.directory, why=why, fix="name images of that um/px")


def read_mask(path: Path, image_px: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Returns what a mask leaves as it is: true where it is black, false where it is white and is painted.

    Raises:
        DiffpathError: no image, one of another size, or one that paints nothing.
    """
    grey = read_image(path).mean(axis=-1)
    if grey.shape != image_px:
        why = f"it has {grey.shape[1]} x {grey.shape[0]} px, and the images {image_px[1]} x {image_px[0]}"
        raise DiffpathError("mask", where=path, why=why, fix="draw one of the size of the images")
    if not (grey >= 128).any():
        raise DiffpathError("mask", where=path, why="nothing of it is white", fix="paint white what is to be painted")
    return grey < 128


@dataclass(frozen=True, eq=False)
class Begun:
    """Where a batch starts, in model space.

    Attributes:
        x_0: the image, or the blend.
        x_T: the start of the sampler.
        known: cells whose image is known; none where nothing is painted.
    """

    x_0: Images
    x_T: Images
    known: starts.Known | None


def begin(
    arrays: Mapping[str, jax.Array],
    codec: Codec,
    codec_params: Tree,
    *,
    schedule: NoiseSchedule,
    keys: PRNGKeys,
    noise: Images,
    level: float,
) -> Begun:
    """Returns the start of a batch.

    Args:
        arrays: those of :meth:`Starts.batch`.
        codec: of the model.
        codec_params: its parameters.
        schedule: what the sampler moves over, which ends at ``level``.
        keys: one an image.
        noise: of the start.
        level: share of the trained schedule; at 1 what is not known starts from noise alone.
    """

    def encoded(image: jax.Array, key: jax.Array) -> jax.Array:
        return codec.encode(codec_params, {"image": image[None]}, jax.random.fold_in(key, _ENCODING))[0]

    x_0 = jax.vmap(encoded)(arrays[IMAGE], keys)
    if OTHER in arrays:
        x_0 = starts.blend(x_0, jax.vmap(encoded)(arrays[OTHER], keys), arrays[WEIGHT])
    x_T = starts.at_top(schedule, x_0, noise)
    _, height, width, _ = x_0.shape
    known = starts.known_cells(arrays[KNOWN], (height, width)) if KNOWN in arrays else None
    if level < 1:
        return Begun(x_0, x_T, known)
    return Begun(x_0, noise if known is None else jnp.where(known, x_T, noise), known)


def keep(arrays: Mapping[str, jax.Array], images: PixelImages) -> PixelImages:
    """Returns images with what is known of them, to the bit."""
    return jnp.where(arrays[KNOWN], arrays[IMAGE], images) if KNOWN in arrays else images
