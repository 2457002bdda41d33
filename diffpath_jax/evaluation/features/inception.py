"""The features that FID is measured in, from a file of ``diffpath convert --from inception``."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Float

from diffpath_jax.devices.batched import batched
from diffpath_jax.evaluation.features import resize as resizing
from diffpath_jax.evaluation.features.extractor import ExtractorKind, FeatureExtractor
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import sha256_file
from diffpath_jax.networks.inception import InceptionV3
from diffpath_jax.networks.pure import purify
from diffpath_jax.shapes import PixelImages, Tree
from diffpath_jax.training.checkpoint import tree_digest
from diffpath_jax.weights import from_inception
from diffpath_jax.weights.safetensors_file import adapt, read_parameters

_FIX = "make the file with `diffpath convert --from inception`"


@dataclass(frozen=True)
class Inception:
    """Pooled features of the Inception network.

    Attributes:
        apply: (params, uint8 images of any size) -> float32 features; pure, to be jitted.
        params: the network's parameters.
        digest: SHA-256 of their file.
        published: whether they are the published weights. With others a distance is not to be called FID.
        resize: how images come to 299 x 299.
    """

    apply: Callable[[Tree, PixelImages], Float[Array, "b 2048"]]
    params: Tree
    digest: str
    published: bool
    resize: resizing.Resize


def load_inception(path: Path, *, resize: str) -> Inception:
    """Reads converted weights.

    Raises:
        DiffpathError: an unknown resize, no such file, a damaged one, or parameters of another network.
    """
    kind = resizing.check_resize(resize)
    stored, about = read_parameters(path)
    if about.get("network") != {"kind": from_inception.KIND}:
        raise DiffpathError("parameters", where=path, why="not those of the Inception network", fix=_FIX)
    network = purify(lambda rngs: InceptionV3(rngs=rngs))
    like, _ = jax.eval_shape(network.init, jax.random.key(0))
    params = adapt(stored, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like), where=str(path)).params
    if tree_digest(params) != about.get("digest"):
        why = "they do not match the digest written with them"
        raise DiffpathError("parameters", where=path, why=why, fix=_FIX, code=ExitCode.DAMAGED)

    def apply(params: Tree, images: PixelImages) -> Float[Array, "b 2048"]:
        activations, _ = network.apply(params, {}, resizing.resize(images, kind))
        return activations.features

    return Inception(apply, params, sha256_file(path), about.get("published") is True, kind)


def inception_features(path: Path, *, resize: str) -> FeatureExtractor:
    """Returns pooled features of the network that FID and KID are defined by.

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


KIND = ExtractorKind(
    name="inception",
    source="inception.safetensors of `diffpath convert`",
    recognise=lambda path: path.is_file() and path.suffix == ".safetensors",
    open=inception_features,
)
