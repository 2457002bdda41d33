"""An evaluation as a CSV file, as lines of text, and as cells of tables."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffpath_jax.evaluation.record import OVERALL, Distances, EvaluationRecord, FeatureSpace, Number, Row, SkippedAudit
from diffpath_jax.io.csv_text import csv_text
from diffpath_jax.io.files import write_text
from diffpath_jax.metrics.metric import Metric
from diffpath_jax.metrics.table import metrics_of

TABLE = "per_class.csv"
COLUMNS = (
    "features",
    "resize",
    "digest",
    "set",
    "class",
    "n_reference",
    "n_other",
    "metric",
    "value",
    "low",
    "high",
    "notes",
)


@dataclass(frozen=True)
class Cell:
    """A number as a table shows it.

    Attributes:
        value: the number.
        interval: its interval in brackets; empty without one.
        counts: images of the reference and of the set.
    """

    value: str
    interval: str
    counts: str


def cell(row: Row | None, name: str, digits: int) -> Cell | None:
    """Returns a metric of a row; none where it was not measured."""
    number = row.metrics.get(name) if row else None
    if row is None or number is None:
        return None
    ends = () if number.low is None else (number.low, number.high)
    interval = f"[{', '.join(f'{end:.{digits}f}' for end in ends)}]" if ends else ""
    return Cell(f"{number.value:.{digits}f}", interval, f"{row.n_reference} / {row.n_other}")


def headlines(space: FeatureSpace) -> dict[str, Metric]:
    """Returns the metrics that are shown first in a feature space, by their names there."""
    return {space.name_of(metric): metric for metric in metrics_of("features") if metric.headline}


def write_csv(path: Path, record: EvaluationRecord) -> None:
    """Writes every number with its interval, one a line."""
    write_text(path, csv_text(COLUMNS, rows_of(record)))


def rows_of(record: EvaluationRecord) -> Iterator[dict[str, Any]]:
    """Yields every number with its interval, by column."""
    for features, set_name, group, row in _rows(record):
        counts = {"n_reference": row.n_reference, "n_other": row.n_other}
        common = {**features, **counts, "set": set_name, "class": group, "notes": "; ".join(row.notes)}
        if not row.metrics:
            yield {**common, "metric": ""}
        for metric, number in row.metrics.items():
            yield {**common, "metric": metric, "value": number.value, "low": number.low, "high": number.high}
    for entry in record.classification:
        low, high = entry.interval
        common = {"features": f"classifier {entry.classifier.name}".strip(), "digest": entry.classifier.run}
        common |= {"set": entry.set, "class": OVERALL, "n_other": entry.data.n}
        yield {**common, "metric": "accuracy", "value": entry.accuracy, "low": low, "high": high}
        yield {**common, "metric": "balanced_accuracy", "value": entry.balanced_accuracy}


def _rows(record: EvaluationRecord) -> Iterator[tuple[dict[str, str], str, str, Row]]:
    """Yields columns of the features, name of the set, class, and row."""
    sources: list[tuple[dict[str, str], Mapping[str, Mapping[str, Row]]]] = [
        (
            {"features": part.features.name, "resize": part.features.resize, "digest": part.features.digest},
            part.rows,
        )
        for part in record.distances or ()
    ]
    measures = {"stain": record.stain, "nuclei": record.nuclei}
    for features, rows in [*sources, *(({"features": name}, rows or {}) for name, rows in measures.items())]:
        for set_name, groups in rows.items():
            for group, row in groups.items():
                yield features, set_name, group, row


def lines(record: EvaluationRecord) -> Iterator[str]:
    """Yields the evaluation in a few lines: distances of every class, the audit, and what classifiers see."""
    for distances in record.distances or ():
        yield from _distance_lines(distances)
    audit = record.audit
    verdict = f"none: {audit.skipped}" if isinstance(audit, SkippedAudit) else audit.copies.verdict
    yield f"audit      {verdict}"
    for entry in record.classification:
        scores = f"accuracy {entry.accuracy:.4f}, balanced {entry.balanced_accuracy:.4f}"
        yield f"{entry.set:10s} classifier {entry.classifier.title}: {scores} (n {entry.data.n})"
    yield from (f"warning: {warning}" for warning in record.warnings)


def _distance_lines(distances: Distances) -> Iterator[str]:
    space = distances.features
    yield f"in {space.name}, resize {space.resize}:"
    for set_name, groups in distances.rows.items():
        for group, row in groups.items():
            numbers = [words(name, row.metrics[name]) for name in headlines(space) if name in row.metrics]
            notes = f"  ({'; '.join(row.notes)})" if row.notes and numbers and group == OVERALL else ""
            counts = " / ".join("unknown" if count is None else str(count) for count in (row.n_reference, row.n_other))
            yield f"{set_name:10s} {group:12s} {', '.join(numbers) or '; '.join(row.notes)}  n {counts}{notes}"


def words(name: str, number: Number) -> str:
    """Returns a number with its name and interval."""
    ends = "" if number.low is None else f" [{number.low:.4g}, {number.high:.4g}]"
    return f"{name} {number.value:.4g}{ends}"
