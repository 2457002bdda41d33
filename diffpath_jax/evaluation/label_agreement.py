"""Agreement of a set's labels with the classes that a trained classifier sees in its images."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from diffpath_jax.evaluation.compare import TRAINING_SPLIT
from diffpath_jax.evaluation.features.classifier import check_classifier, predictor
from diffpath_jax.evaluation.features.extractor import check_size
from diffpath_jax.evaluation.image_sets import ImageSet, Statistics
from diffpath_jax.evaluation.record import Classification, ClassifierRecord
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.progress import track
from diffpath_jax.metrics import bootstrap
from diffpath_jax.metrics.bootstrap import BootstrapConfig
from diffpath_jax.metrics.classification import confusion_matrix, right, summarise
from diffpath_jax.runs import run as runs


def open_classifier(path: Path, *sources: ImageSet | Statistics | None) -> runs.Run:
    """Opens a classifier that takes the images of all sets, and knows their classes.

    Raises:
        DiffpathError: it is no classifier, or is made for other images or classes.
    """
    run = runs.open_run(path)
    check_classifier(run)
    for images in (source for source in sources if isinstance(source, ImageSet)):
        network, fix = f"the classifier {path}", "use images of its size"
        check_size(images.image_px, run.image_px, network=network, where=images.where, fix=fix)
        unknown = sorted(set(images.classes) - set(run.classes))
        if unknown:
            why = f"it knows {list(run.classes)}, but not {unknown} of {images.where}"
            raise DiffpathError("classifier", where=path, why=why, fix="name one that was trained on these classes")
    return run


def classify(
    run: runs.Run, sets: Mapping[str, ImageSet], *, name: str, config: BootstrapConfig
) -> list[Classification]:
    """Returns the confusion matrix and accuracy of each set.

    Args:
        run: a classifier that knows the classes of all sets.
        sets: the sets, by name.
        name: of the classifier.
        config: settings of intervals.
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

    classifier = ClassifierRecord(trained.digest, trained.step, tuple(run.data), run.digest, name)
    return [_scores(each, images, logits(images), run.classes, classifier, config) for each, images in sets.items()]


def _scores(
    name: str,
    images: ImageSet,
    logits: Float[np.ndarray, "n classes"],
    classes: tuple[str, ...],
    classifier: ClassifierRecord,
    config: BootstrapConfig,
) -> Classification:
    # The two sides may list their classes in another order.
    labels = np.array([classes.index(known) for known in images.classes])[images.labels]
    confusion = confusion_matrix(labels, logits.argmax(axis=-1), len(classes))
    groups = bootstrap.partition(images.patients, seed=config.seed)
    mean = bootstrap.weighted_mean(right(labels, logits), groups)
    accuracy = bootstrap.estimate(lambda weights, _: mean(weights), groups, groups, config=config, lower=0.0, upper=1.0)
    return Classification(
        set=name,
        classifier=classifier,
        data=images.about(),
        classes=classes,
        confusion=confusion.tolist(),
        **summarise(confusion),
        interval=(accuracy.low, accuracy.high),
        trained_on=images.dataset in classifier.training_data and images.split == TRAINING_SPLIT,
    )
