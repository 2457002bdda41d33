"""Filters of generated images: those that a classifier is sure of, and those that an audit does not call copies."""

from pathlib import Path

import numpy as np
import scipy.special
from jaxtyping import Bool, Int

from diffpath_jax.data.manifest import Dataset
from diffpath_jax.evaluation import image_sets, record
from diffpath_jax.evaluation.features.classifier import check_classifier, predictor
from diffpath_jax.evaluation.record import MEASURED, SkippedAudit
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.progress import track
from diffpath_jax.runs import run as runs


def confident(
    dataset: Dataset, split: str, labels: Int[np.ndarray, "n"], workdir: Path, *, least: float
) -> Bool[np.ndarray, "n"]:
    """Returns which images a classifier gives their label at least so probable.

    Args:
        dataset: the images.
        split: part of it.
        labels: of its images.
        workdir: run of the classifier, which is asked at its best checkpoint where it kept one.
        least: probability.

    Raises:
        DiffpathError: the run is no classifier, or one of other classes or sizes.
    """
    run = runs.open_run(workdir)
    check_classifier(run)
    if set(run.classes) != set(dataset.schema.classes) or run.image_px != dataset.schema.image_px:
        why = f"it tells {list(run.classes)} at {list(run.image_px)} px"
        fix = f"name one of {list(dataset.schema.classes)} at {list(dataset.schema.image_px)} px"
        raise DiffpathError("classifier", where=workdir, why=why, fix=fix)
    trained = runs.load_parameters(run, step="best" if run.config.train.keep_best else "latest")
    predict, images = predictor(run.network), image_sets.from_dataset(dataset, split)
    order, parts = [run.classes.index(name) for name in dataset.schema.classes], []
    with track(f"classes of {dataset.name}", total=len(images), unit="img") as progress:
        for block in images.blocks():
            logits = predict((trained.params, trained.model_state), block)[0]
            parts.append(scipy.special.softmax(np.asarray(logits, np.float64)[:, order], axis=-1))
            progress.advance(len(block))
    return np.concatenate(parts)[np.arange(len(labels)), labels] >= least


def clean(dataset: Dataset, evaluation: Path, split: str) -> Bool[np.ndarray, "n"]:
    """Returns which images an audit does not call copies.

    Args:
        dataset: the images.
        evaluation: ``--out`` of the ``diffpath eval`` that audited them.
        split: part of the data set.

    Raises:
        DiffpathError: there was no audit, or one of other images.
    """
    measured = record.read(evaluation / record.METRICS)
    audited = measured.sets.get(MEASURED)
    if audited is None or (audited.dataset, audited.split) != (dataset.digest, split):
        fix = f"name the evaluation of {dataset.directory}, split {split!r}"
        raise DiffpathError("audit", where=evaluation, why="it is of other images", fix=fix)
    if isinstance(measured.audit, SkippedAudit):
        why, fix = f"there was none: {measured.audit.skipped}", "evaluate them with --audit"
        raise DiffpathError("audit", where=evaluation, why=why, fix=fix)
    mask = np.ones(dataset.count(split), bool)
    mask[measured.audit.copies.flagged] = False
    return mask
