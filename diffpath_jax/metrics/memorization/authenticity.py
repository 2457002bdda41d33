"""Two published tests of copying in a feature space, for comparison with the audit."""

import numpy as np
import scipy.cluster.vq
import scipy.stats
from jaxtyping import Float

from diffpath_jax.metrics.neighbours import nearest


def auth_percent(training: Float[np.ndarray, "m d"], generated: Float[np.ndarray, "n d"]) -> float:
    """Returns AuthPct (Alaa et al. 2022): per cent of generated images that are authentic.

    An image is authentic when it is farther from its nearest training image than that image's own nearest neighbour
    in training. Near 50 for images as new as training images are to each other; lower for copies.

    Raises:
        ValueError: fewer than two training images.
    """
    own = nearest(training, training, k=1, exclude_self=True).distances[:, 0]
    neighbours = nearest(generated, training, k=1)
    return float(100 * (own[neighbours.indices[:, 0]] < neighbours.distances[:, 0]).mean())


def copying_score(
    training: Float[np.ndarray, "m d"],
    held_out: Float[np.ndarray, "l d"],
    generated: Float[np.ndarray, "n d"],
    *,
    cells: int,
    min_per_cell: int,
    seed: int,
) -> float:
    """Returns C_T (Meehan et al. 2020): far below 0 when generated images are nearer to training than held-out ones.

    The space is cut into cells by k-means on the training images. In each cell ``U`` counts the pairs in which the
    generated image lies farther from the cell's training images than the held-out one, and
    ``Z = (U - nl/2) / sqrt(nl(n + l + 1)/12)``. C_T is the mean of Z, weighted by held-out images.

    Args:
        training: features of training images.
        held_out: features of real images of other patients.
        generated: features of generated images.
        cells: clusters of k-means.
        min_per_cell: cells with fewer held-out or generated images do not count.
        seed: random seed of k-means.

    Raises:
        ValueError: no cell has enough images.
    """
    rng = np.random.default_rng(seed)
    centres, labels = scipy.cluster.vq.kmeans2(training.astype(np.float64), cells, minit="++", seed=rng)
    held_out_cells, generated_cells = (nearest(x, centres, k=1).indices[:, 0] for x in (held_out, generated))
    scores, weights = [], []
    for cell in np.unique(labels):
        inside, p, q = training[labels == cell], held_out[held_out_cells == cell], generated[generated_cells == cell]
        if min(len(p), len(q)) >= max(min_per_cell, 1):
            scores.append(_rank_score(nearest(q, inside, k=1).distances, nearest(p, inside, k=1).distances))
            weights.append(len(p))
    if not scores:
        raise ValueError(f"no cell has {min_per_cell} held-out and generated images")
    return float(np.average(scores, weights=weights))


def _rank_score(generated: np.ndarray, held_out: np.ndarray) -> float:
    """Returns Mann and Whitney's U of the first over the second, standardised; ties count half."""
    n, m = len(generated), len(held_out)
    u = scipy.stats.mannwhitneyu(generated.ravel(), held_out.ravel()).statistic
    return float((u - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12))
