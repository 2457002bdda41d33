"""Template matching: distances of images up to turns, flips, shifts by a few pixels and stain; the nearest images.

An image is seen as one channel, the mean optical density of red, green and blue: a weaker or stronger stain only
rescales its parts, and standardising takes the rest. The search has two stages, because aligning every pair costs too
much:

1. *Descriptors*: the channel reduced to ``GRID`` x ``GRID``, unit length around its mean. The reference images most
   correlated with any of the query's symmetric variants are candidates (a matrix product by blocks).
2. *Templates*: the channel at up to ``DETAIL`` px, blurred a little against noise and less its mean over half the image
   around each pixel (edges of tissue resemble each other). Candidates are aligned by normalised cross-correlation
   ``c`` over all shifts; the distance is ``sqrt(1 - c^2)``, the share of the deviation that one image leaves
   unexplained in the other.

Only descriptors stay in memory; candidates are fetched when their turn comes.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8
from threadpoolctl import ThreadpoolController

from diffpath_jax.metrics.neighbours import keep_smallest

GRID, DETAIL = 12, 64
# (quarter turns, then mirrored left to right): all symmetries of a square, those of a rectangle first.
SYMMETRIES = ((0, False), (2, False), (0, True), (2, True), (1, False), (3, False), (1, True), (3, True))
QUERY_BLOCK, REFERENCE_BLOCK, FETCH_BLOCK = 64, 8192, 256
# Blur before matching in pixels, against noise.
_FINEST = 0.7
# Contrast (optical density) below which an image shows no more than noise: a grey level of a light pixel.
_NOISE = 2e-3
# Cells by which a descriptor may be displaced and still be recognised.
_TOLERATED = 0.75
_DENSITY = -np.log10((np.arange(256, dtype=np.float32) + 1) / 256)


@dataclass(frozen=True)
class Images:
    """A set of images that need not fit into memory.

    Attributes:
        count: number of images.
        blocks: iterates over all of them in order, (b, h, w, 3) uint8 at a time.
        fetch: the images of some indices.
        patients: patient of each image; any keys.
    """

    count: int
    blocks: Callable[[], Iterable[np.ndarray]]
    fetch: Callable[[np.ndarray], np.ndarray]
    patients: Shaped[np.ndarray, "n"]


@dataclass(frozen=True)
class Matches:
    """The nearest reference images of each query, nearest first.

    Attributes:
        indices: into the reference.
        distances: from 0, the same image, to 1, nothing in common.
        symmetries: index into ``SYMMETRIES`` of what turns the query into the reference image.
        shifts: (down, right) in pixels by which the turned query then lies off the reference image.
    """

    indices: Int[np.ndarray, "n k"]
    distances: Float[np.ndarray, "n k"]
    symmetries: Int[np.ndarray, "n k"]
    shifts: Float[np.ndarray, "n k 2"]


def in_memory(images: UInt8[np.ndarray, "n h w 3"], patients: Shaped[np.ndarray, "n"]) -> Images:
    """Returns an array of images as a source."""

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(images), QUERY_BLOCK):
            yield images[start : start + QUERY_BLOCK]

    return Images(len(images), blocks, lambda indices: images[indices], patients)


def turn(image: Shaped[np.ndarray, "a b *c"], symmetry: int) -> Shaped[np.ndarray, "d e *c"]:
    """Returns an image turned and mirrored by one of ``SYMMETRIES``."""
    turns, mirrored = SYMMETRIES[symmetry]
    image = np.rot90(image, turns)
    return np.ascontiguousarray(image[:, ::-1] if mirrored else image)


def describe(images: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n d"]:
    """Returns descriptors: unit vectors, or shorter where an image shows no more than noise."""
    grids = np.stack([_reduced_density(image, GRID) for image in images]).reshape(len(images), -1)
    grids -= grids.mean(axis=1, keepdims=True)
    return grids / (np.linalg.norm(grids, axis=1, keepdims=True) + _NOISE * GRID)


def high_pass(images: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n s s"]:
    """Returns images of at most ``DETAIL`` px square between noise and the coarsest structure."""
    side = min(DETAIL, *images.shape[1:3])
    box = 2 * (side // 4) + 1
    fine = [cv2.GaussianBlur(_reduced_density(image, side), (0, 0), _FINEST) for image in images]
    return np.stack([image - cv2.blur(image, (box, box)) for image in fine])


def _reduced_density(image: np.ndarray, side: int) -> np.ndarray:
    density = _DENSITY[image] @ np.full(3, 1 / 3, np.float32)
    return cv2.resize(density, (side, side), interpolation=cv2.INTER_AREA)


def align(
    query: Float[np.ndarray, "s s"],
    templates: Float[np.ndarray, "k p"],
    symmetries: Int[np.ndarray, "k"],
    *,
    max_shift: int,
) -> tuple[Float[np.ndarray, "k"], Int[np.ndarray, "k 2"]]:
    """Returns distances to some reference images, and the best shifts (down, right; at most ``max_shift``).

    Args:
        query: the filtered query, see :func:`high_pass`.
        templates: those of the reference images, see :func:`cut_templates`.
        symmetries: index into ``SYMMETRIES`` of the turn of the query for each.
        max_shift: largest shift, in pixels of the filtered images.
    """
    side, steps = len(query) - 2 * max_shift, 2 * max_shift + 1
    best, place = np.zeros(len(templates)), np.zeros(len(templates), np.int64)
    for symmetry in np.unique(symmetries).tolist():
        chosen, turned = np.flatnonzero(symmetries == symmetry), turn(query, symmetry)
        windows = np.lib.stride_tricks.sliding_window_view(turned, (side, side)).reshape(steps**2, -1)
        # Templates have no mean, so that of a window does not matter.
        correlations = (templates[chosen] @ windows.T) * _over_deviations(turned, side)
        place[chosen] = correlations.argmax(axis=1)
        best[chosen] = correlations.max(axis=1)
    shifts = np.stack(np.divmod(place, steps), axis=1) - max_shift
    return np.sqrt(1 - np.square(best.clip(0, 1))), shifts


def cut_templates(filtered: Float[np.ndarray, "k s s"], *, max_shift: int) -> Float[np.ndarray, "k p"]:
    """Returns filtered reference images without their rim, standardised, to be sought in a shifted query."""
    inner = slice(max_shift, filtered.shape[1] - max_shift)
    return _standardise(filtered[:, inner, inner].reshape(len(filtered), -1))


def _over_deviations(image: Float[np.ndarray, "s s"], side: int) -> Float[np.ndarray, "windows"]:
    """Returns 1 over the length of each window around its mean, by sums over rectangles; 0 where it is only noise."""
    sums, squares = (
        total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
        for total in cv2.integral2(image.astype(np.float64))
    )
    lengths = np.sqrt(np.maximum(squares - sums**2 / side**2, 0)).ravel()
    return np.divide(1, lengths, where=lengths > _NOISE * side, out=np.zeros_like(lengths))


def _standardise(rows: np.ndarray) -> np.ndarray:
    """Returns rows of unit length around their mean; zero, which resembles nothing, where there is only noise."""
    rows = rows - rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, where=lengths > _NOISE * np.sqrt(rows.shape[1]), out=np.zeros_like(rows))


@dataclass(frozen=True)
class Reference:
    """Images among which others are looked for, with their descriptors.

    Attributes:
        images: the images.
        descriptors: of each.
        keys: a query with an image's key does not find it (itself, or another image of its patient).
    """

    images: Images
    descriptors: Float[np.ndarray, "n d"]
    keys: Int[np.ndarray, "n"]


def index(images: Images, keys: Int[np.ndarray, "n"]) -> Reference:
    """Describes a set of images, block by block."""
    return Reference(images, np.concatenate([describe(block) for block in images.blocks()]), keys)


def find(
    queries: Images, reference: Reference, *, keys: Int[np.ndarray, "n"], candidates: int, shift_px: int
) -> Matches:
    """Finds the nearest reference images of every query.

    Args:
        queries: images.
        reference: where they are looked for.
        keys: key of each query; a query does not find what has its key.
        candidates: reference images aligned with each query. Where fewer may be found, the rest are at infinity.
        shift_px: largest shift each way.

    Raises:
        ValueError: the images are of two sizes.
    """
    count = min(candidates, reference.images.count)
    parts, start = [], 0
    for stored in queries.blocks():
        for block in (stored[i : i + QUERY_BLOCK] for i in range(0, len(stored), QUERY_BLOCK)):
            parts.append(_find(block, reference, keys[start : start + len(block)], count, shift_px))
            start += len(block)
    names = ("indices", "distances", "symmetries", "shifts")
    return Matches(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def _find(images: np.ndarray, reference: Reference, keys: np.ndarray, count: int, shift_px: int) -> Matches:
    height, width = images.shape[1:3]
    indices, symmetries, barred = _candidates(_variants(images, shift_px), reference, keys, count)
    filtered = high_pass(images)
    side = filtered.shape[-1]
    max_shift = max(1, -(-shift_px * side // min(height, width)))
    needed, places = np.unique(indices, return_inverse=True)
    templates = _fetch_templates(reference.images, needed, images.shape[1:], max_shift)
    with _blas().limit(limits=1, user_api="blas"):
        aligned = [
            align(filtered[i], templates[row], symmetries[i], max_shift=max_shift)
            for i, row in enumerate(places.reshape(indices.shape))
        ]
    distances = np.where(barred, np.inf, np.stack([distance for distance, _ in aligned]))
    shifts = np.stack([shift for _, shift in aligned]) * np.array([height / side, width / side])
    order = np.lexsort((indices, distances), axis=1)
    indices, distances, symmetries = (np.take_along_axis(x, order, axis=1) for x in (indices, distances, symmetries))
    return Matches(indices, distances, symmetries, np.take_along_axis(shifts, order[..., None], axis=1))


@functools.cache
def _blas() -> ThreadpoolController:
    """Threads of NumPy's matrix products: many small ones wait for each other 250 times as long as they work."""
    return ThreadpoolController()


def _fetch_templates(images: Images, indices: np.ndarray, shape: tuple[int, ...], max_shift: int) -> np.ndarray:
    """Returns templates of some reference images, few of which are in memory as images at a time."""
    templates = []
    for start in range(0, len(indices), FETCH_BLOCK):
        fetched = images.fetch(indices[start : start + FETCH_BLOCK])
        if fetched.shape[1:] != shape:
            raise ValueError(f"images of shape {shape} are looked for among images of shape {fetched.shape[1:]}")
        templates.append(cut_templates(high_pass(fetched), max_shift=max_shift))
    return np.concatenate(templates)


def _variants(images: np.ndarray, shift_px: int) -> np.ndarray:
    """Returns descriptors of every turned and shifted variant of each image: (symmetry, shift, image, d).

    Descriptors are coarse, so most shifts need none of their own.
    """
    height, width = images.shape[1:3]
    symmetries = range(len(SYMMETRIES) if height == width else len(SYMMETRIES) // 2)
    max_shift = max(0, int(np.ceil(shift_px * GRID / min(height, width) - _TOLERATED)))
    grids = np.moveaxis(describe(images).reshape(-1, GRID, GRID), 0, -1)
    shifts = [(y, x) for y in range(2 * max_shift + 1) for x in range(2 * max_shift + 1)]
    turned = [
        np.pad(turn(grids, symmetry), ((max_shift, max_shift), (max_shift, max_shift), (0, 0)))
        for symmetry in symmetries
    ]
    moved = np.stack([[grid[y : y + GRID, x : x + GRID] for y, x in shifts] for grid in turned])
    vectors = np.swapaxes(moved.reshape(*moved.shape[:2], GRID * GRID, -1), 2, 3)
    return vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + _NOISE * GRID)


def _candidates(
    variants: np.ndarray, reference: Reference, keys: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns for each query the most correlated reference images, their symmetries, and which of them are barred."""
    distances = np.zeros((len(keys), 0), np.float32)
    indices = np.zeros((len(keys), 0), np.int64)
    by_variant = variants.reshape(-1, *variants.shape[2:])
    for first in range(0, reference.images.count, REFERENCE_BLOCK):
        descriptors = reference.descriptors[first : first + REFERENCE_BLOCK]
        best = by_variant[0] @ descriptors.T
        for queries in by_variant[1:]:
            np.maximum(best, queries @ descriptors.T, out=best)
        columns = np.arange(first, first + len(descriptors))
        best[keys[:, None] == reference.keys[columns]] = -np.inf
        distances, indices = keep_smallest(distances, indices, -best, columns, count)
    # Which variant it was is cheaper to find again than to carry along.
    nearest = reference.descriptors[indices].swapaxes(1, 2)
    correlations = np.swapaxes(by_variant, 0, 1) @ nearest
    return indices, correlations.argmax(axis=1) // variants.shape[1], np.isinf(distances)
