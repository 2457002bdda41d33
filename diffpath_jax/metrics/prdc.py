"""Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020), image by image.

Around every image of a set lies a ball that reaches to its k-th nearest other image of that set; ``B(r_i)`` is a real
image's, ``B(g_j)`` a generated one's. For generated ``g_j`` and real ``r_i``:

    precision_j = g_j in some B(r_i)              density_j  = |{i: g_j in B(r_i)}| / k
    recall_i    = r_i in some B(g_j)              coverage_i = some g_j in B(r_i)

Each score is the mean of its images' values, so an interval comes from resampling them (by patient, where images of
one patient are alike). As in the package of Naeem et al., an image is not its own neighbour, and a ball is open.
"""

import functools
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from diffpath_jax.metrics.bootstrap import Statistic, weighted_mean
from diffpath_jax.metrics.metric import Comparison, Metric
from diffpath_jax.metrics.neighbours import nearest, separation

# Neighbours, as Naeem et al. published all four scores, and as Kynkaanniemi et al. published the first two.
K = 5
K_AS_FIRST_PUBLISHED = 3
BLOCK = 1024
# Of a squared distance, relative to the squared lengths it comes from; generous.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Prdc:
    """Per-image values; see the module for their definitions."""

    precision: Bool[np.ndarray, "n"]
    density: Float[np.ndarray, "n"]
    recall: Bool[np.ndarray, "m"]
    coverage: Bool[np.ndarray, "m"]

    def means(self) -> dict[str, float]:
        """Returns the four scores."""
        return {name: float(values.mean()) for name, values in vars(self).items()}


def measure(real: Float[np.ndarray, "m d"], generated: Float[np.ndarray, "n d"], *, k: int) -> Prdc:
    """Scores generated features against real ones. Memory does not grow with the number of pairs.

    Raises:
        ValueError: a set has k images or fewer, or some features are not finite.
    """
    real_radii, generated_radii = (nearest(x, x, k=k, exclude_self=True).distances[:, -1] for x in (real, generated))
    counts = np.zeros(len(generated), np.int64)
    recall, coverage = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for rows in _slices(len(real)):
        for columns in _slices(len(generated)):
            in_real, in_generated = _inside(
                real[rows], generated[columns], real_radii[rows, None], generated_radii[columns]
            )
            counts[columns] += in_real.sum(axis=0)
            coverage[rows] |= in_real.any(axis=1)
            recall[rows] |= in_generated.any(axis=1)
    return Prdc(precision=counts > 0, density=counts / k, recall=recall, coverage=coverage)


def _slices(count: int) -> list[slice]:
    return [slice(start, start + BLOCK) for start in range(0, count, BLOCK)]


def _inside(x: np.ndarray, y: np.ndarray, *radii: np.ndarray) -> list[np.ndarray]:
    """Compares distances with each of some radii: whether they are below.

    Copies of real images lie exactly on surfaces, where rounding would decide: distances that come that near to a
    radius are taken again as the radii were.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    sizes = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1)
    squares = np.maximum(sizes - 2 * (x @ y.T), 0)
    doubtful = np.any([np.abs(squares - np.square(radius)) <= ROUNDING * sizes for radius in radii], axis=0)
    distances = np.sqrt(squares)
    for row in np.flatnonzero(doubtful.any(axis=1)):
        distances[row, doubtful[row]] = separation(x[row, None], y[doubtful[row]])
    return [distances < radius for radius in radii]


# The scores of one k come from one measurement.
@functools.lru_cache(maxsize=1)
def _measure(comparison: Comparison, k: int) -> Prdc:
    return measure(comparison.x, comparison.y, k=k)


def _of_generated(name: str, k: int, comparison: Comparison) -> Statistic:
    """Returns the mean of a value of each generated image."""
    mean = weighted_mean(getattr(_measure(comparison, k), name).astype(np.float64), comparison.y_groups)
    return lambda x_weights, y_weights: mean(y_weights)


def _of_real(name: str, k: int, comparison: Comparison) -> Statistic:
    """Returns the mean of a value of each real image."""
    mean = weighted_mean(getattr(_measure(comparison, k), name).astype(np.float64), comparison.x_groups)
    return lambda x_weights, y_weights: mean(x_weights)


SCORES = tuple(
    Metric(
        name=name,
        title=title,
        statistic=functools.partial(statistic, name, K),
        better="higher",
        lower=0.0,
        upper=upper,
        family="precision or recall",
        headline=False,
    )
    for name, title, statistic, upper in (
        ("precision", "share of generated images that look real", _of_generated, 1.0),
        ("recall", "share of real images that could have been generated", _of_real, 1.0),
        ("density", "real neighbourhoods that a generated image lies in, over those expected", _of_generated, np.inf),
        ("coverage", "share of real images with a generated one near by", _of_real, 1.0),
    )
)
SCORES_AS_FIRST_PUBLISHED = tuple(
    replace(
        score,
        name=f"{score.name} (k = {K_AS_FIRST_PUBLISHED})",
        title=f"{score.title}, by {K_AS_FIRST_PUBLISHED} neighbours",
        statistic=functools.partial(statistic, score.name, K_AS_FIRST_PUBLISHED),
        option="precision_recall_3",
    )
    for score, statistic in zip(SCORES, (_of_generated, _of_real), strict=False)
)
