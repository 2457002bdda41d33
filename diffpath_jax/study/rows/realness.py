"""Rows on realness: numbers of generated images beside those of real ones, as they are and compressed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from diffpath_jax.evaluation.record import FLOOR, MEASURED, Rows
from diffpath_jax.evaluation.record import METRICS as METRICS_FILE
from diffpath_jax.evaluation.record import Row as Measured
from diffpath_jax.metrics.metric import Metric, Source
from diffpath_jax.metrics.table import METRICS, metrics_of
from diffpath_jax.study.results import Results
from diffpath_jax.study.row import NEW, Row
from diffpath_jax.study.rows import sets
from diffpath_jax.study.step import Step
from diffpath_jax.study.steps import StudySteps
from diffpath_jax.study.table import Cell, Entry, Section, Table, TableRow

NAMES = {MEASURED: "generated", FLOOR: "real images (floor)"}


def rungs(study: StudySteps) -> Iterator[tuple[int, Step]]:
    """Yields (JPEG quality, measurement): the real images themselves, compressed, as a scale that a reader knows."""
    dataset = study.config.first()[0]
    for quality in study.config.jpeg_qualities:
        words = ("--splits", "test", "--jpeg", str(quality))
        images = study.transformed(f"{dataset}/jpeg/quality_{quality}", study.dataset(dataset), *words)
        options = ("--generated_split", "test", "--floor", "none", "--audit", "none")
        yield quality, study.evaluation(f"jpeg_{quality}", dataset, images, *options)


def _steps(study: StudySteps) -> Sequence[Step]:
    return [sets.first_set(study).evaluation, *(step for _, step in rungs(study))]


def _show(study: StudySteps, results: Results) -> Section:
    evaluation = sets.first_set(study).evaluation
    tables = [
        table
        for space in range(len(results.spaces(evaluation)))
        for table in (_against_rungs(study, results, space), _by_class(study, results, space))
    ]
    return Section((*tables, *_measures(study, results), _labels(study, results)))


def _metric_names(results: Results, evaluation: Step, space: int) -> dict[str, int]:
    """Returns every metric of a feature space, with its decimal places."""
    features = results.spaces(evaluation)[space].features
    return {features.name_of(metric): metric.digits for metric in metrics_of("features")}


def _against_rungs(study: StudySteps, results: Results, space: int) -> Table:
    evaluation = sets.first_set(study).evaluation
    names = _metric_names(results, evaluation, space)

    def entries(step: Step, of: str) -> tuple[Entry, ...]:
        return tuple(results.metric(step, name, space=space, of=of, digits=digits) for name, digits in names.items())

    rows = [
        TableRow("generated", entries(evaluation, MEASURED)),
        TableRow("other real images (floor)", entries(evaluation, FLOOR), floor=True),
        *(
            TableRow(f"the same real images as JPEG, quality {quality}", entries(step, MEASURED), floor=True)
            for quality, step in rungs(study)
        ),
    ]
    features = results.spaces(evaluation)[space].features.name
    return Table(f"Q_{features}", f"Against held-out real images, in {features}", tuple(names), tuple(rows), "images")


def _by_class(study: StudySteps, results: Results, space: int) -> Table:
    evaluation = sets.first_set(study).evaluation
    names = _metric_names(results, evaluation, space)
    rows = [
        TableRow(
            f"{group}, {NAMES[of]}",
            tuple(
                results.metric(evaluation, name, space=space, of=of, group=group, digits=digits)
                for name, digits in names.items()
            ),
            floor=of == FLOOR,
        )
        for group in results.dataset(study.dataset(study.config.first()[0])).schema.classes
        for of in (MEASURED, FLOOR)
    ]
    features = results.spaces(evaluation)[space].features.name
    return Table(f"Q_{features}_by_class", f"By class, in {features}", tuple(names), tuple(rows), "class")


def _measures(study: StudySteps, results: Results) -> Iterator[Table]:
    """Yields the numbers of the images themselves by class, without any network's features."""
    evaluation = sets.first_set(study).evaluation
    measured = results.evaluation(evaluation)
    rows_of: dict[Source, Rows | None] = {"stain": measured.stain, "nuclei": measured.nuclei}
    for source, by_set in rows_of.items():
        metrics = metrics_of(source)
        rows = [
            TableRow(
                f"{group}, {NAMES.get(of, of)}",
                tuple(_measure(results, evaluation, (source, of, group), row, metric) for metric in metrics),
                floor=of == FLOOR,
            )
            for of, groups in (by_set or {}).items()
            for group, row in groups.items()
        ]
        if rows:
            title = f"{source.capitalize()}, against held-out real images"
            yield Table(f"Q_{source}", title, tuple(metric.title for metric in metrics), tuple(rows), "class")


def _measure(
    results: Results, evaluation: Step, place: tuple[Source, str, str], measured: Measured, metric: Metric
) -> Cell | None:
    number = measured.metrics.get(metric.name)
    if number is None:
        return None
    source = results.source(evaluation, METRICS_FILE, *place, "metrics", metric.name, "value")
    return Cell(number.value, number.low, number.high, measured.n_other, None, source, metric.digits)


def _labels(study: StudySteps, results: Results) -> Table:
    """Returns how often the classifier of real images sees the class that was asked for."""
    rows = []
    for each in sets.measured_sets(study):
        for number, entry in enumerate(results.evaluation(each.evaluation).classification):
            if entry.set == MEASURED:
                source = results.source(each.evaluation, METRICS_FILE, "classification", number, "accuracy")
                cell = Cell(entry.accuracy, *entry.interval, entry.data.n, None, source, digits=1, percent=True)
                names = sets.title_of(study, each.dataset), study.config.models[each.model].title
                rows.append(TableRow(", ".join((*names, study.config.samplers[each.sampler].title)), (cell,)))
    columns = ("seen as the class asked for, %",)
    return Table("Q_labels", "Labels, by a classifier of real images", columns, tuple(rows), "images")


@dataclass(frozen=True)
class Realness:
    """How near generated images are to held-out real ones, in the first feature space.

    Attributes:
        distance: Frechet distance of generated images.
        floor: that of other real images; none where it was not measured.
        jpeg: best JPEG quality at which the real images themselves are as far; none where they never are.
        coverage: share of real images with a generated one near by; none where it was not measured.
        coverage_floor: the same of other real images.
    """

    distance: Cell
    floor: Cell | None
    jpeg: int | None
    coverage: Cell | None
    coverage_floor: Cell | None

    @property
    def is_near(self) -> bool | None:
        """Whether distance and coverage both speak for the images; none where the second is unknown.

        The distance is to be that of a JPEG at most, and the coverage at least half of what other real images reach:
        means and covariances can be near where no generated image is near a real one.
        """
        if self.jpeg is None:
            return False
        if self.coverage is None or self.coverage_floor is None or not self.coverage_floor.value:
            return None
        return self.coverage.value >= self.coverage_floor.value / 2


def realness(study: StudySteps, results: Results) -> Realness:
    """Returns what says how real the images of the first set are."""
    evaluation = sets.first_set(study).evaluation
    features = results.spaces(evaluation)[0].features
    name, coverage = features.frechet_name, features.name_of(METRICS["coverage"])
    distance = results.metric(evaluation, name)
    assert distance is not None, "an evaluation without its first distance"
    compressed = {quality: results.metric(step, name) for quality, step in rungs(study)}
    as_far = [quality for quality, cell in compressed.items() if cell and distance.value <= cell.value]
    return Realness(
        distance,
        results.floor(evaluation, name),
        max(as_far, default=None),
        _share(results.metric(evaluation, coverage)),
        _share(results.floor(evaluation, coverage)),
    )


def _share(cell: Cell | None) -> Cell | None:
    """The number in whole per cent."""
    return replace(cell, percent=True, digits=0) if cell else None


ROWS = (Row("Q", "How real the images are", NEW, _steps, _show),)
