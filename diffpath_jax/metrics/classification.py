"""Scores and calibration of classifiers.

A class that none of the images has is left out of every mean over classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from scipy.special import log_softmax, softmax

from diffpath_jax.metrics.paired import Labels, Logits, OfCounts, OfOwners, Owners

BINS = 15

# Counts of (true class, predicted class).
Confusion = Num[np.ndarray, "*batch true predicted"]


def confusion_matrix(labels: Labels, predicted: Int[np.ndarray, "n"], num_classes: int) -> Confusion:
    """Counts of (true class, predicted class)."""
    return np.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def summarise(confusion: Confusion) -> dict[str, float]:
    """Accuracy, and its mean over the classes that occur (which does not reward guessing the commonest)."""
    return {
        "accuracy": float(np.trace(confusion) / confusion.sum()),
        "balanced_accuracy": float(np.nanmean(recall(confusion))),
    }


def recall(confusion: Confusion) -> Float[np.ndarray, "*batch true"]:
    """Share of the images of each class that are told; NaN for a class without images."""
    return _ratio(_hits(confusion), confusion.sum(axis=-1), occurs=_occurs(confusion))


def f1(confusion: Confusion) -> Float[np.ndarray, "*batch true"]:
    """``2 TP / (2 TP + FP + FN)`` of each class: 0 for one that is never told, NaN for one without images."""
    return _ratio(2 * _hits(confusion), confusion.sum(axis=-2) + confusion.sum(axis=-1), occurs=_occurs(confusion))


def _hits(confusion: Confusion) -> np.ndarray:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _occurs(confusion: Confusion) -> np.ndarray:
    return confusion.sum(axis=-1) > 0


def _ratio(part: np.ndarray, whole: np.ndarray, *, occurs: np.ndarray) -> np.ndarray:
    return np.where(occurs, part / np.maximum(whole, 1), np.nan)


def right(labels: Labels, logits: Logits) -> Float[np.ndarray, "n"]:
    """1 for each image whose class is told, 0 for the others."""
    return (logits.argmax(axis=-1) == labels).astype(np.float64)


def auroc(positive: Bool[np.ndarray, "n"], scores: Float[np.ndarray, "n"]) -> float:
    """Probability that a positive scores above a negative, a tie counting half (Mann and Whitney 1947).

    NaN without images of both kinds, and where a score is NaN: it has no place among the others.
    """
    one = np.zeros(len(scores), int)
    return float(_auroc_of(positive, scores, one)(np.ones((1, 1)))[0])


@dataclass(frozen=True)
class Reliability:
    """Images by how sure the classifier is of the class that it tells; the bins are of equal width.

    Attributes:
        count: images of each bin.
        confidence: mean probability that it gives to what it tells; NaN in an empty bin.
        accuracy: share of them that it tells right; likewise.
    """

    count: Int[np.ndarray, "bins"]
    confidence: Float[np.ndarray, "bins"]
    accuracy: Float[np.ndarray, "bins"]

    @property
    def expected_calibration_error(self) -> float:
        """``sum_b n_b / n |accuracy_b - confidence_b|`` (Guo et al. 2017, equation 3)."""
        gaps = np.nan_to_num(np.abs(self.accuracy - self.confidence))
        return float(self.count @ gaps / self.count.sum())


def reliability(labels: Labels, logits: Logits, *, bins: int = BINS) -> Reliability:
    """Reliability diagram: accuracy by confidence (Guo et al. 2017, section 2).

    Bin b holds confidences in ``(b / bins, (b + 1) / bins]``.
    """
    sure, place = _confidence(logits, bins)
    count = np.bincount(place, minlength=bins)

    def mean(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(place, weights=values, minlength=bins)
        return np.where(count > 0, sums / np.maximum(count, 1), np.nan)

    return Reliability(count, mean(sure), mean(right(labels, logits)))


def _confidence(logits: Logits, bins: int) -> tuple[Float[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Returns the probability of what is told for each image, and the bin of it."""
    sure = softmax(logits.astype(np.float64), axis=-1).max(axis=-1)
    return sure, np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)


def _sums(
    owners: Owners, kind: Int[np.ndarray, "n"], kinds: int, values: Float[np.ndarray, "n"] | None = None
) -> Num[np.ndarray, "owners kinds"]:
    """Sums of values over the images of each owner and kind; without values the number of images."""
    size = owners.max() + 1
    return np.bincount(owners * kinds + kind, values, minlength=size * kinds).reshape(size, kinds)


def _mean_of(values: Float[np.ndarray, "n"], owners: Owners) -> OfCounts:
    """The mean over all images."""
    sums, images = np.bincount(owners, values), np.bincount(owners)
    return lambda counts: (counts @ sums) / (counts @ images)


def _accuracy_of(labels: Labels, logits: Logits, owners: Owners) -> OfCounts:
    return _mean_of(right(labels, logits), owners)


def _log_loss_of(labels: Labels, logits: Logits, owners: Owners) -> OfCounts:
    """Mean of ``-log p`` (nats) of the true classes."""
    told = log_softmax(logits.astype(np.float64), axis=-1)
    return _mean_of(-np.take_along_axis(told, labels[:, None], axis=-1)[:, 0], owners)


def _of_confusion(score: Callable[[Confusion], np.ndarray]) -> OfOwners:
    """The mean over classes of a score of each."""

    def of_owners(labels: Labels, logits: Logits, owners: Owners) -> OfCounts:
        size = logits.shape[-1]
        sums = _sums(owners, labels * size + logits.argmax(axis=-1), size**2)
        return lambda counts: np.nanmean(score((counts @ sums).reshape(-1, size, size)), axis=-1)

    return of_owners


def _auroc_of(positive: Bool[np.ndarray, "n"], scores: Float[np.ndarray, "n"], owners: Owners) -> OfCounts:
    """:func:`auroc`, from how often positives of one owner score above negatives of another."""
    size = owners.max(initial=0) + 1
    wins = np.full((size, size), np.nan)
    own, above = owners[positive], scores[positive]
    for other in range(size if not np.isnan(scores).any() else 0):
        below = np.sort(scores[~positive & (owners == other)])
        beaten = (np.searchsorted(below, above, "left") + np.searchsorted(below, above, "right")) / 2
        wins[:, other] = np.bincount(own, weights=beaten, minlength=size)
    sums = _sums(owners, positive.astype(int), 2)

    def of_counts(counts: np.ndarray) -> np.ndarray:
        pairs = np.prod(counts @ sums, axis=1)
        return np.where(pairs > 0, np.sum((counts @ wins) * counts, axis=1) / np.maximum(pairs, 1), np.nan)

    return of_counts


def _macro_auroc_of(labels: Labels, logits: Logits, owners: Owners) -> OfCounts:
    """Mean over the classes of :func:`auroc` of each against the rest, by its probability."""
    probabilities, classes = softmax(logits.astype(np.float64), axis=-1), range(logits.shape[-1])
    each = [_auroc_of(labels == index, probabilities[:, index], owners) for index in classes]
    sums = _sums(owners, labels, len(classes))

    def of_counts(counts: np.ndarray) -> np.ndarray:
        occurs = counts @ sums > 0
        areas = np.stack([of(counts) for of in each], axis=1)
        return np.where(occurs, areas, 0.0).sum(axis=1) / occurs.sum(axis=1)

    return of_counts


def _calibration_error_of(labels: Labels, logits: Logits, owners: Owners) -> OfCounts:
    """:attr:`Reliability.expected_calibration_error`."""
    sure, place = _confidence(logits, BINS)
    sums, images = _sums(owners, place, BINS, right(labels, logits) - sure), np.bincount(owners)
    return lambda counts: np.abs(counts @ sums).sum(axis=1) / (counts @ images)


@dataclass(frozen=True)
class Score:
    """A score of a set of images.

    Attributes:
        of_owners: true classes, logits and owners -> the score of any numbers of times that each owner counts.
        bounds: its least and its greatest possible value.
    """

    of_owners: OfOwners
    bounds: tuple[float, float] = (0.0, 1.0)

    def measure(self, labels: Labels, logits: Logits) -> float:
        """Returns the score of all images."""
        return float(self.of_owners(labels, logits, np.zeros(len(labels), int))(np.ones((1, 1)))[0])


# All but the last two are better where they are larger.
SCORES: dict[str, Score] = {
    "accuracy": Score(_accuracy_of),
    "balanced_accuracy": Score(_of_confusion(recall)),
    "macro_f1": Score(_of_confusion(f1)),
    "macro_auroc": Score(_macro_auroc_of),
    "log_loss": Score(_log_loss_of, bounds=(0.0, float("inf"))),
    "calibration_error": Score(_calibration_error_of),
}
