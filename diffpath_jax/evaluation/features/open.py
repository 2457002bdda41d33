"""From what a user names to a feature extractor: a classifier's run, Inception's parameters, or an ONNX encoder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from diffpath_jax.devices.batched import batched
from diffpath_jax.evaluation.features.classifier import classifier_features
from diffpath_jax.evaluation.features.extractor import FeatureExtractor
from diffpath_jax.evaluation.features.inception import load_inception
from diffpath_jax.evaluation.features.onnx import onnx_features
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.runs import run as runs


def open_extractor(path: Path, *, resize: str) -> FeatureExtractor:
    """The extractor that lies at a path.

    Args:
        path: run directory of a classifier, ``inception.safetensors`` of `diffpath convert`, or ``ENCODER.onnx``.
        resize: how Inception's images are brought to its size.

    Raises:
        DiffpathError: nothing of the kind, or it is damaged.
    """
    if path.is_dir():
        return classifier_features(runs.open_run(path))
    readers: dict[str, Callable[[], FeatureExtractor]] = {
        ".safetensors": lambda: inception_features(path, resize=resize),
        ".onnx": lambda: onnx_features(path),
    }
    if path.suffix not in readers or not path.is_file():
        why = "no such directory or file" if not path.exists() else f"{path.suffix or 'it'} is no kind of extractor"
        fix = "name a classifier's --workdir, inception.safetensors of `diffpath convert`, or an .onnx encoder"
        raise DiffpathError("--features", where=path, why=why, fix=fix)
    return readers[path.suffix]()


def inception_features(path: Path, *, resize: str) -> FeatureExtractor:
    """Pooled features of the network that FID and KID are defined by.

    Raises:
        DiffpathError: the file holds something else, or is damaged.
    """
    inception = load_inception(path, resize=resize)
    run, params = batched(inception.apply), inception.params
    weights = "the published weights" if inception.published else "weights that are not the published ones"

    def extract(images: np.ndarray) -> np.ndarray:
        return run(params, images)

    return FeatureExtractor(
        name="inception",
        description=f"pooled features of Inception-v3 (the FID network of 2015-12-05) with {weights}",
        digest=inception.digest,
        resize=inception.resize,
        extract=extract,
        published=inception.published,
    )
