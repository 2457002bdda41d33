"""Kernel distance: the unbiased squared MMD with a cubic kernel, as in KID (Binkowski et al. 2018).

``E k(x, x') + E k(y, y') - 2 E k(x, y)`` with ``k(x, y) = (x.y / d + 1)^3``, each mean over pairs of different
images; it may be negative. Products of features in single precision are taken in it, unless the features are so large
that the cube would lose its digits; sums are taken in float64.
"""

import numpy as np
from jaxtyping import Float

from diffpath_jax.metrics.bootstrap import Groups, Statistic, Weights
from diffpath_jax.metrics.metric import Comparison, Metric

# As published: the mean over this many subsets of this size.
SUBSETS = 100
SUBSET_SIZE = 1000
# Mean square of an image's features above which single precision does not do.
LARGE = 4.0
# Rows and columns of a kernel matrix that is held at once.
BLOCK = 2048


def squared_mmd(x: Float[np.ndarray, "m d"], y: Float[np.ndarray, "n d"]) -> float:
    """Returns the estimate from all pairs.

    Raises:
        ValueError: a set has fewer than two members.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError("the unbiased estimate needs at least 2 images in each set")
    m, n = len(x), len(y)
    return _within(x) / (m * (m - 1)) + _within(y) / (n * (n - 1)) - 2 * _across(x, y) / (m * n)


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    root = x @ y.T
    root /= x.dtype.type(x.shape[1])
    root += x.dtype.type(1)
    return root**3


def _across(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the sum of the kernel over all pairs, by blocks."""
    starts = ((i, j) for i in range(0, len(x), BLOCK) for j in range(0, len(y), BLOCK))
    return sum((float(_kernel(x[i : i + BLOCK], y[j : j + BLOCK]).sum(dtype=np.float64)) for i, j in starts), 0.0)


def _within(x: np.ndarray) -> float:
    """Returns the sum over all ordered pairs of different members."""
    total = 0.0
    for start in range(0, len(x), BLOCK):
        block, after = x[start : start + BLOCK], x[start + BLOCK :]
        inner = _kernel(block, block)
        total += float(inner.sum(dtype=np.float64) - np.trace(inner, dtype=np.float64)) + 2 * _across(block, after)
    return total


def subset_distance(x: Float[np.ndarray, "m d"], y: Float[np.ndarray, "n d"], *, seed: int) -> dict[str, int | float]:
    """Returns mean and standard deviation of :func:`squared_mmd` over random subsets, as published.

    Sets smaller than the published subset size use subsets as large as the smaller set.
    """
    size, kind = min(SUBSET_SIZE, len(x), len(y)), _precision(x, y)
    rng = np.random.default_rng(seed)
    values = [
        squared_mmd(
            x[rng.choice(len(x), size, replace=False)].astype(kind),
            y[rng.choice(len(y), size, replace=False)].astype(kind),
        )
        for _ in range(SUBSETS)
    ]
    return {
        "subsets_mean": float(np.mean(values)),
        "subsets_std": float(np.std(values)),
        "subsets": SUBSETS,
        "subset_size": size,
    }


def kernel_statistic(comparison: Comparison) -> Statistic:
    """Returns the estimate from all pairs, as a function of how often each group of either set was drawn.

    An image that was drawn twice still makes no pair with itself: means go over pairs of different images, weighted
    by the product of how often each was drawn.

    Raises:
        ValueError: a set has fewer than two members.
    """
    x, y, x_groups, y_groups = comparison.x, comparison.y, comparison.x_groups, comparison.y_groups
    if min(len(x), len(y)) < 2:
        raise ValueError("the unbiased estimate needs at least 2 images in each set")
    kind = _precision(x, y)
    within_x, within_y = _within_groups(x, x_groups, kind), _within_groups(y, y_groups, kind)
    across = _across_groups(x, y, x_groups, y_groups, kind)
    sizes_x, sizes_y = (np.bincount(groups.index, minlength=groups.count) for groups in (x_groups, y_groups))

    def distance(x_weights: Weights, y_weights: Weights) -> float:
        pairs = (x_weights @ sizes_x) * (y_weights @ sizes_y)
        return float(
            _mean_within(within_x, sizes_x, x_weights)
            + _mean_within(within_y, sizes_y, y_weights)
            - 2 * (x_weights @ across @ y_weights) / pairs
        )

    return distance


def _precision(x: Float[np.ndarray, "m d"], y: Float[np.ndarray, "n d"]) -> np.dtype:
    """Returns the type in which the products of two sets are taken."""
    blocks = (z[start : start + BLOCK] for z in (x, y) for start in range(0, len(z), BLOCK))
    small = all(np.square(block, dtype=np.float64).mean(axis=1).max() <= LARGE for block in blocks)
    return np.result_type(x, y) if small else np.dtype(np.float64)


def _across_groups(
    x: np.ndarray, y: np.ndarray, x_groups: Groups, y_groups: Groups, kind: np.dtype
) -> Float[np.ndarray, "g h"]:
    """Returns the sum of the kernel over the pairs of every two groups, one group of either in memory."""
    sums = np.zeros((x_groups.count, y_groups.count))
    for i in range(x_groups.count):
        part = _part(x, x_groups, i, kind)
        for j in range(y_groups.count):
            sums[i, j] = _across(part, _part(y, y_groups, j, kind))
    return sums


def _within_groups(x: np.ndarray, groups: Groups, kind: np.dtype) -> Float[np.ndarray, "g g"]:
    """Returns the same sums within one set, over pairs of different images."""
    sums = np.zeros((groups.count, groups.count))
    for i in range(groups.count):
        part = _part(x, groups, i, kind)
        sums[i, i] = _within(part)
        for j in range(i):
            sums[i, j] = sums[j, i] = _across(part, _part(x, groups, j, kind))
    return sums


def _part(x: np.ndarray, groups: Groups, group: int, kind: np.dtype) -> np.ndarray:
    return np.asarray(x[groups.index == group], kind)


def _mean_within(sums: np.ndarray, sizes: np.ndarray, weights: Weights) -> float:
    drawn = weights * sizes
    # Pairs of different images, each weighted by how often both were drawn.
    pairs = drawn.sum() ** 2 - weights**2 @ sizes
    return float(weights @ sums @ weights / pairs)


def _subsets(comparison: Comparison) -> dict[str, int | float]:
    return subset_distance(comparison.x, comparison.y, seed=comparison.seed)


KERNEL = Metric(
    name="KD-{features}",
    title="kernel distance",
    statistic=kernel_statistic,
    digits=4,
    published_name="KID",
    details=_subsets,
)
