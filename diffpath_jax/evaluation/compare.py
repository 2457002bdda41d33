"""One set of images measured against another: every metric overall and for each class, with its interval."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from diffpath_jax.evaluation.features.extractor import FeatureExtractor
from diffpath_jax.evaluation.image_sets import ImageSet, Statistics
from diffpath_jax.metrics import bootstrap, fid, kid, prdc, stain
from diffpath_jax.metrics.bootstrap import Estimate, Groups

OVERALL = "overall"
# Share of images by which a class may differ between two sets before their overall distance is qualified.
MAX_MIX_DIFFERENCE = 0.05
TRAINING_SPLIT = "train"
# um/px by which two sets may differ before it is said.
MPP_TOLERANCE = 0.01
# Scores that are means over generated images; the others are means over real ones.
OF_GENERATED = ("precision", "density")


@dataclass(frozen=True)
class Sureness:
    """How intervals are computed.

    Attributes:
        resamples: replicates of each metric; 0 gives no intervals.
        seed: of groups, replicates and random subsets.
    """

    resamples: int
    seed: int


@dataclass
class Row:
    """What was measured of one group of images.

    Attributes:
        n_reference: images of the reference; none where only its statistics are known.
        n_other: images of the other set.
        metrics: name -> value with its interval, and what else belongs to it.
        notes: what a reader must know of them, and what could not be measured.
    """

    n_reference: int | None
    n_other: int | None
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, found: Estimate, **more: Any) -> None:
        """Take a metric in."""
        self.metrics[name] = {key: value for key, value in asdict(found).items() if value is not None} | more

    def attempt(self, what: str, measure: Callable[[], None]) -> None:
        """Measure, or note why it cannot be done."""
        try:
            measure()
        except ValueError as error:
            self.notes.append(f"no {what}: {error}")


@dataclass(frozen=True)
class _Pair:
    """Two groups of images: what is known of each image, and what is drawn together."""

    x: Float[np.ndarray, "m *d"]
    y: Float[np.ndarray, "n *d"]
    x_groups: Groups
    y_groups: Groups
    sureness: Sureness

    def estimate(self, statistic: bootstrap.Statistic, **bounds: float) -> Estimate:
        options = asdict(self.sureness) | bounds
        return bootstrap.estimate(statistic, self.x_groups, self.y_groups, **options)


def feature_rows(
    reference: ImageSet,
    other: ImageSet,
    x: Float[np.ndarray, "m d"],
    y: Float[np.ndarray, "n d"],
    *,
    extractor: FeatureExtractor,
    sureness: Sureness,
) -> dict[str, Row]:
    """Distances and scores in a feature space, overall and for each class of the reference.

    Args:
        reference: real images.
        other: what is measured against them.
        x: features of ``reference``.
        y: features of ``other``.
        extractor: where they come from.
        sureness: how intervals are computed.
    """
    return _rows(reference, other, x, y, sureness, lambda pair: _feature_row(pair, extractor))


def stain_rows(
    reference: ImageSet,
    other: ImageSet,
    x: Float[np.ndarray, "m 2 2"],
    y: Float[np.ndarray, "n 2 2"],
    *,
    sureness: Sureness,
) -> dict[str, Row]:
    """Shift and spread ratio of both stains, overall and for each class, from the moments of each image."""
    return _rows(reference, other, x, y, sureness, _stain_row)


def statistics_rows(
    reference: fid.Gaussian, other: fid.Gaussian, row: Row, extractor: FeatureExtractor
) -> dict[str, Row]:
    """The Frechet distance where only stored statistics of a set are at hand; ``row`` has what is known of counts."""
    row.add(extractor.frechet_name, Estimate(fid.frechet_distance(reference, other)))
    row.notes.append("stored statistics do not say of which network they are, or how images were resized")
    counts = [count for count in (row.n_reference, row.n_other) if count is not None]
    row.notes += _small_notes(counts, len(reference.mean), extractor)
    return {OVERALL: row}


def gaussian(found: Statistics | Float[np.ndarray, "n d"]) -> fid.Gaussian:
    """Moments of features, or those that are stored."""
    if isinstance(found, Statistics):
        return fid.from_covariance(found.mean, found.covariance)
    return fid.fit_gaussian(found)


def _rows(
    reference: ImageSet,
    other: ImageSet,
    x: np.ndarray,
    y: np.ndarray,
    sureness: Sureness,
    measure: Callable[[_Pair], Row],
) -> dict[str, Row]:
    """A row for all images, and one for each class of the reference."""

    def row(ours: np.ndarray | slice, theirs: np.ndarray | slice) -> Row:
        x_groups, y_groups = (
            bootstrap.partition(np.array(images.patients)[chosen], seed=sureness.seed)
            for images, chosen in ((reference, ours), (other, theirs))
        )
        return measure(_Pair(x[ours], y[theirs], x_groups, y_groups, sureness))

    rows = {OVERALL: row(slice(None), slice(None))}
    rows[OVERALL].notes += _qualifications(reference, other)
    if not other.classes:
        return rows
    for name in reference.classes:
        ours, theirs = reference.of_class(name), other.of_class(name)
        few = min(len(ours), len(theirs)) < 2
        rows[name] = Row(len(ours), len(theirs), notes=["too few images"]) if few else row(ours, theirs)
    return rows


def _stain_row(pair: _Pair) -> Row:
    row = Row(len(pair.x), len(pair.y))
    for name, statistic in _stain_statistics(pair).items():
        row.add(name, pair.estimate(statistic))
    return row


def _feature_row(pair: _Pair, extractor: FeatureExtractor) -> Row:
    x, y, seed = pair.x, pair.y, pair.sureness.seed
    groups = (pair.x_groups, pair.y_groups)
    row = Row(len(x), len(y))

    def frechet() -> None:
        row.add(extractor.frechet_name, pair.estimate(fid.frechet_statistic(x, y, *groups), minimum=0.0))
        row.notes += _small_notes([len(x), len(y)], x.shape[1], extractor)

    def infinity() -> None:
        row.add(f"{extractor.frechet_name}-infinity", Estimate(fid.extrapolated(fid.fit_gaussian(x), y, seed=seed)))

    def kernel() -> None:
        found = pair.estimate(kid.kernel_statistic(x, y, *groups))
        row.add(extractor.kernel_name, found, **kid.subset_distance(x, y, seed=seed))

    def scores() -> None:
        found = prdc.measure(x, y, k=prdc.K)
        for name, values in vars(found).items():
            statistic = _mean_statistic(values, groups, of_other=name in OF_GENERATED)
            row.add(name, pair.estimate(statistic, minimum=0.0, maximum=np.inf if name == "density" else 1.0))

    measured = {f"{extractor.frechet_name}": frechet, f"{extractor.frechet_name}-infinity": infinity}
    for what, measure in {**measured, extractor.kernel_name: kernel, "precision or recall": scores}.items():
        row.attempt(what, measure)
    row.notes += _unit_notes(pair) if row.metrics else []
    return row


def _small_notes(counts: Sequence[int], dimension: int, extractor: FeatureExtractor) -> list[str]:
    if min(counts, default=dimension + 1) > dimension:
        return []
    return [f"fewer images than the {dimension} features: {extractor.frechet_name} is biased upwards"]


def _mean_statistic(values: np.ndarray, groups: tuple[Groups, Groups], *, of_other: bool) -> bootstrap.Statistic:
    """The mean of a value of each image of the other set, or of the reference."""
    mean = bootstrap.weighted_mean(values.astype(np.float64), groups[of_other])
    return lambda x_weights, y_weights: mean(y_weights if of_other else x_weights)


def _stain_statistics(pair: _Pair) -> dict[str, bootstrap.Statistic]:
    sides = ((pair.x, pair.x_groups), (pair.y, pair.y_groups))
    (x, m), (y, n) = (
        (bootstrap.group_sums(moments, groups), np.bincount(groups.index, minlength=groups.count))
        for moments, groups in sides
    )

    def drift(x_weights: np.ndarray, y_weights: np.ndarray) -> dict[str, float]:
        ours = stain.of_moments(np.tensordot(x_weights, x, axes=1) / (x_weights @ m))
        theirs = stain.of_moments(np.tensordot(y_weights, y, axes=1) / (y_weights @ n))
        return stain.stain_drift(theirs, ours)

    def statistic(name: str) -> bootstrap.Statistic:
        return lambda x_weights, y_weights: drift(x_weights, y_weights)[name]

    return {name: statistic(name) for name in drift(np.ones(len(m), int), np.ones(len(n), int))}


def _unit_notes(pair: _Pair) -> list[str]:
    if pair.sureness.resamples < 2 or pair.x_groups.unit == "patients":
        return []
    least = bootstrap.MIN_PATIENTS
    why = f"patients of the reference are unknown or fewer than {least}"
    return [f"{why}: images are drawn singly, and intervals are too narrow"]


def _qualifications(reference: ImageSet, other: ImageSet) -> list[str]:
    """What else an overall distance measures than image quality."""
    notes = []
    if reference.digest == other.digest:
        notes.append("the set is the reference itself")
    if reference.split == TRAINING_SPLIT and reference.dataset in other.training_data:
        notes.append("the reference is what the model was trained on")
    if reference.mpp and other.mpp and abs(reference.mpp / other.mpp - 1) > MPP_TOLERANCE:
        notes.append(f"the reference has {reference.mpp:g} um/px and the other set {other.mpp:g}")
    if reference.image_px != other.image_px:
        sizes = (f"{images.image_px[1]} x {images.image_px[0]}" for images in (reference, other))
        notes.append(f"the reference has {' px and the other set '.join(sizes)} px")
    if reference.classes and other.classes:
        ours, theirs = (
            np.array([len(images.of_class(name)) for name in reference.classes]) / len(images)
            for images in (reference, other)
        )
        worst = int(np.abs(ours - theirs).argmax())
        if abs(ours[worst] - theirs[worst]) > MAX_MIX_DIFFERENCE:
            name = reference.classes[worst]
            mix = f"{name} is {ours[worst]:.0%} of the reference and {theirs[worst]:.0%} of the other set"
            notes.append(f"the overall distance also measures another class mix ({mix}): compare per class")
    return notes
