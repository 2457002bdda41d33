"""Intervals by the delta method: the variance of a metric from the influence of each image on it.

To first order a metric of two empirical distributions changes with the weights ``w`` of their images (1 each) as
``F(w) = F(1) + sum_i F_i (w_i - 1)``, so its variance over new draws is that of the sum of ``F_i`` over what is drawn,
``G / (G - 1) sum_g (sum_{i in g} F_i)^2`` for G groups g that are drawn whole (infinitesimal jackknife; Efron 1982,
chapter 6; van der Vaart 1998, chapter 20). It costs one evaluation of the metric, where the bootstrap costs one for
each replicate, and is of the same order of accuracy. The two sets are drawn independently: their variances add up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

from diffpath_jax.metrics.bootstrap import LEVEL, MIN_GROUPS, Estimate, Groups, group_sums


@dataclass(frozen=True)
class Influence:
    """A metric and its derivatives by the weights of the images.

    Attributes:
        value: the metric.
        x: (m,) derivative by the weight of each image of the reference.
        y: (n,) the same for the other set.
    """

    value: float
    x: Float[np.ndarray, "m"]
    y: Float[np.ndarray, "n"]


def estimate(
    influence: Influence, reference: Groups, other: Groups, *, lower: float = -np.inf, upper: float = np.inf
) -> Estimate:
    """Returns a metric with its interval, of Student's t with the degrees of freedom of Welch and Satterthwaite.

    Args:
        influence: the metric and its derivatives.
        reference: groups of the reference set.
        other: groups of the other set; fewer than ``MIN_GROUPS`` in either set give no interval.
        lower: least possible value of the metric.
        upper: greatest possible value.
    """
    return interval(influence.value, [(influence.x, reference), (influence.y, other)], lower=lower, upper=upper)


def interval(
    value: float,
    parts: Sequence[tuple[Float[np.ndarray, "_"], Groups]],
    *,
    lower: float = -np.inf,
    upper: float = np.inf,
) -> Estimate:
    """Returns a number of any count of sets with its interval, see :func:`estimate`.

    Args:
        value: the number.
        parts: its derivatives by the weights of the images of each set, and the set's groups.
        lower: least possible value.
        upper: greatest possible value.
    """
    counts = np.array([groups.count for _, groups in parts])
    if counts.min() < MIN_GROUPS:
        return Estimate(value)
    variances = np.array([variance(derivatives, groups) for derivatives, groups in parts])
    total = variances.sum()
    if total == 0:
        return Estimate(value, value, value, 0.0)
    freedom = total**2 / (np.square(variances) / (counts - 1)).sum()
    reach = stdtrit(freedom, (1 + LEVEL) / 2) * np.sqrt(total)
    low, high = np.clip([value - reach, value + reach], lower, upper)
    return Estimate(value, float(low), float(high), float(np.sqrt(total)))


def variance(derivatives: Float[np.ndarray, "n"], groups: Groups) -> float:
    """Returns the part of a metric's variance that comes from drawing the groups of one set."""
    # A weight that all images share is no draw: what remains of its derivative does not count.
    sums = group_sums(derivatives - derivatives.mean(), groups)
    return float(groups.count / (groups.count - 1) * np.square(sums).sum())
