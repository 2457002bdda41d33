"""A model over its training: what its checkpoints draw, each measured like any other set, and which one is best.

Every checkpoint draws from the same noise and is measured against the same images in the same features, so what differs
between them is what the model has learnt. The best one is a choice, and a choice takes a share of the images that it is
made on into the model; so it is made on validation images alone, and test images stay what they are.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from diffpath_jax.data.manifest import Dataset
from diffpath_jax.data.validation import VAL
from diffpath_jax.evaluation import audit, image_sets, job, table
from diffpath_jax.evaluation.compare import TRAINING_SPLIT
from diffpath_jax.evaluation.feature_cache import FeatureStore
from diffpath_jax.evaluation.image_sets import ImageSet
from diffpath_jax.evaluation.job import Evaluation
from diffpath_jax.evaluation.record import (
    FLOOR,
    MEASURED,
    OVERALL,
    Distances,
    EvaluationRecord,
    Number,
    Rows,
    SkippedAudit,
    as_json,
)
from diffpath_jax.io.adapters import adapter
from diffpath_jax.io.csv_text import csv_text
from diffpath_jax.io.files import write_text
from diffpath_jax.io.sealed import write_sealed
from diffpath_jax.runs.run import Run
from diffpath_jax.sampling.job import SPLIT

RECORD, TABLE = "checkpoints.json", "checkpoints.csv"
TIE_RULE = "the lowest number; of equal ones the earliest step"
# How the sampler was set, of all that a sample set says of its making.
_OF_THE_CHECKPOINT = ("checkpoint_step", "checkpoint_digest")


@dataclass(frozen=True)
class CheckpointRecord:
    """A checkpoint and what it draws.

    Attributes:
        step: training steps.
        parameters: digest of its parameters.
        samples: digest of what it drew.
        evaluation: what was measured of that.
    """

    step: int
    parameters: str
    samples: str
    evaluation: EvaluationRecord


@dataclass(frozen=True)
class Choice:
    """The best checkpoint.

    Attributes:
        step: training steps.
        metric: the number that chose it, over all classes.
        value: that number.
        split: the images that it was measured against.
        rule: how it was chosen.
        not_apart: other steps whose 95 % intervals of that number reach into its own.
    """

    step: int
    metric: str
    value: float
    split: str
    rule: str
    not_apart: tuple[int, ...]


@dataclass(frozen=True)
class NoChoice:
    """No checkpoint is called best.

    Attributes:
        reason: why.
    """

    reason: str


@dataclass(frozen=True, kw_only=True)
class CurveRecord:
    """All of ``checkpoints.json``.

    Attributes:
        workdir: the run.
        run: its digest.
        sampling: how every checkpoint drew.
        floor: what real images reach against real images; none without any.
        checkpoints: in the order of their steps.
        best: the best of them, or why none is called so.
    """

    workdir: str
    run: str
    sampling: Mapping[str, Any]
    floor: EvaluationRecord | None
    checkpoints: list[CheckpointRecord]
    best: Choice | NoChoice


@dataclass(frozen=True)
class Curve:
    """Checkpoints that were measured.

    Attributes:
        record: the numbers.
        image_sets: real images, then those of each checkpoint, by the names that pages give them.
    """

    record: CurveRecord
    image_sets: Mapping[str, ImageSet]


def step_name(step: int) -> str:
    """Returns what a checkpoint is called on pages."""
    return f"step {step:,}"


def undrawn(run: Run) -> ImageSet:
    """Returns a set without images that stands for what a run will draw: its size, classes and um/px can be checked."""
    return ImageSet(
        where=run.workdir,
        split=SPLIT,
        kind="generated",
        digest="",
        dataset="",
        image_px=run.image_px,
        classes=run.classes,
        labels=np.zeros(0, int),
        patients=(),
        mpp=run.mpp,
        training_data=run.images,
        fetch=lambda indices: np.zeros((len(indices), *run.image_px, 3), np.uint8),
    )


def measure_curve(
    base: Evaluation,
    run: Run,
    drawn: Iterable[Dataset],
    *,
    audit_of: Callable[[ImageSet], audit.Sources | SkippedAudit],
    floor_of: Callable[[ImageSet], ImageSet | None],
    store: FeatureStore,
) -> Curve:
    """Measures what each checkpoint drew.

    Args:
        base: the reference, and how to measure.
        run: whose checkpoints they are.
        drawn: the sample set of each, in the order of their steps; each is measured before the next is asked for.
        audit_of: what a set is searched for copies of.
        floor_of: real images beside such a set.
        store: of features.

    Raises:
        DiffpathError: sets that cannot be compared, or features that are not finite.
    """
    # Before anything is drawn.
    job.check_comparable(base.reference, undrawn(run), base.extractors)
    measured_sets: dict[str, ImageSet] = {}
    if isinstance(base.reference, ImageSet):
        measured_sets[f"real {base.reference.split}".strip()] = base.reference
    checkpoints: list[CheckpointRecord] = []
    floor, sampling = None, dict[str, Any]()
    for dataset in drawn:
        images = image_sets.from_dataset(dataset, SPLIT)
        sampling = dict(dataset.details.sampling or {})
        step, parameters = (sampling.pop(name) for name in _OF_THE_CHECKPOINT)
        # Real images are the same beside every checkpoint: they are measured once.
        real = None if checkpoints else floor_of(images)
        measured = job.measure(replace(base, other=images, floor=real, audit=audit_of(images)), store)
        if real is not None:
            floor = replace(_only(measured, FLOOR), classification=[], audit=SkippedAudit("of real images"))
        checkpoints.append(CheckpointRecord(step, parameters, dataset.digest, _only(measured, MEASURED)))
        measured_sets[step_name(step)] = images
    record = CurveRecord(
        workdir=str(run.workdir),
        run=run.digest,
        sampling=sampling,
        floor=floor,
        checkpoints=checkpoints,
        best=choose(checkpoints),
    )
    return Curve(record, measured_sets)


def _only(measured: EvaluationRecord, name: str) -> EvaluationRecord:
    """Returns the numbers of one of the sets that were measured."""

    def own(rows: Rows) -> Rows:
        return {name: rows[name]} if name in rows else {}

    return replace(
        measured,
        sets={name: measured.sets[name]},
        distances=[replace(distances, rows=own(distances.rows)) for distances in measured.distances or ()],
        stain=own(measured.stain or {}),
        nuclei=own(measured.nuclei or {}),
    )


def choose(checkpoints: Sequence[CheckpointRecord]) -> Choice | NoChoice:
    """Returns the checkpoint with the lowest Frechet distance in the first features, over all classes.

    Only a validation split can choose: see above.
    """
    split = checkpoints[0].evaluation.reference.split
    if split != VAL:
        return NoChoice(_why_not(split))
    name = (checkpoints[0].evaluation.distances or [])[0].features.frechet_name
    firsts = {each.step: (each.evaluation.distances or [])[0] for each in checkpoints}
    numbers = {step: number for step, first in firsts.items() if (number := overall(first, name))}
    if not numbers:
        return NoChoice(f"no {name} could be measured")
    # The smallest of equal ones in the order of the steps.
    step = min(sorted(numbers), key=lambda step: numbers[step].value)
    others = tuple(other for other in numbers if other != step and _overlap(numbers[other], numbers[step]))
    return Choice(step, name, numbers[step].value, split, TIE_RULE, others)


def _why_not(split: str) -> str:
    if split == TRAINING_SPLIT:
        return "the train split is what the model learnt from: the nearest to it may be the one that copies it best"
    told = f"these numbers are of the {split} split" if split else "nothing says that these are validation images"
    return (
        f"{told}: whoever picks a checkpoint by them tunes on the images that are to judge it, "
        f"and its number is then too good; choose on the {VAL} split, and measure that one checkpoint here"
    )


def overall(distances: Distances, name: str) -> Number | None:
    """Returns a metric of the only set over all classes; none where it was not measured."""
    (by_class,) = distances.rows.values()
    return by_class[OVERALL].metrics.get(name)


def _overlap(x: Number, y: Number) -> bool:
    if x.low is None or x.high is None or y.low is None or y.high is None:
        return False
    return x.low <= y.high and y.low <= x.high


def write(out: Path, record: CurveRecord) -> None:
    """Writes ``checkpoints.json`` and ``checkpoints.csv``, a line a number."""
    write_sealed(out / RECORD, as_json(record))
    rows = ({"step": step, **row} for step, each in evaluations(record).items() for row in table.rows_of(each))
    write_text(out / TABLE, csv_text(("step", *table.COLUMNS), rows))


def evaluations(record: CurveRecord) -> dict[int | str, EvaluationRecord]:
    """Returns what was measured by step, the floor last, under its name."""
    by_step: dict[int | str, EvaluationRecord] = {each.step: each.evaluation for each in record.checkpoints}
    return {**by_step, **({FLOOR: record.floor} if record.floor else {})}


def read(content: Any) -> CurveRecord:
    """Returns what ``checkpoints.json`` holds; raises ``pydantic.ValidationError`` where it is something else."""
    return adapter(CurveRecord).validate_python(content)


def lines(record: CurveRecord) -> Iterable[str]:
    """Yields the headline numbers of every checkpoint, of the floor, and the choice."""
    for step, evaluation in evaluations(record).items():
        numbers = [
            table.words(name, number)
            for distances in evaluation.distances or ()
            for name in table.headlines(distances.features)
            if (number := overall(distances, name))
        ]
        yield f"{step!s:>9} {', '.join(numbers) or 'nothing could be measured'}"
    yield choice_words(record.best)
    yield from (f"warning: {warning}" for warning in record.checkpoints[0].evaluation.warnings)


def choice_words(best: Choice | NoChoice) -> str:
    """Returns the choice as a sentence."""
    if isinstance(best, NoChoice):
        return f"no checkpoint is called best: {best.reason}"
    beside = ", ".join(f"{step:,}" for step in best.not_apart)
    doubt = f"; not told apart from it by their intervals: {beside}" if beside else ""
    return (
        f"best: {step_name(best.step)} by {best.metric} {best.value:.4g} on the {best.split} split ({best.rule}){doubt}"
    )
