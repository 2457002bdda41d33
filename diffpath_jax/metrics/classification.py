"""Scores and calibration of classifiers.

A class that none of the images has is left out of every mean over classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import log_softmax, softmax

BINS = 15

Labels = Int[np.ndarray, "n"]
Logits = Float[np.ndarray, "n classes"]
# Counts of (true class, predicted class).
Confusion = Int[np.ndarray, "true predicted"]


def confusion_matrix(labels: Labels, predicted: Int[np.ndarray, "n"], num_classes: int) -> Confusion:
    """Counts of (true class, predicted class)."""
    return np.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def summarise(confusion: Confusion) -> dict[str, float]:
    """Accuracy, and its mean over the classes that occur (which does not reward guessing the commonest)."""
    return {
        "accuracy": float(np.trace(confusion) / confusion.sum()),
        "balanced_accuracy": float(np.nanmean(recall(confusion))),
    }


def recall(confusion: Confusion) -> Float[np.ndarray, "true"]:
    """Share of the images of each class that are told; NaN for a class without images."""
    return _ratio(np.diag(confusion), confusion.sum(axis=1), occurs=_occurs(confusion))


def f1(confusion: Confusion) -> Float[np.ndarray, "true"]:
    """``2 TP / (2 TP + FP + FN)`` of each class: 0 for one that is never told, NaN for one without images."""
    hits = np.diag(confusion)
    return _ratio(2 * hits, confusion.sum(axis=0) + confusion.sum(axis=1), occurs=_occurs(confusion))


def _occurs(confusion: Confusion) -> Bool[np.ndarray, "true"]:
    return confusion.sum(axis=1) > 0


def _ratio(part: np.ndarray, whole: np.ndarray, *, occurs: np.ndarray) -> np.ndarray:
    return np.where(occurs, part / np.maximum(whole, 1), np.nan)


def right(labels: Labels, logits: Logits) -> Float[np.ndarray, "n"]:
    """1 for each image whose class is told, 0 for the others."""
    return (logits.argmax(axis=-1) == labels).astype(np.float64)


def auroc(positive: Bool[np.ndarray, "n"], scores: Float[np.ndarray, "n"]) -> float:
    """Probability that a positive scores above a negative, a tie counting half (Mann and Whitney 1947).

    NaN without images of both kinds, and where a score is NaN: it has no place among the others.
    """
    hits = int(positive.sum())
    misses = positive.size - hits
    if not hits or not misses or np.isnan(scores).any():
        return float("nan")
    below, above = np.sort(scores[~positive]), scores[positive]
    wins = (np.searchsorted(below, above, "left") + np.searchsorted(below, above, "right")) / 2
    return float(wins.sum() / (hits * misses))


def macro_auroc(labels: Labels, logits: Logits) -> float:
    """Mean over the classes of :func:`auroc` of each against the rest, by its probability."""
    probabilities = softmax(logits.astype(np.float64), axis=-1)
    present = [index for index in range(logits.shape[-1]) if (labels == index).any()]
    return float(np.mean([auroc(labels == index, probabilities[:, index]) for index in present]))


def log_loss(labels: Labels, logits: Logits) -> float:
    """Mean of ``-log p`` (nats) of the true classes."""
    told = log_softmax(logits.astype(np.float64), axis=-1)
    return float(-np.take_along_axis(told, labels[:, None], axis=-1).mean())


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
    sure = softmax(logits.astype(np.float64), axis=-1).max(axis=-1)
    place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)

    def mean(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(place, weights=values, minlength=bins)
        return np.where(count > 0, sums / np.maximum(count, 1), np.nan)

    return Reliability(count, mean(sure), mean(right(labels, logits)))


def _of_confusion(score: Callable[[Confusion], np.ndarray]) -> Callable[[Labels, Logits], float]:
    """The mean over classes of a score of each."""

    def mean(labels: Labels, logits: Logits) -> float:
        return float(np.nanmean(score(confusion_matrix(labels, logits.argmax(axis=-1), logits.shape[-1]))))

    return mean


@dataclass(frozen=True)
class Score:
    """A score of a set of images.

    Attributes:
        measure: the score of true classes and logits.
        bounds: its least and its greatest possible value.
    """

    measure: Callable[[Labels, Logits], float]
    bounds: tuple[float, float] = (0.0, 1.0)


# All but the last two are better where they are larger.
SCORES: dict[str, Score] = {
    "accuracy": Score(lambda labels, logits: float(right(labels, logits).mean())),
    "balanced_accuracy": Score(_of_confusion(recall)),
    "macro_f1": Score(_of_confusion(f1)),
    "macro_auroc": Score(macro_auroc),
    "log_loss": Score(log_loss, bounds=(0.0, float("inf"))),
    "calibration_error": Score(lambda labels, logits: reliability(labels, logits).expected_calibration_error),
}
