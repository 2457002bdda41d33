"""Inception Score (Salimans et al. 2016), of one set of images alone.

With ``p(y|x)`` the classes that the network sees in an image and ``p(y)`` their mean over the images,

    IS = exp(mean_x KL(p(y|x) || p(y))):

1 where all images look alike to the network, and its number of classes where it is sure of each and sees all. As
published it is the mean over 10 splits of the set, each with a ``p(y)`` of its own, so it grows with the number of
images. A set is split at random by the seed: in the order of a stored set, a split would hold one class.
"""

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax

from diffpath_jax.metrics.bootstrap import Statistic
from diffpath_jax.metrics.metric import Comparison, Metric

SPLITS = 10


def score(logits: Float[np.ndarray, "n classes"]) -> float:
    """Returns the score of images by their logits, as one split."""
    log_each = log_softmax(logits.astype(np.float64), axis=1)
    each = np.exp(log_each)
    mean = each.mean(axis=0)
    # A class that no image has any chance of adds nothing.
    log_mean = np.log(mean, where=mean > 0, out=np.zeros_like(mean))
    return float(np.exp((each * (log_each - log_mean)).sum(axis=1).mean()))


def split_scores(logits: Float[np.ndarray, "n classes"], *, seed: int) -> Float[np.ndarray, "splits"]:
    """Returns the score of each of ``SPLITS`` random splits.

    Raises:
        ValueError: fewer images than splits.
    """
    if len(logits) < SPLITS:
        raise ValueError(f"needs {SPLITS} images, one a split")
    order = np.random.default_rng(seed).permutation(len(logits))
    return np.array([score(logits[part]) for part in np.array_split(order, SPLITS)])


def _statistic(comparison: Comparison) -> Statistic:
    value = float(split_scores(comparison.y, seed=comparison.seed).mean())
    return lambda x_weights, y_weights: value


def _details(comparison: Comparison) -> dict[str, int | float]:
    """Returns the spread over splits, which is published beside the mean."""
    return {"splits": SPLITS, "splits_std": float(split_scores(comparison.y, seed=comparison.seed).std())}


SCORE = Metric(
    name="IS-{features}",
    title=f"Inception Score, mean over {SPLITS} splits",
    statistic=_statistic,
    better="higher",
    digits=2,
    lower=1.0,
    source="logits",
    published_name="Inception Score",
    headline=False,
    interval=False,
    details=_details,
    option="inception_score",
)
