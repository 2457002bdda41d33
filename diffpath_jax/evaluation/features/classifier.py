"""A trained classifier: the classes that it sees, and pooled features to measure distances in."""

from typing import Any

import jax

from diffpath_jax.devices.batched import Batched, batched
from diffpath_jax.evaluation.features.extractor import ExtractorKind, FeatureExtractor
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.networks.codecs import to_unit
from diffpath_jax.networks.pure import PureNetwork
from diffpath_jax.runs import run as runs
from diffpath_jax.shapes import Tree


def predictor(network: PureNetwork) -> Batched:
    """Returns ((parameters, model state), images) -> (logits, pooled features) of a classifier."""

    def forward(weights: tuple[Tree, Tree], images: jax.Array) -> Any:
        params, model_state = weights
        return network.apply(params, model_state, to_unit(images), train=False)[0]

    return batched(forward)


def classifier_features(run: runs.Run) -> FeatureExtractor:
    """Returns pooled features of a trained classifier, at the images' own size.

    Raises:
        DiffpathError: the run is not a classifier.
    """
    check_classifier(run)
    trained = runs.load_parameters(run)
    predict = predictor(run.network)
    return FeatureExtractor(
        name=f"resnet{run.image_px[0]}",
        description=f"pooled features of this study's own {run.config.network.title}, trained on the data set "
        f"{run.data[0][:12]} at {run.image_px[0]} px, no resizing; not the Inception features of FID",
        digest=trained.digest,
        resize="none",
        image_px=run.image_px,
        extract=lambda images: predict((trained.params, trained.model_state), images)[1],
    )


def check_classifier(run: runs.Run) -> None:
    """Refuses a run of another kind.

    Raises:
        DiffpathError: the run is not a classifier.
    """
    if run.config.task != "classification":
        raise DiffpathError("run", where=run.workdir, why="not a classifier", fix="name a classifier's --workdir")


KIND = ExtractorKind(
    name="classifier",
    source="a classifier's run",
    recognise=lambda path: path.is_dir(),
    open=lambda path, *, resize: classifier_features(runs.open_run(path)),
)
