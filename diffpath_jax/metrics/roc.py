"""Receiver operating characteristic of a score that tells two classes of images apart, with intervals.

The area under it is the chance that an image of the one class, the *positives*, has a larger score than one of the
other, a tie counting half (Mann and Whitney). Its derivative by the weight of an image is its placement among the
images of the other class, less the area, over the images of its own; the variance that follows is that of DeLong,
DeLong and Clarke-Pearson (1988) for single images, and that of Obuchowski (1997, "Nonparametric analysis of clustered
ROC curve data") for images drawn by the patient, no patient being in both classes.
"""

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float

from diffpath_jax.metrics import influence
from diffpath_jax.metrics.bootstrap import BootstrapConfig, Estimate, Groups, Weights, estimate

# Rounding of a number of images.
_ROUNDING = 1e-9


def area(scores: Float[np.ndarray, "n"], positive: Bool[np.ndarray, "n"]) -> float:
    """Returns the area under the curve."""
    return float(areas(scores, positive[None])[0])


def areas(scores: Float[np.ndarray, "n"], positive: Bool[np.ndarray, "k n"]) -> Float[np.ndarray, "k"]:
    """Returns the area for several ways to divide the same images into classes: from the sum of the ranks."""
    count = positive.sum(axis=1)
    ranks = positive @ scipy.stats.rankdata(scores)
    return (ranks - count * (count + 1) / 2) / (count * (positive.shape[1] - count))


def placements(scores: Float[np.ndarray, "n"], positive: Bool[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Returns the share of the other class that each image lies on the right side of; ties count half."""
    before = scipy.stats.rankdata(scores)
    for own in (positive, ~positive):
        before[own] -= scipy.stats.rankdata(scores[own])
    return np.where(positive, before / (~positive).sum(), 1 - before / positive.sum())


def area_estimate(
    scores: Float[np.ndarray, "n"], positive: Bool[np.ndarray, "n"], positives: Groups, negatives: Groups
) -> Estimate:
    """Returns the area with its 95 % interval (Student's t; Welch and Satterthwaite's degrees of freedom).

    Args:
        scores: of all images.
        positive: which are of the one class.
        positives: groups of those that are drawn whole.
        negatives: groups of the others.

    Returns:
        Without an interval where the classes do not overlap: nothing then says how near they come.
    """
    value = area(scores, positive)
    if value in (0.0, 1.0):
        return Estimate(value)
    derivatives = (placements(scores, positive) - value) / np.where(positive, positive.sum(), (~positive).sum())
    own = influence.Influence(value, derivatives[~positive], derivatives[positive])
    return influence.estimate(own, negatives, positives, lower=0.0, upper=1.0)


def true_positive_rates(
    scores: Float[np.ndarray, "n"],
    positive: Bool[np.ndarray, "k n"] | Float[np.ndarray, "k n"],
    negative: Bool[np.ndarray, "k n"] | Float[np.ndarray, "k n"],
    *,
    rate: float,
) -> Float[np.ndarray, "k"]:
    """Returns the share of positives above the lowest threshold that at most ``rate`` of the negatives lie above.

    Args:
        scores: of all images.
        positive: weight of each image among the positives, in several ways.
        negative: the same among the negatives.
        rate: false positive rate, below 1.
    """
    order = np.argsort(-scores, kind="stable")
    scores, positive, negative = scores[order], positive[:, order], negative[:, order]
    passed = np.cumsum(negative, axis=1, dtype=np.float64)
    allowed = rate * passed[:, -1:] + _ROUNDING
    thresholds = scores[(passed > allowed).argmax(axis=1)]
    return (positive * (scores > thresholds[:, None])).sum(axis=1) / positive.sum(axis=1)


def true_positive_estimate(
    scores: Float[np.ndarray, "n"],
    positive: Bool[np.ndarray, "n"],
    positives: Groups,
    negatives: Groups,
    *,
    rate: float,
    config: BootstrapConfig,
) -> Estimate:
    """Returns the true positive rate at a false positive rate, with its bootstrap interval; the threshold varies too.

    Args:
        scores: of all images.
        positive: which are positives.
        positives: groups of those that are drawn whole.
        negatives: groups of the others.
        rate: false positive rate.
        config: replicates and their seed.
    """

    def statistic(of_negatives: Weights, of_positives: Weights) -> float:
        weights = np.zeros((2, 1, len(scores)))
        weights[0, 0, positive] = of_positives[positives.index]
        weights[1, 0, ~positive] = of_negatives[negatives.index]
        return float(true_positive_rates(scores, weights[0], weights[1], rate=rate)[0])

    return estimate(statistic, negatives, positives, config=config, lower=0.0, upper=1.0)


def curve(
    scores: Float[np.ndarray, "n"], positive: Bool[np.ndarray, "n"]
) -> tuple[Float[np.ndarray, "m"], Float[np.ndarray, "m"]]:
    """Returns false and true positive rates at every threshold, from (0, 0) to (1, 1)."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)
    true, false = (np.cumsum(own[order])[last] / own.sum() for own in (positive, ~positive))
    return np.concatenate([[0.0], false]), np.concatenate([[0.0], true])
