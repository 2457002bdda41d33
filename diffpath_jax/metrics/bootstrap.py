"""Intervals of metrics: the bootstrap over groups of images that belong together.

Fields of one patient resemble each other, so patients are drawn, not fields (the cluster bootstrap; Davison and
Hinkley 1997, section 3.8). Every metric is a function of how often each group of either set was drawn: one of each
gives the metric itself, random halves of the groups, each drawn twice, give its replicates (half-sampling; Efron 1982,
section 8.3). For a mean that is as good as drawing with replacement. The bias of a Frechet distance, though, grows with
the sum of the squared weights, which all halves share: it does not pass for uncertainty.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

# More groups cost memory (a covariance each) and make no interval better.
MAX_GROUPS = 20
# With fewer patients than this, an interval over patients means nothing.
MIN_PATIENTS = 8
# Fewer than this have hardly any halves.
MIN_GROUPS = 4
LEVEL = 0.95

# How often each group of a set was drawn.
Weights = Int[np.ndarray, "_"]
# (weights of the reference, weights of the other set) -> metric
Statistic = Callable[[Weights, Weights], float]


@dataclass(frozen=True)
class BootstrapConfig:
    """Settings of intervals.

    Attributes:
        resamples: replicates of each metric; fewer than 2 give no intervals.
        seed: random seed of groups, replicates and subsets.
        influence: whether a metric whose derivatives are known has its interval by the delta method instead.
    """

    resamples: int
    seed: int
    influence: bool = False


@dataclass(frozen=True)
class Groups:
    """A partition of the images of a set.

    Attributes:
        index: (n,) group of each image.
        count: number of groups.
        unit: units that are kept whole.
    """

    index: Int[np.ndarray, "n"]
    count: int
    unit: Literal["patients", "images"]


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval.

    The interval is that of the replicates moved to the number: replicates of a distance hold the same images several
    times, and so lie above it. It says where the mean over many draws of as many images lies, not where the number of
    infinitely many would. Where two sets do not differ, intervals of a Frechet distance are up to twice too wide.

    Attributes:
        value: the metric.
        low: lower end; none without replicates.
        high: upper end.
        standard_error: standard deviation of the replicates.
    """

    value: float
    low: float | None = None
    high: float | None = None
    standard_error: float | None = None


def partition(patients: Sequence[str] | np.ndarray, *, seed: int) -> Groups:
    """Returns groups of whole patients where there are enough of them, of random images otherwise.

    Args:
        patients: name of the patient of each image; empty where it has none.
        seed: random seed.
    """
    rng = np.random.default_rng(seed)
    names, index = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    by_patient = len(names) >= MIN_PATIENTS and "" not in names
    units = len(names) if by_patient else len(index)
    count = min(MAX_GROUPS, units)
    place = rng.permutation(units) % max(count, 1)
    return Groups(place[index] if by_patient else place, count, "patients" if by_patient else "images")


def estimate(
    statistic: Statistic,
    reference: Groups,
    other: Groups,
    *,
    config: BootstrapConfig,
    lower: float = -np.inf,
    upper: float = np.inf,
) -> Estimate:
    """Returns a metric with its interval.

    Args:
        statistic: the metric.
        reference: groups of the reference set.
        other: groups of the other set; fewer than ``MIN_GROUPS`` in either set give no interval.
        config: replicates and their seed.
        lower: least possible value of the metric.
        upper: greatest possible value.
    """
    value = statistic(np.ones(reference.count, int), np.ones(other.count, int))
    if config.resamples < 2 or min(reference.count, other.count) < MIN_GROUPS:
        return Estimate(value)
    rng = np.random.default_rng(config.seed)
    replicates = np.array([statistic(_draw(rng, reference), _draw(rng, other)) for _ in range(config.resamples)])
    tails = np.quantile(replicates - replicates.mean(), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = np.clip(value + tails, lower, upper)
    return Estimate(value, float(low), float(high), float(replicates.std(ddof=1)))


def _draw(rng: np.random.Generator, groups: Groups) -> Weights:
    """Draws half of the groups twice each; of an odd number, one more is drawn once."""
    half, odd = divmod(groups.count, 2)
    return rng.permutation(np.repeat([2, 1, 0], [half, odd, half]))


def group_sums(values: Float[np.ndarray, "n *k"], groups: Groups) -> Float[np.ndarray, "groups *k"]:
    """Returns the sum of the values of each group."""
    sums = np.zeros((groups.count, *values.shape[1:]))
    np.add.at(sums, groups.index, values)
    return sums


def weighted_mean(values: Float[np.ndarray, "n"], groups: Groups) -> Callable[[Weights], float]:
    """Returns the mean of a value of each image, as a function of how often each group was drawn."""
    sums, counts = group_sums(values, groups), np.bincount(groups.index, minlength=groups.count)
    return lambda weights: float(weights @ sums / (weights @ counts))
