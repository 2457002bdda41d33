"""An evaluation as figures, and as one HTML page."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes

from diffpath_jax.data import marking
from diffpath_jax.data.image_files import encode_png
from diffpath_jax.evaluation.audit import PairPicture
from diffpath_jax.evaluation.compare import MIN_INFLUENCE
from diffpath_jax.evaluation.image_sets import ImageSet
from diffpath_jax.evaluation.record import (
    FLOOR,
    OVERALL,
    REFERENCE,
    AuditRecord,
    Classification,
    Distances,
    EvaluationRecord,
    FeatureSpace,
    Number,
    OtherTests,
    Rows,
    SetRecord,
    SkippedAudit,
    as_json,
)
from diffpath_jax.evaluation.table import Cell, cell, headlines
from diffpath_jax.io.files import replace_file
from diffpath_jax.metrics.metric import Metric, Source
from diffpath_jax.metrics.table import EXTRACTED, metrics_of
from diffpath_jax.render import html, image_grid

PAGE, FIGURES = "index.html", "figures"
SHOWN_PER_CLASS = 16


@dataclass(frozen=True)
class TableRow:
    """A row of a table of numbers.

    Attributes:
        name: its heading.
        floor: whether it is of real images.
        cells: a number a column; none where it was not measured.
    """

    name: str
    floor: bool
    cells: list[Cell | None]


@dataclass(frozen=True)
class Table:
    """A table of numbers.

    Attributes:
        title: heading of its rows.
        words: what it shows, and which values are good.
        columns: headings of its columns.
        rows: its rows.
    """

    title: str
    words: str
    columns: list[str]
    rows: list[TableRow]


@dataclass(frozen=True)
class Space:
    """A feature space on the page.

    Attributes:
        features: the feature space.
        tables: a table a metric.
        notes: what a reader must know of them.
        figure: PNG bytes of the main metrics by class; none where there are none.
    """

    features: FeatureSpace
    tables: list[Table]
    notes: list[str]
    figure: bytes | None


@dataclass(frozen=True)
class Card:
    """A number that a reader looks for first.

    Attributes:
        name: its name.
        value: the number.
        words: how to read it.
    """

    name: str
    value: str
    words: str


@dataclass(frozen=True)
class Strip:
    """Some images of a set in a row.

    Attributes:
        name: name of the set.
        picture: PNG bytes.
    """

    name: str
    picture: bytes


@dataclass(frozen=True)
class Gallery:
    """Images of one class.

    Attributes:
        group: name of the class.
        strips: a row a set.
    """

    group: str
    strips: list[Strip]


def write_page(
    out: Path, record: EvaluationRecord, images: Mapping[str, ImageSet], pairs: Sequence[PairPicture]
) -> None:
    """Writes the page, and its figures as files.

    Args:
        out: directory.
        record: the evaluation.
        images: sets of images, by their names in the record.
        pairs: closest pairs of the audit.
    """
    spaces = [_space(distances) for distances in record.distances or ()]
    for space in spaces:
        if space.figure:
            with replace_file(out / FIGURES / f"{space.features.frechet_name}.png") as temporary:
                temporary.write_bytes(space.figure)
    sets, content = {**record.sets, REFERENCE: record.reference}, as_json(record)
    html.write_page(
        out / PAGE,
        "evaluation.html",
        title=_title(record),
        subtitle=f"Measured against {words(record.reference)}. Seed {record.seed}.",
        cards=list(_cards(record)),
        warnings=record.warnings,
        galleries=galleries(images),
        spaces=spaces,
        resamples=record.resamples,
        by_influence=record.intervals == "influence",
        min_influence=MIN_INFLUENCE,
        has_floor=FLOOR in record.sets,
        audit=None if isinstance(record.audit, SkippedAudit) else record.audit,
        audit_rows=[] if isinstance(record.audit, SkippedAudit) else _audit_rows(record.audit),
        pairs=pairs,
        stain=measures_table(record.stain or {}, "stain"),
        nuclei=measures_table(record.nuclei or {}, "nuclei"),
        nuclei_notes=notes_of(record.nuclei or {}),
        classifications=[
            (f"{entry.set}: {Path(sets[entry.set].where).name}, classifier {entry.classifier.title}", entry)
            for entry in record.classification
        ],
        settings=[(title, json.dumps(content[title], indent=2)) for title in sorted(content)],
    )


def _title(record: EvaluationRecord) -> str:
    source = next((source for name, source in record.sets.items() if name != FLOOR), record.reference)
    return Path(source.where).name or source.where


def words(source: SetRecord) -> str:
    """Returns what a set is, and how large."""
    count = "images known by their statistics" if source.n is None else f"{source.n:,} images"
    split = f", split {source.split}" if source.split else ""
    return f"{count} of {source.where}{split}"


def _cards(record: EvaluationRecord) -> Iterator[Card]:
    """Yields the numbers that a reader looks for first."""
    for distances in record.distances or ():
        yield from _distance_cards(distances)
    for entry in record.classification:
        yield _classification_card(entry)
    audit = record.audit
    if isinstance(audit, SkippedAudit):
        yield Card("memorisation audit", "none", audit.skipped)
    else:
        value = f"{len(audit.copies.flagged):,} of {audit.sources['generated'].n:,} flagged"
        yield Card("memorisation audit", value, audit.copies.verdict)


def _distance_cards(distances: Distances) -> Iterator[Card]:
    space, rows = distances.features, distances.rows
    numbers = {name: groups[OVERALL].metrics.get(space.frechet_name) for name, groups in rows.items()}
    floor = numbers.get(FLOOR)
    for name, number in numbers.items():
        if number and (name != FLOOR or len(numbers) == 1):
            beside = None if name == FLOOR else floor
            yield Card(
                f"{space.frechet_name}, resize {space.resize}", f"{number.value:.2f}", _interval_words(number, beside)
            )


def _interval_words(number: Number, floor: Number | None) -> str:
    interval = "no interval" if number.low is None else f"95 % interval {number.low:.2f} to {number.high:.2f}"
    return interval + (f"; the real floor is {floor.value:.2f}" if floor else "")


def _classification_card(entry: Classification) -> Card:
    title = entry.classifier.title
    words = f"of its images have the class that was asked for, says the classifier {title}"
    if entry.set == REFERENCE:
        words = f"of the real images are told right by the classifier {title}"
    return Card(entry.set, f"{100 * entry.accuracy:.1f} %", words)


def galleries(images: Mapping[str, ImageSet]) -> list[Gallery]:
    """Returns a row of images of each set, class by class; sets of as many images show those of the same numbers."""
    classes = list(dict.fromkeys(name for part in images.values() for name in part.classes))
    by_class = []
    for group in classes or [OVERALL]:
        chosen = {name: part.of_class(group) if classes else np.arange(len(part)) for name, part in images.items()}
        strips = [Strip(name, _strip(images[name], indices)) for name, indices in chosen.items() if len(indices)]
        by_class.append(Gallery(group, strips))
    return by_class


def _strip(images: ImageSet, chosen: Int[np.ndarray, "n"]) -> bytes:
    """Returns some of the chosen images in a row, evenly spread."""
    places = np.linspace(0, len(chosen) - 1, min(SHOWN_PER_CLASS, len(chosen))).round().astype(int)
    strip = image_grid.tile(images.fetch(chosen[places]), columns=SHOWN_PER_CLASS)
    return encode_png(strip, marking.about() if images.kind == marking.GENERATED else None)


def _space(distances: Distances) -> Space:
    space, rows = distances.features, distances.rows
    return Space(space, tables(space, rows), notes_of(rows), _figure(rows, _groups(rows), headlines(space)))


def _groups(rows: Rows) -> list[str]:
    return list(dict.fromkeys(group for by_group in rows.values() for group in by_group))


def tables(space: FeatureSpace, rows: Rows) -> list[Table]:
    """Returns a table of each metric that was measured: a row a set, a column a class."""
    groups = _groups(rows)
    every = [_by_class(rows, groups, space.name_of(metric), metric) for metric in metrics_of(*EXTRACTED)]
    return [table for table in every if any(cell for row in table.rows for cell in row.cells)]


def notes_of(rows: Rows) -> list[str]:
    """Returns what a reader must know of rows, each once."""
    return sorted({note for by_group in rows.values() for row in by_group.values() for note in row.notes})


def _by_class(rows: Rows, groups: Sequence[str], name: str, metric: Metric) -> Table:
    """Returns a table of one metric: a row a set, a column a class."""
    return Table(
        title=name,
        words=f"{metric.title}; {reading(metric)}",
        columns=list(groups),
        rows=[
            TableRow(set_name, set_name == FLOOR, [cell(by_group.get(group), name, metric.digits) for group in groups])
            for set_name, by_group in rows.items()
        ],
    )


def reading(metric: Metric) -> str:
    """Returns which values of a metric are good."""
    return f"{metric.better} is better"


def _figure(rows: Rows, groups: Sequence[str], metrics: Mapping[str, Metric]) -> bytes | None:
    """Returns each metric by class with its interval, the sets side by side."""
    measured = {name for by_group in rows.values() for row in by_group.values() for name in row.metrics}
    metrics = {name: metric for name, metric in metrics.items() if name in measured}
    if not metrics:
        return None
    figure = html.new_figure(5.5 * max(2, len(metrics)), 1.2 + 0.34 * len(groups) * len(rows))
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, (name, metric) in zip(panels, metrics.items(), strict=True):
        _draw_panel(axes, rows, groups, name)
        axes.set_xlabel(f"{name} ({reading(metric)})", fontsize=8)
    handles = {line.get_label(): line for line in axes.lines if not str(line.get_label()).startswith("_")}
    axes.legend(list(handles.values()), list(handles), fontsize=8, frameon=False)
    return html.png_of(figure)


def _draw_panel(axes: Axes, rows: Rows, groups: Sequence[str], name: str) -> None:
    for index, (set_name, by_group) in enumerate(rows.items()):
        for place, group in enumerate(groups):
            number = by_group[group].metrics.get(name) if group in by_group else None
            if number:
                _draw(axes, number, place + index / (len(rows) + 1), set_name)
    axes.set_yticks(range(len(groups)), groups, fontsize=8)
    axes.invert_yaxis()
    axes.tick_params(labelsize=8)
    axes.axvline(0, color="#cccccc", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw(axes: Axes, number: Number, height: float, set_name: str) -> None:
    colour = "#9a95a5" if set_name == FLOOR else html.COLOURS[1]
    axes.plot(number.value, height, "o", markersize=5, color=colour, label=set_name)
    if number.low is not None and number.high is not None:
        axes.plot([number.low, number.high], [height] * 2, color=colour, linewidth=1.6)


def measures_table(rows: Rows, source: Source) -> Table | None:
    """Returns a table of what is measured without features: a row a set and class, a column a metric."""
    metrics = metrics_of(source)
    if not any(row.metrics for by_group in rows.values() for row in by_group.values()):
        return None
    return Table(
        title="set, class",
        words="; ".join(f"{metric.title}: {reading(metric)}" for metric in metrics),
        columns=[metric.title for metric in metrics],
        rows=[
            TableRow(
                f"{set_name}, {group}",
                set_name == FLOOR,
                [cell(row, metric.name, metric.digits) for metric in metrics],
            )
            for set_name, by_group in rows.items()
            for group, row in by_group.items()
        ],
    )


def _audit_rows(audit: AuditRecord) -> list[tuple[str, str]]:
    """Returns the numbers of an audit as (name, value)."""
    copies, alarms = audit.copies, audit.copies.false_alarms
    count = audit.sources["generated"].n
    return [
        ("images flagged as copies", f"{len(copies.flagged):,} of {count:,} ({copies.share:.2%})"),
        ("so near that no held-out image would be", f"{len(copies.certain):,}"),
        ("of images of other patients, at most", f"{alarms.guaranteed:.2%} are flagged"),
        (
            "of fresh held-out images",
            f"{round(alarms.measured * alarms.n):,} of {alarms.n:,} ({alarms.measured:.2%})",
        ),
        ("chance of as many by false alarms", f"{copies.p_value:.3g}"),
        ("images that repeat each other", audit.repeated.verdict),
        ("groups of them", f"{len(audit.repeated.groups):,}"),
        *(_other_tests_row(tests) for tests in audit.other_tests),
    ]


def _other_tests_row(tests: OtherTests) -> tuple[str, str]:
    score = tests.note if tests.c_t is None else f"C_T {tests.c_t:.2f} (far below 0: copies)"
    authentic = f"AuthPct {tests.auth_percent:.1f}, of held-out images {tests.auth_percent_of_held_out:.1f}"
    return f"other tests, in {tests.features}", f"{authentic}; {score}"
