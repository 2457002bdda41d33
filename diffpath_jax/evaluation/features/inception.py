"""The features that FID is measured in, from a file of ``diffpath convert --from inception``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Float

from diffpath_jax.devices.batched import batched
from diffpath_jax.evaluation.features import resize as resizing
from diffpath_jax.evaluation.features.extractor import Extract, ExtractorKind, FeatureExtractor
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import sha256_file
from diffpath_jax.metrics.metric import Source
from diffpath_jax.networks.inception import Activations, InceptionV3
from diffpath_jax.networks.pure import purify
from diffpath_jax.shapes import PixelImages, Tree
from diffpath_jax.training.checkpoint import tree_digest
from diffpath_jax.weights import from_inception
from diffpath_jax.weights.safetensors_file import adapt, read_parameters

# Where the evaluation of guided diffusion takes spatial features, and how many channels of 17 x 17 numbers.
SPATIAL_BLOCK, SPATIAL_CHANNELS = "mixed_6d", 7
_FIX = "make the file with `diffpath convert --from inception`"


# (params, uint8 images of any size) -> a row of numbers for each image
Apply = Callable[[Tree, PixelImages], Float[Array, "b d"]]


@dataclass(frozen=True)
class Inception:
    """Pooled features of the Inception network.

    Attributes:
        apply: (params, uint8 images of any size) -> float32 features; pure, to be jitted.
        params: the network's parameters.
        digest: SHA-256 of their file.
        published: whether they are the published weights. With others a distance is not to be called FID.
        resize: how images come to 299 x 299.
        views: functions like ``apply`` of the network's other outputs.
    """

    apply: Apply
    params: Tree
    digest: str
    published: bool
    resize: resizing.Resize
    views: Mapping[Source, Apply] = field(default_factory=dict)


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
    like, _ = network.shapes
    params = adapt(stored, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like), where=str(path)).params
    if tree_digest(params) != about.get("digest"):
        why = "they do not match the digest written with them"
        raise DiffpathError("parameters", where=path, why=why, fix=_FIX, code=ExitCode.DAMAGED)

    def output(read: Callable[[Tree, Activations], Float[Array, "b d"]]) -> Apply:
        return lambda params, images: read(params, network.apply(params, {}, resizing.resize(images, kind))[0])

    features = output(lambda params, activations: activations.features)
    views: dict[Source, Apply] = {"spatial": output(spatial), "logits": output(unbiased_logits)}
    return Inception(features, params, sha256_file(path), about.get("published") is True, kind, views)


def spatial(params: Tree, activations: Activations) -> Float[Array, "b d"]:
    """Returns the first channels of a block at every place: 2,023 numbers of 299 x 299 pixels (as for sFID)."""
    features = activations.stages[SPATIAL_BLOCK][..., :SPATIAL_CHANNELS]
    return features.reshape(len(features), -1)


def unbiased_logits(params: Tree, activations: Activations) -> Float[Array, "b 1008"]:
    """Returns the logits that the Inception Score is taken of: the graph that defined it leaves the bias out."""
    return activations.logits - params["fc"]["bias"]


def inception_features(path: Path, *, resize: str) -> FeatureExtractor:
    """Returns pooled features of the network that FID and KID are defined by.

    Raises:
        DiffpathError: the file holds something else, or is damaged.
    """
    inception = load_inception(path, resize=resize)
    weights = "the published weights" if inception.published else "weights that are not the published ones"
    pooled = FeatureExtractor(
        name="inception",
        description=f"pooled features of Inception-v3 (the FID network of 2015-12-05) with {weights}",
        digest=inception.digest,
        resize=inception.resize,
        extract=_extract(inception.apply, inception.params),
        published=inception.published,
    )
    views = {
        source: replace(pooled, name=f"{pooled.name}-{source}", extract=_extract(apply, inception.params))
        for source, apply in inception.views.items()
    }
    return replace(pooled, views=views)


def _extract(apply: Apply, params: Tree) -> Extract:
    run = batched(apply)
    return lambda images: run(params, images)


KIND = ExtractorKind(
    name="inception",
    source="inception.safetensors of `diffpath convert`",
    recognise=lambda path: path.is_file() and path.suffix == ".safetensors",
    open=inception_features,
)
