"""Feature extractors: what Frechet and kernel distances are measured in.

An extractor is a name, a digest and a function. The name decides what a distance may be called: only the published
FID Inception network gives "FID" and "KID"; every other extractor gives "FD-<name>" and "KD-<name>".
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diffpath_jax.config import build
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.metrics.classification import predictor
from diffpath_jax.runs import run as runs


@dataclass(frozen=True)
class FeatureExtractor:
    """A way to see images as vectors.

    Attributes:
        name: short name for tables.
        description: network, training data and size of the features, in words.
        digest: SHA-256 of its parameters.
        resize: how images are brought to the network's size.
        image_px: (height, width) of the images it takes; none where it resizes images of any size.
        published: the network of published FID and KID, with the published parameters.
        extract: (n, h, w, 3) uint8 images, any n -> (n, d) float32 features.
    """

    name: str
    description: str
    digest: str
    resize: str
    extract: Callable[[np.ndarray], np.ndarray]
    image_px: tuple[int, int] | None = None
    published: bool = False

    @property
    def frechet_name(self) -> str:
        """What the Frechet distance in these features is called."""
        return "FID" if self.published else f"FD-{self.name}"

    @property
    def kernel_name(self) -> str:
        """What the kernel distance in these features is called."""
        return "KID" if self.published else f"KD-{self.name}"


def classifier_features(run: runs.Run) -> FeatureExtractor:
    """Pooled features of a trained classifier, at the images' own size.

    Raises:
        DiffpathError: the run is not a classifier.
    """
    check_classifier(run)
    trained = runs.load_parameters(run)
    predict = predictor(build.network(run.config, num_classes=len(run.classes)))
    stages = "-".join(str(size) for size in run.config.network.get("stage_sizes", ()))
    return FeatureExtractor(
        name=f"resnet{run.image_px[0]}",
        description=f"pooled features of this study's own ResNet ({stages} blocks), trained on the data set "
        f"{run.data[0][:12]} at {run.image_px[0]} px, no resizing; not the Inception features of FID",
        digest=trained.digest,
        resize="none",
        image_px=run.image_px,
        extract=lambda images: predict((trained.params, trained.model_state), images)[1],
    )


def check_classifier(run: runs.Run) -> None:
    """Refuse a run of another kind."""
    if run.config.task != "classification":
        raise DiffpathError("run", where=run.workdir, why="not a classifier", fix="name a classifier's --workdir")
