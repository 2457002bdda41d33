"""Arms of a study: classifiers trained on different images with the same seeds, tested on the same patients."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from diffpath_jax.config.files import differing_keys
from diffpath_jax.data import validation
from diffpath_jax.data.manifest import Dataset, open_dataset
from diffpath_jax.evaluation.feature_cache import FeatureStore
from diffpath_jax.evaluation.image_sets import ImageSet
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.files import shareable
from diffpath_jax.io.progress import track
from diffpath_jax.metrics import classification, paired
from diffpath_jax.metrics.classification import SCORES
from diffpath_jax.study.predictors import Predictor, open_predictor, used

# In what arms may differ: their images, and what each has of its own.
_OF_AN_ARM = ("data.train", "data.mixture", "data.workers", "seed")


@dataclass(frozen=True)
class Arm:
    """Classifiers that were trained alike but for their seeds.

    Attributes:
        name: what the user calls it.
        predictors: one a seed, in the order of the seeds.
    """

    name: str
    predictors: tuple[Predictor, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of its trainings."""
        return tuple(one.seed for one in self.predictors)


@dataclass(frozen=True)
class Tested:
    """Predictions of the classifiers of an arm on the test images.

    Attributes:
        arm: the arm.
        logits: (seeds, n, classes), classes in the order of the test images'.
        steps: which checkpoint of each run was asked.
    """

    arm: Arm
    logits: np.ndarray
    steps: tuple[int, ...]


def open_arm(name: str, workdirs: Sequence[Path], store: FeatureStore) -> Arm:
    """Returns the classifiers of an arm.

    Args:
        name: of the arm.
        workdirs: runs of classifiers, or linear probes.
        store: keeps features for probes.

    Raises:
        DiffpathError: one is no classifier, or two have the same seed.
    """
    opened = [open_predictor(path, store) for path in workdirs]
    arm = Arm(name, tuple(sorted(opened, key=lambda one: one.seed)))
    if len(set(arm.seeds)) < len(arm.seeds):
        why, fix = f"its seeds are {list(arm.seeds)}", "train each run with a seed of its own"
        raise DiffpathError(f"arm {name!r}", where=workdirs[0], why=why, fix=fix)
    return arm


def check_arms(arms: Sequence[Arm], images: ImageSet, *, mapped: bool = False) -> None:
    """Refuse what cannot be compared.

    Args:
        arms: the arms.
        images: what they are tested on.
        mapped: whether the images' classes were mapped onto some of the classifiers'.

    Raises:
        DiffpathError: arms with other seeds than the first, or a classifier of other classes or images.
    """
    first = arms[0]
    for arm in arms:
        if arm.seeds != first.seeds:
            why = f"its seeds are {list(arm.seeds)}, those of {first.name!r} {list(first.seeds)}"
            fix = "train both with the same seeds: differences are taken seed by seed"
            raise DiffpathError(f"arm {arm.name!r}", where=arm.predictors[0].workdir, why=why, fix=fix)
        for one in arm.predictors:
            known = set(images.classes) <= set(one.classes) if mapped else set(images.classes) == set(one.classes)
            if not known or one.image_px != images.image_px:
                why = f"it tells {list(one.classes)} at {list(one.image_px)} px"
                fix = f"test it on images of these classes and this size, not on {list(images.classes)}"
                raise DiffpathError(f"arm {arm.name!r}", where=one.workdir, why=why, fix=fix)


def with_classes(images: ImageSet, names: Mapping[str, str | None], *, where: Path) -> ImageSet:
    """Returns test images under the classes of classifiers; those of a class without one are left out.

    Args:
        images: the images.
        names: class of the images -> class of the classifiers; none to leave its images out.
        where: file that says so.

    Raises:
        DiffpathError: it does not name every class of the images, or leaves nothing.
    """
    if unnamed := [name for name in images.classes if name not in names]:
        fix = "name each, with null for those to leave out"
        raise DiffpathError("classes", where=where, why=f"it does not say what {unnamed} are", fix=fix)
    classes = tuple(dict.fromkeys(told for name in images.classes if (told := names[name]) is not None))
    if not classes:
        raise DiffpathError("classes", where=where, why="it leaves out every class", fix="name one for some of them")
    label_of = [-1 if (told := names[name]) is None else classes.index(told) for name in images.classes]
    labels = np.array(label_of)[images.labels]
    kept = np.flatnonzero(labels >= 0)
    return replace(images.subset(kept), classes=classes, labels=labels[kept])


def test_arm(arm: Arm, images: ImageSet) -> Tested:
    """Ask every classifier of an arm about every image; of its classes, those of the images count."""
    answers = [one.logits(images) for one in arm.predictors]
    chosen = [[list(one.classes).index(name) for name in images.classes] for one in arm.predictors]
    logits = np.stack([told[:, columns] for (told, _), columns in zip(answers, chosen, strict=True)])
    return Tested(arm, logits, tuple(step for _, step in answers))


def comparison(tested: Sequence[Tested], images: ImageSet, *, seed: int, resamples: int) -> dict[str, Any]:
    """Scores of every arm, and their differences from the first one's, each with its interval.

    Args:
        tested: the arms; the first is what the others are compared with.
        images: what they were tested on.
        seed: of the resampling of patients.
        resamples: how often patients are drawn.
    """
    arms = [one.arm for one in tested]
    measured: list[dict[str, paired.Replicates]] = [{} for _ in tested]
    with track("intervals", total=len(SCORES) * len(tested), unit="scores") as progress:
        for one, scores in zip(tested, measured, strict=True):
            for name, score in SCORES.items():
                scores[name] = paired.replicates(
                    score.of_owners,
                    images.labels,
                    one.logits,
                    images.patients,
                    seed=seed,
                    resamples=resamples,
                    bounds=score.bounds,
                )
                progress.advance(1)
    # A split of one class has no AUROC.
    measured = [{name: each for name, each in scores.items() if each.is_defined} for scores in measured]
    described = [
        {**_about(one, images), "scores": {name: asdict(each.interval) for name, each in scores.items()}}
        for one, scores in zip(tested, measured, strict=True)
    ]
    differences = [
        {
            "arm": arm.name,
            "from": arms[0].name,
            "scores": {name: asdict((each - measured[0][name]).interval) for name, each in scores.items()},
        }
        for arm, scores in zip(arms[1:], measured[1:], strict=True)
    ]
    return {
        "test": asdict(images.about()),
        "classes": list(images.classes),
        "arms": described,
        "differences": differences,
        "warnings": [*_unequal(arms), *_leaks(images, arms)],
    }


def _about(tested: Tested, images: ImageSet) -> dict[str, Any]:
    """Origin of an arm, and its confusion matrix and scores by class; counts are sums over its seeds."""
    size, pairs = len(images.classes), [(images.labels, logits.argmax(axis=-1)) for logits in tested.logits]
    matrices = np.stack([classification.confusion_matrix(labels, told, size) for labels, told in pairs])
    labels = np.tile(images.labels, len(tested.logits))
    curve = classification.reliability(labels, np.concatenate(tested.logits))
    return {
        "name": tested.arm.name,
        "runs": [
            {"workdir": shareable(one.workdir), "digest": one.digest, "seed": one.seed, "step": step}
            for one, step in zip(tested.arm.predictors, tested.steps, strict=True)
        ],
        "mixture": list(tested.arm.predictors[0].mixture),
        "confusion": matrices.sum(axis=0).tolist(),
        "recall": _by_class(images, [classification.recall(matrix) for matrix in matrices]),
        "f1": _by_class(images, [classification.f1(matrix) for matrix in matrices]),
        "reliability": {
            "count": curve.count.tolist(),
            "confidence": [None if np.isnan(value) else value for value in curve.confidence.tolist()],
            "accuracy": [None if np.isnan(value) else value for value in curve.accuracy.tolist()],
        },
    }


def _by_class(images: ImageSet, values: Sequence[np.ndarray]) -> dict[str, float | None]:
    """Means over seeds; none for a class without test images."""
    means = np.mean(values, axis=0).tolist()
    return {name: None if np.isnan(mean) else mean for name, mean in zip(images.classes, means, strict=True)}


def _unequal(arms: Sequence[Arm]) -> Iterator[str]:
    """Settings other than their images in which arms differ."""
    first = arms[0].predictors[0].settings
    for arm in arms:
        keys = {key for one in arm.predictors for key in differing_keys(first, one.settings)}
        if unequal := sorted(keys - set(_OF_AN_ARM)):
            yield f"arm {arm.name!r} was not trained like {arms[0].name!r}: {', '.join(unequal)} differ"


def _leaks(images: ImageSet, arms: Sequence[Arm]) -> Iterator[str]:
    """Test patients that training saw, and what cannot be known of them."""
    if len(set(images.patients) - {""}) < paired.MIN_PATIENTS:
        yield f"fewer than {paired.MIN_PATIENTS} test patients: no intervals"
    tested = _opened(images.where)
    if tested and (block_um := tested.details.job.get("block_um")):
        yield f"the test patients are blocks of {block_um:g} um of one slide, so intervals hold for that slide alone"
    datasets = {path: _opened(path) for arm in arms for one in arm.predictors for path in one.directories}
    at_hand = validation.by_images(dataset for dataset in datasets.values() if dataset)
    for arm in arms:
        named = {path for one in arm.predictors for path in used(one)}
        seen: set[str] = set()
        for path in sorted(named):
            patients, unknown = _seen_by(datasets[path], at_hand)
            seen |= patients
            if unknown:
                yield f"arm {arm.name!r}: whose images are behind {shareable(path)} is not known: {unknown}"
        leak = paired.leak(sorted(seen), images.patients)
        if leak.patients:
            yield (
                f"arm {arm.name!r}: {len(leak.patients)} test patients, with {leak.images:.0%} of the test images, "
                f"were trained on: {', '.join(leak.patients[:3])}{', ...' if len(leak.patients) > 3 else ''}"
            )


def _opened(path: Path) -> Dataset | None:
    try:
        return open_dataset(path, verify=False)
    except DiffpathError:
        return None


def _seen_by(dataset: Dataset | None, at_hand: Mapping[str, Dataset]) -> tuple[set[str], str]:
    """Returns the patients behind the training images of a data set, and what of them is not known."""
    if dataset is None:
        return set(), "it is no longer there"
    patients, are_all = validation.patients_behind(dataset, at_hand)
    return patients, "" if are_all else "its model was trained on a data set that no arm names"
