"""One set of images measured against another: every metric overall and for each class, with its interval."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from diffpath_jax.data.records import known_to_differ
from diffpath_jax.evaluation.image_sets import ImageSet, Statistics
from diffpath_jax.evaluation.record import OVERALL, FeatureSpace, Number, Row
from diffpath_jax.metrics import bootstrap, fid, influence
from diffpath_jax.metrics.bootstrap import BootstrapConfig, Estimate
from diffpath_jax.metrics.metric import Comparison, Metric, Source
from diffpath_jax.metrics.table import metrics_of

# Share of images by which a class may differ between two sets before their overall distance is qualified.
MAX_MIX_DIFFERENCE = 0.05
TRAINING_SPLIT = "train"
# Images of a class below which that is said.
MIN_CLASS = 50
# Below this many images a metric is not yet nearly linear in their weights, and replicates cost little.
MIN_INFLUENCE = 100


@dataclass(frozen=True)
class Pair:
    """Two sets of images with the same number of values for each image.

    Attributes:
        reference: real images.
        other: what is measured against them.
        x: an array for each image of ``reference``.
        y: an array for each image of ``other``.
        config: settings of intervals.
    """

    reference: ImageSet
    other: ImageSet
    x: Float[np.ndarray, "m *d"]
    y: Float[np.ndarray, "n *d"]
    config: BootstrapConfig

    def comparison(self, x_chosen: np.ndarray | slice, y_chosen: np.ndarray | slice) -> Comparison:
        """Returns some images of either set, with groups for intervals."""
        x_groups, y_groups = (
            bootstrap.partition(np.array(images.patients)[chosen], seed=self.config.seed)
            for images, chosen in ((self.reference, x_chosen), (self.other, y_chosen))
        )
        return Comparison(self.x[x_chosen], self.y[y_chosen], x_groups, y_groups, self.config.seed)


def feature_rows(pair: Pair, space: FeatureSpace, metrics: Iterable[Metric]) -> Iterator[tuple[str, Row]]:
    """Yields metrics of features, overall and for each class of the reference."""
    named = {space.name_of(metric): metric for metric in metrics}

    def measure(comparison: Comparison) -> Row:
        row = _measured(comparison, named, pair.config)
        return with_notes(row, _unit_notes(comparison, pair.config) if row.metrics else [])

    return _rows(pair, measure)


def image_rows(pair: Pair, source: Source) -> Iterator[tuple[str, Row]]:
    """Yields all metrics of what is measured of each image itself, overall and for each class."""
    metrics = {metric.name: metric for metric in metrics_of(source)}
    return _rows(pair, lambda comparison: _measured(comparison, metrics, pair.config))


def statistics_row(
    reference: fid.Gaussian, other: fid.Gaussian, *, counts: tuple[int | None, int | None], name: str
) -> Row:
    """Returns the Frechet distance where only stored statistics of a set are at hand.

    Args:
        reference: mean and covariance of the reference.
        other: mean and covariance of the other set.
        counts: images of both, where they are known.
        name: what the distance is called.
    """
    notes = ["stored statistics do not say of which network they are, or how images were resized"]
    notes += fid.small_set_notes([count for count in counts if count is not None], len(reference.mean), name)
    return Row(*counts, {name: Number(fid.frechet_distance(reference, other))}, notes)


def gaussian(source: Statistics | Float[np.ndarray, "n d"]) -> fid.Gaussian:
    """Returns the moments of features, or those that are stored."""
    if isinstance(source, Statistics):
        return fid.from_covariance(source.mean, source.covariance)
    return fid.fit_gaussian(source)


def joined(row: Row, other: Row) -> Row:
    """Returns the metrics and notes of two rows of the same images."""
    return replace(row, metrics=row.metrics | other.metrics, notes=list(dict.fromkeys([*row.notes, *other.notes])))


def with_notes(row: Row, notes: Iterable[str]) -> Row:
    """Returns a row with further notes."""
    return replace(row, notes=[*row.notes, *notes])


def count_rows(reference: ImageSet | Statistics, other: ImageSet | Statistics) -> int:
    """Returns the number of rows of a comparison."""
    if isinstance(reference, Statistics) or isinstance(other, Statistics) or not other.classes:
        return 1
    return 1 + len(reference.classes)


def _rows(pair: Pair, measure: Callable[[Comparison], Row]) -> Iterator[tuple[str, Row]]:
    """Yields a row for all images, and one for each class of the reference."""
    overall = measure(pair.comparison(slice(None), slice(None)))
    yield OVERALL, with_notes(overall, _qualifications(pair.reference, pair.other))
    for name in pair.reference.classes if pair.other.classes else ():
        x_chosen, y_chosen = pair.reference.of_class(name), pair.other.of_class(name)
        few = min(len(x_chosen), len(y_chosen)) < 2
        empty = Row(len(x_chosen), len(y_chosen), {}, ["too few images"])
        yield name, empty if few else measure(pair.comparison(x_chosen, y_chosen))


def _measured(comparison: Comparison, metrics: dict[str, Metric], config: BootstrapConfig) -> Row:
    """Returns what can be measured, and notes on what cannot."""
    numbers: dict[str, Number] = {}
    notes: list[str] = []
    for name, metric in metrics.items():
        try:
            numbers[name] = Number.of(_estimate(comparison, metric, config), metric.details(comparison))
            notes += metric.caveats(comparison, name)
        except ValueError as error:
            notes.append(f"no {metric.family or name}: {error}")
    # A family fails as one.
    return Row(len(comparison.x), len(comparison.y), numbers, list(dict.fromkeys(notes)))


def _estimate(comparison: Comparison, metric: Metric, config: BootstrapConfig) -> Estimate:
    groups = (comparison.x_groups, comparison.y_groups)
    many = min(len(comparison.x), len(comparison.y)) >= MIN_INFLUENCE
    if config.influence and config.resamples > 1 and metric.influence and many:
        return influence.estimate(metric.influence(comparison), *groups, lower=metric.lower, upper=metric.upper)
    replicates = config if metric.interval else replace(config, resamples=0)
    statistic = metric.statistic(comparison)
    return bootstrap.estimate(statistic, *groups, config=replicates, lower=metric.lower, upper=metric.upper)


def _unit_notes(comparison: Comparison, config: BootstrapConfig) -> list[str]:
    if config.resamples < 2 or comparison.x_groups.unit == "patients":
        return []
    least = bootstrap.MIN_PATIENTS
    why = f"patients of the reference are unknown or fewer than {least}"
    return [f"{why}: images are drawn singly, and intervals are too narrow"]


def _same_images(reference: ImageSet, other: ImageSet) -> bool:
    """Returns whether two sets have the same pixels in any order."""
    if len(reference) != len(other) or reference.image_px != other.image_px:
        return False

    def digests(images: ImageSet) -> list[bytes]:
        return sorted(hashlib.sha256(image.tobytes()).digest() for block in images.blocks() for image in block)

    return digests(reference) == digests(other)


def _qualifications(reference: ImageSet, other: ImageSet) -> list[str]:
    """Returns what an overall distance measures beside image quality."""
    notes = []
    if reference.digest == other.digest:
        notes.append("the set is the reference itself")
    elif _same_images(reference, other):
        notes.append("both sets hold the same images: their distance is 0 because nothing is compared")
    least = min(
        (len(images.of_class(name)) for images in (reference, other) for name in images.classes), default=MIN_CLASS
    )
    if least < MIN_CLASS:
        notes.append(f"a class has {least} images, fewer than {MIN_CLASS}: its numbers say little")
    if reference.split == TRAINING_SPLIT and reference.dataset in other.training_data:
        notes.append("the reference is what the model was trained on")
    if known_to_differ(reference.mpp, other.mpp):
        notes.append(f"the reference has {reference.mpp:g} um/px and the other set {other.mpp:g}")
    if reference.image_px != other.image_px:
        sizes = (f"{images.image_px[1]} x {images.image_px[0]}" for images in (reference, other))
        notes.append(f"the reference has {' px and the other set '.join(sizes)} px")
    if reference.classes and other.classes:
        x_share, y_share = (
            np.array([len(images.of_class(name)) for name in reference.classes]) / len(images)
            for images in (reference, other)
        )
        worst = int(np.abs(x_share - y_share).argmax())
        if abs(x_share[worst] - y_share[worst]) > MAX_MIX_DIFFERENCE:
            name = reference.classes[worst]
            mix = f"{name} is {x_share[worst]:.0%} of the reference and {y_share[worst]:.0%} of the other set"
            notes.append(f"the overall distance also measures another class mix ({mix}): compare per class")
    return notes
