"""Exact nearest neighbours by blocks: memory does not grow with the number of pairs.

``|x - y|^2 = |x|^2 + |y|^2 - 2 x.y`` makes the search a matrix product, in single precision and around the mean of the
reference. That cancels badly for near neighbours, so a few more than asked for are kept and their distances are taken
again from the differences, in double precision.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

QUERY_BLOCK, REFERENCE_BLOCK = 1024, 8192
# Kept beyond the k asked for, against single precision's mistakes about which are nearest.
SPARE = 8


@dataclass(frozen=True)
class Neighbours:
    """The nearest members of a reference set, nearest first; the lower index first where distances are equal.

    Attributes:
        indices: into the reference.
        distances: Euclidean.
    """

    indices: Int[np.ndarray, "n k"]
    distances: Float[np.ndarray, "n k"]


def nearest(
    queries: Float[np.ndarray, "n d"], reference: Float[np.ndarray, "m d"], *, k: int, exclude_self: bool = False
) -> Neighbours:
    """Returns the k nearest reference vectors of each query. Either may be a memory-mapped file.

    Args:
        queries: vectors.
        reference: vectors among which neighbours are looked for.
        k: number of neighbours.
        exclude_self: the two sets are one, and no vector is its own neighbour.

    Raises:
        ValueError: the reference holds fewer than k others, or some values are not finite.
    """
    if not 1 <= k <= len(reference) - exclude_self:
        raise ValueError(f"{k} neighbours among {len(reference) - exclude_self} vectors")
    mean = reference.mean(axis=0, dtype=np.float64)
    blocks = [
        _nearest_of_block(queries, start, reference, mean, k, exclude_self)
        for start in range(0, len(queries), QUERY_BLOCK)
    ]
    if not blocks:
        return Neighbours(np.zeros((0, k), np.int64), np.zeros((0, k)))
    return Neighbours(np.concatenate([b.indices for b in blocks]), np.concatenate([b.distances for b in blocks]))


def _nearest_of_block(
    queries: np.ndarray, start: int, reference: np.ndarray, mean: np.ndarray, k: int, exclude_self: bool
) -> Neighbours:
    exact = np.asarray(queries[start : start + QUERY_BLOCK], np.float64)
    x = (exact - mean).astype(np.float32)
    kept = min(k + SPARE, len(reference) - exclude_self)
    squares = np.zeros((len(x), 0), np.float32)
    indices = np.zeros((len(x), 0), np.int64)
    for first in range(0, len(reference), REFERENCE_BLOCK):
        y = (reference[first : first + REFERENCE_BLOCK] - mean).astype(np.float32)
        scores = np.square(y).sum(axis=1) - 2 * (x @ y.T)  # |x|^2 is the same for the whole row
        if not np.isfinite(scores).all():
            raise ValueError("some features are not finite")
        columns = np.arange(first, first + len(y))
        if exclude_self:
            scores[np.arange(start, start + len(x))[:, None] == columns] = np.inf
        squares, indices = keep_smallest(squares, indices, scores, columns, kept)
    distances = np.stack([separation(exact, reference[column]) for column in indices.T], axis=1)
    order = np.lexsort((indices, distances), axis=1)[:, :k]
    return Neighbours(np.take_along_axis(indices, order, axis=1), np.take_along_axis(distances, order, axis=1))


def separation(x: Float[np.ndarray, "#n d"], y: Float[np.ndarray, "#n d"]) -> Float[np.ndarray, "n"]:
    """Returns the Euclidean distance of each x from its y, from their difference in double precision."""
    return np.linalg.norm(np.subtract(x, y, dtype=np.float64), axis=1)


def keep_smallest(
    values: Float[np.ndarray, "n a"],
    payload: Int[np.ndarray, "n a"],
    new_values: Float[np.ndarray, "n b"],
    new_payload: Int[np.ndarray, "#n b"] | Int[np.ndarray, "b"],
    k: int,
) -> tuple[Float[np.ndarray, "n c"], Int[np.ndarray, "n c"]]:
    """Returns the k smallest of each row and of what is new, in no order, with what belongs to them."""
    new_payload = np.broadcast_to(new_payload, new_values.shape)
    if new_values.shape[1] > k:  # most of a long block goes before anything is copied
        best = np.argpartition(new_values, k - 1, axis=1)[:, :k]
        new_values = np.take_along_axis(new_values, best, axis=1)
        new_payload = np.take_along_axis(new_payload, best, axis=1)
    values, payload = np.concatenate([values, new_values], axis=1), np.concatenate([payload, new_payload], axis=1)
    if values.shape[1] > k:
        best = np.argpartition(values, k - 1, axis=1)[:, :k]
        values, payload = np.take_along_axis(values, best, axis=1), np.take_along_axis(payload, best, axis=1)
    return values, payload
