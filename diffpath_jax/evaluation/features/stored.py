"""``diffpath encode --features``: what an encoder sees in each image, stored beside it, for models that are told it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from diffpath_jax.data import manifest, records
from diffpath_jax.data import transform as derive
from diffpath_jax.evaluation.features.extractor import FeatureExtractor


def store_features(source: manifest.Dataset, extractor: FeatureExtractor, *, out: Path, name: str) -> manifest.Dataset:
    """Write a data set again, every image with its features (float32) beside it.

    Args:
        source: images.
        extractor: the encoder.
        out: directory to write.
        name: data set name.

    Raises:
        DiffpathError: images are of another size than the encoder's, features are not finite, or the directory belongs
            to another job (exit code 4).
    """
    extractor.check_size(source.schema.image_px, where=source.directory)
    blank = np.zeros((1, *source.schema.image_px, 3), np.uint8)
    schema = replace(source.schema, feature_width=extractor.extract(blank).shape[1])
    encoder = {
        "name": extractor.name,
        "digest": extractor.digest,
        "resize": extractor.resize,
        "description": extractor.description,
    }
    settings = {"features": extractor.digest, "resize": extractor.resize}
    transform = _beside(extractor, source.directory)
    job = derive.Derivation(out, name, source, tuple(source.splits), schema, settings, transform)

    def describe(units: Mapping[str, Sequence[Mapping[str, Any]]]) -> Mapping[str, Any]:
        return {
            "kind": source.details.kind,
            "command": "diffpath encode",
            "split_by": source.details.split_by,
            "split_proof": source.details.split_proof,
            "training_data": source.details.training_data,
            "sampling": source.details.sampling,
            "features": encoder,
        }

    return derive.run(job, describe, title="encode")


def _beside(extractor: FeatureExtractor, where: Path) -> derive.Transform:
    """Images to themselves, with their features."""

    def transform(
        images: Sequence[records.PatchRecord], split: str, start: int
    ) -> tuple[Iterable[records.PatchRecord], Mapping[str, Any]]:
        features = extractor.finite(derive.stacked(images), first=start, where=where)
        return [replace(record, features=row) for record, row in zip(images, features, strict=True)], {}

    return transform
