"""Kernel distance: the unbiased squared MMD with a cubic kernel, as in KID (Binkowski et al. 2018)."""

import numpy as np
from jaxtyping import Float

# As published: the mean over this many subsets of this size.
SUBSETS = 100
SUBSET_SIZE = 1000


def squared_mmd(x: Float[np.ndarray, "m d"], y: Float[np.ndarray, "n d"]) -> float:
    """Unbiased estimate of the squared MMD with ``k(x, y) = (x.y / d + 1)^3``; may be negative.

    Raises:
        ValueError: a set has fewer than two members.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError("the unbiased estimate needs at least 2 images in each set")
    x, y = x.astype(np.float64), y.astype(np.float64)
    within_x, within_y, across = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    m, n = len(x), len(y)
    return float(
        (within_x.sum() - np.trace(within_x)) / (m * (m - 1))
        + (within_y.sum() - np.trace(within_y)) / (n * (n - 1))
        - 2 * across.mean()
    )


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def kernel_distance(x: Float[np.ndarray, "m d"], y: Float[np.ndarray, "n d"], *, seed: int) -> dict[str, float]:
    """Mean and standard deviation of :func:`squared_mmd` over random subsets.

    Sets smaller than the published subset size use subsets as large as the smaller set.
    """
    size = min(SUBSET_SIZE, len(x), len(y))
    rng = np.random.default_rng(seed)
    values = [
        squared_mmd(x[rng.choice(len(x), size, replace=False)], y[rng.choice(len(y), size, replace=False)])
        for _ in range(SUBSETS)
    ]
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values)),
        "subsets": SUBSETS,
        "subset_size": size,
    }
