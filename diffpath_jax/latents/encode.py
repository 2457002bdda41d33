"""``diffpath encode``'s work: a data set's images through an encoder, once, in every orientation that training uses."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffpath_jax.config.first_stage import FirstStage
from diffpath_jax.data import manifest, records
from diffpath_jax.data import transform as derive
from diffpath_jax.data.symmetries import SYMMETRIES, Augmentation, symmetric
from diffpath_jax.devices.batched import batched
from diffpath_jax.networks.codecs import LatentCodec
from diffpath_jax.shapes import Tree

TRAIN = "train"


def encode(
    source: manifest.Dataset, stage: FirstStage, *, out: Path, name: str, augment: Augmentation, dtype: str
) -> manifest.Dataset:
    """Write the latents of a data set, or what a KL encoder says of it.

    The training split is written in every orientation of ``augment``, the others as they are. The scale of the
    latents is measured on the whole training split, unless the autoencoder comes with one.

    Args:
        source: images.
        stage: autoencoder.
        out: directory to write.
        name: data set name.
        augment: what training would do to each image.
        dtype: of the encoder's activations.

    Raises:
        DiffpathError: the directory belongs to another job (exit code 4).
    """
    codec = stage.codec(dtype=dtype)
    shape = jax.eval_shape(codec.code, stage.params, jax.ShapeDtypeStruct((1, *source.schema.image_px, 3), jnp.uint8))
    settings = {"first_stage": stage.digest, "augment": augment, "dtype": dtype}
    schema = replace(source.schema, latent_shape=tuple(shape.shape[1:]))
    splits = (TRAIN, *(split for split in source.splits if split != TRAIN))
    job = derive.Derivation(out, name, source, splits, schema, settings, _encoder(codec, stage.params, augment))

    def describe(units: Mapping[str, Sequence[Mapping[str, Any]]]) -> Mapping[str, Any]:
        counts = [unit["count"] for unit in units[TRAIN]]
        mean, square = np.average([unit["moments"] for unit in units[TRAIN]], axis=0, weights=counts)
        scaled = replace(stage, scale=stage.scale or 1 / math.sqrt(square - mean**2))
        return {
            "kind": "latents",
            "command": "diffpath encode",
            "latents": {**scaled.as_json(), "augment": augment},
            "source_kind": source.details.kind,
            "split_by": source.details.split_by,
            "features": source.details.features,
        }

    return derive.run(job, describe, title="encode")


def _encoder(codec: LatentCodec, params: Tree, augment: Augmentation) -> derive.Transform:
    """Images to their latents in all orientations, and the mean and mean square of those."""

    def say(weights: Tree, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the output of the encoder, and for each image the mean and the mean square of its latents."""
        code = codec.code(weights, images)
        mean, variance = codec.posterior.moments(code)
        axes = (1, 2, 3)
        return code, jnp.stack([mean.mean(axis=axes), (jnp.square(mean) + variance).mean(axis=axes)], axis=-1)

    run = batched(say)

    def transform(
        images: Sequence[records.PatchRecord], split: str, start: int
    ) -> tuple[Iterable[records.LatentRecord], Mapping[str, Any]]:
        numbers = SYMMETRIES[augment] if split == TRAIN else (0,)
        turned = [(record, number) for record in images for number in numbers]
        codes, moments = run(params, np.stack([symmetric(record.image, number) for record, number in turned]))
        latents = [_record(latent, *which) for which, latent in zip(turned, codes, strict=True)]
        return latents, {"moments": moments.astype(np.float64).mean(axis=0).tolist(), "count": len(turned)}

    return transform


def _record(latent: np.ndarray, record: records.PatchRecord, symmetry: int) -> records.LatentRecord:
    return records.LatentRecord(
        latent=latent.astype(np.float16),
        label=record.label,
        slide=record.slide,
        patient=record.patient,
        mpp=record.mpp,
        fov_um=record.fov_um,
        index=record.index,
        symmetry=symmetry,
        features=record.features,
        columns=record.columns,
    )
