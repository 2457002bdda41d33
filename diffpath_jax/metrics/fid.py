"""Frechet distance between two sets of features, as in FID (Heusel et al. 2017), in float64.

``|mu_1 - mu_2|^2 + tr(S_1) + tr(S_2) - 2 tr((S_1 S_2)^(1/2))`` (Dowson and Landau 1982). It is called FID only when
the features are those of the FID Inception network.

Each covariance is kept as a root R with ``S = R' R``. Then ``tr((S_1 S_2)^(1/2))`` is the sum of the singular values
of ``R_1 R_2'``, a matrix no larger than the smaller set: few images need no d x d matrix, and a covariance that they
leave singular needs no special case.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
from jaxtyping import Float

from diffpath_jax.metrics.bootstrap import Groups, Statistic, Weights
from diffpath_jax.metrics.influence import Influence
from diffpath_jax.metrics.metric import Comparison, Metric

# With no more images a dimension, their features serve as the root: replicates, which lack a third of the images, would
# leave a covariance singular.
FEW_PER_DIMENSION = 2
# Features of a block are held in float64.
BLOCK = 4096
# Up to this side, singular values are taken themselves.
SINGULAR_SIDE = 1024
ROUNDING = 8 * np.finfo(np.float64).eps
# As published: sizes of random subsets whose distances are extrapolated to infinitely many images.
INFINITY_POINTS = 15
INFINITY_LEAST = 0.1
# Below this many images a dimension the distance does not yet fall as 1 / n.
INFINITY_PER_DIMENSION = 2


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance of a set of features.

    Attributes:
        mean: (d,) mean.
        root: (k, d) R, where R' R is the (unbiased) covariance.
    """

    mean: Float[np.ndarray, "d"]
    root: Float[np.ndarray, "k d"]


# How often each group was drawn -> the Gaussian of what was drawn.
Pooled = Callable[[Weights], Gaussian]


def from_covariance(mean: Float[np.ndarray, "d"], covariance: Float[np.ndarray, "d d"]) -> Gaussian:
    """Returns a Gaussian by its moments; the covariance may be singular."""
    try:
        return Gaussian(mean, scipy.linalg.cholesky(covariance))
    except scipy.linalg.LinAlgError:
        values, vectors = scipy.linalg.eigh(covariance)
        # What rounding leaves of zeros would add up.
        kept = values > len(values) * np.finfo(np.float64).eps * values.max()
        return Gaussian(mean, np.sqrt(values[kept])[:, None] * vectors.T[kept])


def fit_gaussian(features: Float[np.ndarray, "n d"]) -> Gaussian:
    """Returns the moments of a set of at least two feature vectors, read in blocks.

    Raises:
        ValueError: fewer than two, or some are not finite.
    """
    everything = Groups(np.zeros(len(features), int), 1, "images")
    return pooled(features, everything)(np.ones(1, int))


def pooled(features: Float[np.ndarray, "n d"], groups: Groups) -> Pooled:
    """Returns the Gaussian of a set as a function of how often each of its groups was drawn.

    Raises:
        ValueError: fewer than two features, or some are not finite.
    """
    if len(features) < 2:
        raise ValueError(f"a covariance needs at least 2 images, not {len(features)}")
    if not all(np.isfinite(block).all() for _, block in _blocks(features)):
        raise ValueError("some features are not finite")
    few = len(features) <= FEW_PER_DIMENSION * features.shape[1]
    return _few(features, groups) if few else _many(features, groups)


def _few(features: Float[np.ndarray, "n d"], groups: Groups) -> Pooled:
    """Returns Gaussians whose root is the centred features."""
    values = np.asarray(features, np.float64)

    def gaussian(weights: Weights) -> Gaussian:
        each = weights[groups.index]
        drawn, each = values[each > 0], each[each > 0]
        mean = each @ drawn / each.sum()
        return Gaussian(mean, np.sqrt(each / (each.sum() - 1))[:, None] * (drawn - mean))

    return gaussian


def _many(features: Float[np.ndarray, "n d"], groups: Groups) -> Pooled:
    """Returns Gaussians by sums and scatter of each group around the common mean."""
    dimension = features.shape[1]
    counts = np.bincount(groups.index, minlength=groups.count)
    centre = sum(block.sum(axis=0) for _, block in _blocks(features)) / len(features)
    sums, scatter = np.zeros((groups.count, dimension)), np.zeros((groups.count, dimension, dimension))
    for rows, block in _blocks(features):
        away, index = block - centre, groups.index[rows]
        for group in np.unique(index):
            part = away[index == group]
            sums[group] += part.sum(axis=0)
            scatter[group] += part.T @ part

    def gaussian(weights: Weights) -> Gaussian:
        count = weights @ counts
        shift = weights @ sums / count
        inner = np.tensordot(weights.astype(np.float64), scatter, axes=1)
        return from_covariance(centre + shift, (inner - count * np.outer(shift, shift)) / (count - 1))

    return gaussian


def _blocks(features: Float[np.ndarray, "n d"]) -> Iterator[tuple[slice, Float[np.ndarray, "b d"]]]:
    """Yields consecutive rows in float64."""
    for start in range(0, len(features), BLOCK):
        rows = slice(start, start + BLOCK)
        yield rows, np.asarray(features[rows], np.float64)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Returns the Frechet distance of two Gaussians."""
    common = _nuclear_norm(a.root @ b.root.T)
    spread = np.square(a.root).sum() + np.square(b.root).sum()
    return float(max(np.square(a.mean - b.mean).sum() + spread - 2 * common, 0.0))


def _nuclear_norm(matrix: Float[np.ndarray, "k l"]) -> float:
    """Returns the sum of the singular values; of a large matrix by the eigenvalues of its square, six times as fast."""
    if min(matrix.shape) <= SINGULAR_SIDE:
        return float(scipy.linalg.svdvals(matrix).sum())
    square = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    values = scipy.linalg.eigvalsh(square)
    # The roots of what rounding leaves of zeros would add up.
    return float(np.sqrt(values[values > ROUNDING * values[-1]]).sum())


def frechet_statistic(comparison: Comparison) -> Statistic:
    """Returns the distance as a function of how often each group of either set was drawn."""
    reference, other = pooled(comparison.x, comparison.x_groups), pooled(comparison.y, comparison.y_groups)
    return lambda x_weights, y_weights: frechet_distance(reference(x_weights), other(y_weights))


def frechet_influence(comparison: Comparison) -> Influence:
    """Returns the distance and its derivatives by the weight of each image.

    With the optimal transport map ``T`` of the Gaussians, ``T S_1 T = S_2`` (Olkin and Pukelsheim 1982), the derivative
    of ``tr((S_1 S_2)^(1/2))`` by ``S_1`` is ``T / 2``, so that an image ``x`` of n, at ``v = x - mu_1``, has

        2 (mu_1 - mu_2).v / n + (v.v - v.T v - tr(S_1) + tr((S_1 S_2)^(1/2))) / (n - 1).

    One decomposition ``R_1 R_2' = U s V'`` gives ``v.T v = |s^(-1/2) V' R_2 v|^2`` for images of the first set, and
    the same with U and R_1 for those of the second. Directions in which a set has no variance have no part in it, so it
    holds for fewer images than features, where T is not unique.

    Raises:
        ValueError: fewer than two features in a set, or some are not finite.
    """
    a, b = fit_gaussian(comparison.x), fit_gaussian(comparison.y)
    left, values, right = _singular_vectors(a.root @ b.root.T)
    common, roots = values.sum(), np.sqrt(values)
    sides = ((comparison.x, a, b, right), (comparison.y, b, a, left))
    x, y = (
        _derivatives(features, own, own.mean - other.mean, (other.root.T @ vectors) / roots, common)
        for features, own, other, vectors in sides
    )
    spread = np.square(a.root).sum() + np.square(b.root).sum()
    value = float(max(np.square(a.mean - b.mean).sum() + spread - 2 * common, 0.0))
    return Influence(value, x, y)


def _derivatives(
    features: Float[np.ndarray, "n d"],
    own: Gaussian,
    shift: Float[np.ndarray, "d"],
    factor: Float[np.ndarray, "d r"],
    common: float,
) -> Float[np.ndarray, "n"]:
    """Returns derivatives by the weights of one set; ``factor`` times its transpose is the transport map."""
    count, constant = len(features), np.square(own.root).sum() - common
    parts = []
    for _, block in _blocks(features):
        away = block - own.mean
        square = np.square(away).sum(axis=1) - np.square(away @ factor).sum(axis=1) - constant
        parts.append(2 * (away @ shift) / count + square / (count - 1))
    return np.concatenate(parts)


def _singular_vectors(
    matrix: Float[np.ndarray, "k l"],
) -> tuple[Float[np.ndarray, "k r"], Float[np.ndarray, "r"], Float[np.ndarray, "l r"]]:
    """Returns the singular values above rounding with their vectors; of a large matrix by its square, as above."""
    if min(matrix.shape) <= SINGULAR_SIDE:
        left, values, right = scipy.linalg.svd(matrix, full_matrices=False)
        kept = values > ROUNDING * values[0]
        return left[:, kept], values[kept], right[kept].T
    if matrix.shape[0] > matrix.shape[1]:
        right_vectors, values, left_vectors = _singular_vectors(matrix.T)
        return left_vectors, values, right_vectors
    squares, left = scipy.linalg.eigh(matrix @ matrix.T)
    kept = squares > ROUNDING * squares[-1]
    values, left = np.sqrt(squares[kept]), left[:, kept]
    return left, values, (matrix.T @ left) / values


def small_set_notes(counts: Sequence[int], dimension: int, name: str) -> list[str]:
    """Returns a note where a set has no more images than features; ``name`` is what the distance is called."""
    if min(counts, default=dimension + 1) > dimension:
        return []
    return [f"fewer images than the {dimension} features: {name} is biased upwards"]


def extrapolated(reference: Gaussian, features: Float[np.ndarray, "n d"], *, seed: int) -> float:
    """Returns the distance that infinitely many images would have (Chong and Forsyth 2020, "Effectively unbiased FID").

    The bias of the distance falls as 1 / n, so distances of random subsets are extrapolated to 1 / n = 0. Only the
    bias of ``features`` goes; that of the reference stays.

    Raises:
        ValueError: too few images for the bias to fall as 1 / n.
    """
    count, dimension = features.shape
    if count < INFINITY_PER_DIMENSION * dimension:
        raise ValueError(f"needs {INFINITY_PER_DIMENSION * dimension} images, {INFINITY_PER_DIMENSION} a dimension")
    rng = np.random.default_rng(seed)
    least = max(INFINITY_LEAST * count, INFINITY_PER_DIMENSION * dimension / 2)
    sizes = np.linspace(least, count, INFINITY_POINTS).astype(int)
    subsets = (np.sort(rng.choice(count, size, replace=False)) for size in sizes)
    distances = [frechet_distance(reference, fit_gaussian(features[subset])) for subset in subsets]
    return float(np.polyfit(1 / sizes, distances, 1)[1])


def _extrapolated_statistic(comparison: Comparison) -> Statistic:
    value = extrapolated(fit_gaussian(comparison.x), comparison.y, seed=comparison.seed)
    return lambda x_weights, y_weights: value


def _caveats(comparison: Comparison, name: str) -> list[str]:
    return small_set_notes([len(comparison.x), len(comparison.y)], comparison.x.shape[1], name)


FRECHET = Metric(
    name="FD-{features}",
    title="Frechet distance",
    statistic=frechet_statistic,
    digits=2,
    lower=0.0,
    published_name="FID",
    influence=frechet_influence,
    caveats=_caveats,
)
# As the evaluation of guided diffusion measures it (Nash et al. 2021): the features know where in an image they are.
SPATIAL = replace(
    FRECHET,
    name="FD-{features}-spatial",
    title="Frechet distance of spatial features",
    source="spatial",
    published_name="sFID",
    headline=False,
    option="sfid",
)
INFINITY = Metric(
    name="FD-{features}-infinity",
    title="Frechet distance, extrapolated to infinitely many images",
    statistic=_extrapolated_statistic,
    digits=2,
    published_name="FID-infinity",
    headline=False,
    interval=False,
)
