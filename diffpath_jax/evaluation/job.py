"""An evaluation: a set against a reference, beside what real images reach against real images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from diffpath_jax.data import writer
from diffpath_jax.evaluation import audit, compare, image_measures, label_agreement
from diffpath_jax.evaluation.feature_cache import FeatureStore
from diffpath_jax.evaluation.features.extractor import FeatureExtractor
from diffpath_jax.evaluation.image_sets import ImageSet, Statistics, with_counts
from diffpath_jax.evaluation.record import (
    FLOOR,
    MEASURED,
    OVERALL,
    REFERENCE,
    Classification,
    Distances,
    EvaluationRecord,
    FeatureSpace,
    Row,
    Rows,
    SkippedAudit,
)
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.path_names import short_names
from diffpath_jax.io.progress import track
from diffpath_jax.metrics.bootstrap import BootstrapConfig
from diffpath_jax.metrics.metric import Metric, Source
from diffpath_jax.metrics.table import asked_for
from diffpath_jax.runs import run as runs

MIN_FLOOR = 4


@dataclass(frozen=True)
class Evaluation:
    """Sets and settings of an evaluation.

    Attributes:
        reference: real images, or their statistics.
        other: what is measured against them; none where only the floor or a classifier is asked for.
        floor: real images that are not in ``reference``, as a floor of every distance; none for none.
        extractors: feature spaces.
        classifiers: classifiers whose answers are compared with the labels.
        audit: sources of the memorisation audit, or why there is none.
        config: settings of intervals.
        options: of metrics that are measured where they are asked for.
    """

    reference: ImageSet | Statistics
    other: ImageSet | Statistics | None
    floor: ImageSet | None
    extractors: Sequence[FeatureExtractor]
    classifiers: Sequence[runs.Run]
    audit: audit.Sources | SkippedAudit
    config: BootstrapConfig
    options: tuple[str, ...] = ()

    @property
    def compared(self) -> dict[str, ImageSet | Statistics]:
        """Sets measured against the reference, by name."""
        sources = {MEASURED: self.other, FLOOR: self.floor}
        return {name: source for name, source in sources.items() if source is not None}

    @property
    def image_sets(self) -> dict[str, ImageSet]:
        """The sets whose images are at hand, by name."""
        sources = {REFERENCE: self.reference, **self.compared}
        return {name: source for name, source in sources.items() if isinstance(source, ImageSet)}


def real_floor(pool: ImageSet, other: ImageSet | Statistics | None, *, seed: int) -> ImageSet | None:
    """Returns real images for a distance to be read beside: as many of each class as the other set has, if possible.

    Args:
        pool: real images that are not in the reference, such as the training split.
        other: the set whose distance it is; without one, the whole pool is the floor; statistics have no number.
        seed: random seed of the choice.

    Returns:
        The floor; none where there are too few images for one.
    """
    if other is None:
        return pool
    if isinstance(other, Statistics):
        return None
    floor = with_counts(pool, other, seed=seed)
    return floor if len(floor) >= MIN_FLOOR else None


def measure(evaluation: Evaluation, store: FeatureStore) -> EvaluationRecord:
    """Measures everything that was asked for.

    Raises:
        DiffpathError: sets that cannot be compared, or features that are not finite.
    """
    reference, compared, config = evaluation.reference, evaluation.compared, evaluation.config
    extractors = _extractors(evaluation)
    for source in compared.values():
        check_comparable(reference, source, extractors)
    sources = evaluation.audit
    return EvaluationRecord(
        versions=writer.versions("jax", "numpy", "scipy"),
        seed=config.seed,
        resamples=config.resamples,
        intervals="influence" if config.influence else "bootstrap",
        reference=reference.about(),
        sets={name: source.about() for name, source in compared.items()},
        distances=[_distances(evaluation, extractor, store) for extractor in extractors] if compared else None,
        **_image_measures(evaluation, store),
        classification=list(_classifications(evaluation)),
        audit=sources
        if isinstance(sources, SkippedAudit)
        else audit.run(sources, evaluation.extractors, store, seed=config.seed),
        warnings=_warnings(evaluation.image_sets),
    )


def _warnings(image_sets: Mapping[str, ImageSet]) -> tuple[str, ...]:
    """Returns why numbers of some sets, by name, say less than they seem to."""
    reference = image_sets.get(REFERENCE)
    optimism = [reference.optimism] if reference and reference.optimism else []
    started = [f"images of {name} {images.references}" for name, images in image_sets.items() if images.references]
    return (*optimism, *started)


def _image_measures(evaluation: Evaluation, store: FeatureStore) -> dict[str, Rows]:
    """Returns what is measured without features, by field of the record."""
    if not evaluation.compared:
        return {}
    reference, config = evaluation.reference, evaluation.config
    others = {name: images for name, images in evaluation.image_sets.items() if name != REFERENCE}
    if not isinstance(reference, ImageSet):
        return {"stain": {}}
    return {
        "stain": image_measures.stain_rows(reference, others, config=config),
        "nuclei": image_measures.nuclei_rows(reference, others, store, config=config),
    }


def _extractors(evaluation: Evaluation) -> Sequence[FeatureExtractor]:
    """Returns feature spaces with names of their own; where only statistics are known, the one that they share."""
    if evaluation.compared and not evaluation.image_sets:
        return [STORED]
    names = [extractor.name for extractor in evaluation.extractors]
    return [
        replace(extractor, name=f"{extractor.name}-{extractor.digest[:6]}")
        if names.count(extractor.name) > 1
        else extractor
        for extractor in evaluation.extractors
    ]


def _no_features(images: np.ndarray) -> np.ndarray:
    raise AssertionError("statistics have no images")


# Where both sides are stored statistics, no network is asked.
STORED = FeatureExtractor("stored", "stored statistics; they do not say of which network", "", "unknown", _no_features)


def _distances(evaluation: Evaluation, extractor: FeatureExtractor, store: FeatureStore) -> Distances:
    space = _space(extractor)
    rows = _rows(evaluation, extractor, "features", space, store)
    for source, view in extractor.views.items():
        if asked_for(source, evaluation.options):
            for name, by_group in _rows(evaluation, view, source, space, store).items():
                rows[name] |= {group: compare.joined(rows[name][group], row) for group, row in by_group.items()}
    if FLOOR in rows and MEASURED in rows:
        rows[FLOOR] = _with_size_notes(rows[FLOOR], rows[MEASURED])
    return Distances(space, rows)


def _rows(
    evaluation: Evaluation, extractor: FeatureExtractor, source: Source, space: FeatureSpace, store: FeatureStore
) -> Rows:
    """Returns what is measured of the features of an extractor; of a view only between sets of images."""
    reference, compared = evaluation.reference, evaluation.compared
    if source != "features":
        compared = {name: other for name, other in evaluation.image_sets.items() if name != REFERENCE}
        if not isinstance(reference, ImageSet):
            return {}
    rows: Rows = {}
    # Features are computed under a bar of their own.
    features = {name: store.features(images, extractor) for name, images in evaluation.image_sets.items()}
    metrics = asked_for(source, evaluation.options)
    total = sum(compare.count_rows(reference, other) for other in compared.values())
    with track(f"metrics in {extractor.name}", total=total, unit="class") as progress:
        for name in compared:
            rows[name] = {}
            for group, row in _compared(evaluation, name, space, features, metrics):
                rows[name][group] = row
                progress.advance(1)
    return rows


def _space(extractor: FeatureExtractor) -> FeatureSpace:
    return FeatureSpace(
        name=extractor.name,
        description=extractor.description,
        digest=extractor.digest,
        resize=extractor.resize,
        frechet_name=extractor.frechet_name,
        kernel_name=extractor.kernel_name,
    )


def _with_size_notes(floor: Mapping[str, Row], measured: Mapping[str, Row]) -> dict[str, Row]:
    """Returns the rows of a floor, with a note where it has fewer images: a distance grows as images get fewer."""

    def notes(group: str, row: Row) -> Iterator[str]:
        count = measured[group].n_other if group in measured else None
        if count and row.n_other and row.n_other < count:
            yield f"the floor has {row.n_other} images and the set {count}: it is too high"

    return {group: compare.with_notes(row, notes(group, row)) for group, row in floor.items()}


def _compared(
    evaluation: Evaluation,
    name: str,
    space: FeatureSpace,
    features: Mapping[str, Float[np.ndarray, "_ d"]],
    metrics: Sequence[Metric],
) -> Iterator[tuple[str, Row]]:
    """Yields the rows of one set; ``features`` has those of every set of images."""
    reference, other = evaluation.reference, evaluation.compared[name]
    if isinstance(reference, ImageSet) and isinstance(other, ImageSet):
        pair = compare.Pair(reference, other, features[REFERENCE], features[name], evaluation.config)
        yield from compare.feature_rows(pair, space, metrics)
        return
    x_gaussian, y_gaussian = (
        compare.gaussian(source if isinstance(source, Statistics) else features[source_name])
        for source_name, source in ((REFERENCE, reference), (name, other))
    )
    if x_gaussian.mean.shape != y_gaussian.mean.shape:
        where = next(source.where for source in (reference, other) if isinstance(source, Statistics))
        why = f"statistics of {len(x_gaussian.mean)} and {len(y_gaussian.mean)} features cannot be compared"
        raise DiffpathError("statistics", where=where, why=why, fix="use statistics of the same network's features")
    counts = (reference.about().n, other.about().n)
    yield OVERALL, compare.statistics_row(x_gaussian, y_gaussian, counts=counts, name=space.frechet_name)


def _classifications(evaluation: Evaluation) -> Iterator[Classification]:
    labelled = {name: images for name, images in evaluation.image_sets.items() if images.classes and name != FLOOR}
    names = short_names([run.workdir for run in evaluation.classifiers])
    for run, name in zip(evaluation.classifiers, names, strict=True):
        yield from label_agreement.classify(run, labelled, name=name, config=evaluation.config)


def check_comparable(
    reference: ImageSet | Statistics, other: ImageSet | Statistics, extractors: Sequence[FeatureExtractor]
) -> None:
    """Refuses a comparison over other classes, or over other sizes in features that do not resize.

    Raises:
        DiffpathError: naming both.
    """
    if isinstance(reference, Statistics) or isinstance(other, Statistics):
        return
    unknown = sorted(set(other.classes) - set(reference.classes))
    if unknown and reference.classes:
        why = f"{unknown} are not among those of {reference.where}: {list(reference.classes)}"
        fix = "compare what has the same classes, or rename the folders"
        raise DiffpathError("classes", where=other.where, why=why, fix=fix)
    for extractor in extractors:
        for images in (reference, other):
            extractor.check_size(images.image_px, where=images.where)
