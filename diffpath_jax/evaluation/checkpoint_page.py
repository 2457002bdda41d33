"""The checkpoints of a model as curves over its training, and as one HTML page."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from diffpath_jax.evaluation import page
from diffpath_jax.evaluation.checkpoint_curve import (
    CheckpointRecord,
    Choice,
    Curve,
    CurveRecord,
    NoChoice,
    choice_words,
    evaluations,
    overall,
    step_name,
)
from diffpath_jax.evaluation.page import Card, Table
from diffpath_jax.evaluation.record import (
    Distances,
    EvaluationRecord,
    FeatureSpace,
    Number,
    Rows,
    SkippedAudit,
    as_json,
)
from diffpath_jax.evaluation.table import headlines
from diffpath_jax.io.files import replace_file
from diffpath_jax.metrics.metric import Metric
from diffpath_jax.render import html


@dataclass(frozen=True)
class CurvePicture:
    """A metric over the steps.

    Attributes:
        name: of the metric.
        picture: PNG bytes.
    """

    name: str
    picture: bytes


@dataclass(frozen=True)
class CurveSpace:
    """A feature space on the page.

    Attributes:
        features: the feature space.
        curves: its headline metrics.
        tables: a table a metric: a row a checkpoint, a column a class.
        notes: what a reader must know of them.
    """

    features: FeatureSpace
    curves: list[CurvePicture]
    tables: list[Table]
    notes: list[str]


def write_page(out: Path, measured: Curve) -> None:
    """Writes the page, and its curves as files."""
    record = measured.record
    first = record.checkpoints[0].evaluation
    spaces = [_space(record, number) for number in range(len(first.distances or ()))]
    for space in spaces:
        for curve in space.curves:
            with replace_file(out / page.FIGURES / space.features.name / f"{curve.name}.png") as temporary:
                temporary.write_bytes(curve.picture)
    content = as_json(record)
    html.write_page(
        out / page.PAGE,
        "checkpoints.html",
        title=Path(record.workdir).name,
        subtitle=_subtitle(record, first),
        cards=_cards(record),
        choice=choice_words(record.best),
        warnings=first.warnings,
        spaces=spaces,
        galleries=page.galleries(measured.image_sets),
        stain=page.measures_table(
            _by_name({step: one.stain or {} for step, one in evaluations(record).items()}), "stain"
        ),
        checks=[(step_name(each.step), _checks(each)) for each in record.checkpoints],
        resamples=first.resamples,
        has_floor=record.floor is not None,
        settings=[(title, json.dumps(content[title], indent=2)) for title in content],
    )


def _subtitle(record: CurveRecord, first: EvaluationRecord) -> str:
    sampling = record.sampling
    sampler = f"{sampling['sampler']}, {sampling['steps']} steps, guidance {sampling['guidance']:g}"
    return (
        f"{len(record.checkpoints)} checkpoints, each drawn by {sampler}, seed {sampling['seed']}; "
        f"measured against {page.words(first.reference)}."
    )


def _cards(record: CurveRecord) -> list[Card]:
    """Returns the choice, and the number it stands on beside the floor."""
    best = record.best
    if not isinstance(best, Choice):
        return [Card("best checkpoint", "none is named", "see below why")]
    floor = overall(record.floor.distances[0], best.metric) if record.floor and record.floor.distances else None
    words = f"{best.metric} {best.value:.4g} on the {best.split} split"
    return [
        Card(
            "best checkpoint", step_name(best.step), words + (f"; the real floor is {floor.value:.4g}" if floor else "")
        )
    ]


def _by_name(rows: Mapping[int | str, Rows]) -> Rows:
    """Returns the rows of the only set of each evaluation under the name of its checkpoint; the floor keeps its own."""
    return {
        step_name(step) if isinstance(step, int) else step: by_class
        for step, own in rows.items()
        for by_class in own.values()
    }


def _space(record: CurveRecord, number: int) -> CurveSpace:
    by_step = {step: (one.distances or [])[number] for step, one in evaluations(record).items()}
    space = (record.checkpoints[0].evaluation.distances or [])[number].features
    rows = _by_name({step: distances.rows for step, distances in by_step.items()})
    curves = [draw_curve(by_step, name, metric, record.best) for name, metric in headlines(space).items()]
    return CurveSpace(space, [each for each in curves if each], page.tables(space, rows), page.notes_of(rows))


def draw_curve(
    by_step: Mapping[int | str, Distances], name: str, metric: Metric, best: Choice | NoChoice
) -> CurvePicture | None:
    """Returns a metric over the steps with its intervals, beside the floor; none where it was never measured."""
    numbers = {step: number for step, distances in by_step.items() if (number := overall(distances, name))}
    steps = {step: number for step, number in numbers.items() if isinstance(step, int)}
    if not steps:
        return None
    figure = html.new_figure(5.6, 3.2)
    axes = figure.subplots()
    floor = next((number for step, number in numbers.items() if not isinstance(step, int)), None)
    if floor:
        _draw_floor(axes, floor)
    _draw_steps(axes, steps)
    if isinstance(best, Choice) and best.metric == name:
        axes.plot(best.step, best.value, "o", markersize=13, fillstyle="none", color=html.COLOURS[1], label="best")
    html.tidy(axes, f"{name} ({page.reading(metric)})", x="training step")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
    axes.margins(y=0.12)
    axes.legend(fontsize=7, frameon=False)
    return CurvePicture(name, html.png_of(figure))


def _draw_floor(axes: Axes, floor: Number) -> None:
    if floor.low is not None and floor.high is not None:
        axes.axhspan(floor.low, floor.high, color="#9a95a5", alpha=0.25, linewidth=0)
    axes.axhline(floor.value, color="#9a95a5", linewidth=1.2, label="real floor")


def _draw_steps(axes: Axes, numbers: Mapping[int, Number]) -> None:
    for step, number in numbers.items():
        if number.low is not None and number.high is not None:
            axes.plot([step] * 2, [number.low, number.high], color=html.COLOURS[1], linewidth=1.6)
    values = [number.value for number in numbers.values()]
    axes.plot([*numbers], values, "o-", markersize=5, linewidth=1, color=html.COLOURS[1], label="generated")


def _checks(checkpoint: CheckpointRecord) -> list[str]:
    """Returns what the audit and the classifiers say of what a checkpoint drew."""
    evaluation = checkpoint.evaluation
    audit = evaluation.audit
    said = f"no audit: {audit.skipped}" if isinstance(audit, SkippedAudit) else audit.copies.verdict
    agreement = [
        f"agreement with classifier {entry.classifier.title}: {100 * entry.accuracy:.1f} %"
        for entry in evaluation.classification
        if entry.set in evaluation.sets
    ]
    return [said, *agreement]
