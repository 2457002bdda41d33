"""What a trained classifier makes of a set of images: does it see the class that each is said to have?"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffpath_jax.evaluation.compare import TRAINING_SPLIT, Sureness
from diffpath_jax.evaluation.features.classifier import predictor
from diffpath_jax.evaluation.image_sets import ImageSet
from diffpath_jax.io.progress import track
from diffpath_jax.metrics import bootstrap
from diffpath_jax.metrics.classification import confusion_matrix, right, summarise
from diffpath_jax.runs import run as runs


def classify(run: runs.Run, found: Mapping[str, ImageSet], *, sureness: Sureness) -> list[dict[str, Any]]:
    """Confusion matrix and accuracy of each set: rows are the classes that images are said to have, columns those seen.

    Args:
        run: a classifier that knows the classes of all sets.
        found: the sets, by name.
        sureness: how intervals are computed.
    """
    trained = runs.load_parameters(run)
    predict = predictor(run.network)

    def logits(images: ImageSet) -> np.ndarray:
        parts = []
        with track(f"classes of {images.where.name}", total=len(images), unit="img") as progress:
            for block in images.blocks():
                parts.append(predict((trained.params, trained.model_state), block)[0])
                progress.advance(len(block))
        return np.concatenate(parts)

    return [{"set": name, **_scores(run, trained, images, logits(images), sureness)} for name, images in found.items()]


def _scores(
    run: runs.Run, trained: runs.Weights, images: ImageSet, logits: np.ndarray, sureness: Sureness
) -> dict[str, Any]:
    # The two sides may list their classes in another order.
    labels = np.array([run.classes.index(name) for name in images.classes])[images.labels]
    confusion = confusion_matrix(labels, logits.argmax(axis=-1), len(run.classes))
    groups = bootstrap.partition(images.patients, seed=sureness.seed)
    mean = bootstrap.weighted_mean(right(labels, logits), groups)
    found = bootstrap.estimate(
        lambda weights, _: mean(weights),
        groups,
        groups,
        resamples=sureness.resamples,
        seed=sureness.seed,
        minimum=0.0,
        maximum=1.0,
    )
    return {
        "classifier": {
            "parameters": trained.digest,
            "step": trained.step,
            "training_data": list(run.data),
            "run": run.digest,
        },
        "data": images.about(),
        "classes": list(run.classes),
        "confusion": confusion.tolist(),
        **summarise(confusion),
        "interval": [found.low, found.high],
        "trained_on": images.dataset in run.data and images.split == TRAINING_SPLIT,
    }
