"""Descriptors, alignment and search on pieces of drawn tissue."""

import numpy as np
import pytest

from diffpath_jax.metrics.memorization import matching
from tests.metrics.memorization import tissue

FIELD = tissue.patient(0)


def source(images, patients=None):
    return matching.in_memory(images, np.array(["a"] * len(images)) if patients is None else patients)


def search(queries, references, **changes):
    settings = {"candidates": 20, "shift_px": 4, **changes}
    index = matching.index(source(references), np.zeros(len(references), np.int64))
    return matching.find(source(queries), index, keys=np.ones(len(queries), np.int64), **settings)


@pytest.mark.parametrize("symmetry", range(8))
def test_turned_and_shifted_pieces_are_found_where_they_are(symmetry):
    """A piece whose turned form lies (-3, 2) off a reference image."""
    references = tissue.patches(FIELD, 64, 48)
    target = FIELD[48 + 3 : 112 + 3, 48 - 2 : 112 - 2]
    query = next(
        q for q in (matching.turn(target, s) for s in range(8)) if (matching.turn(q, symmetry) == target).all()
    )
    found = search(query[None], references)
    assert found.indices[0, 0] == 6  # row 1, column 1 of 5 x 5
    assert found.symmetries[0, 0] == symmetry
    assert found.shifts[0, 0].tolist() == [-3, 2]
    assert found.distances[0, 0] < 0.15  # the mean around a pixel reaches over the border
    assert found.distances[0, 1] > 0.6


def test_an_image_is_at_distance_zero_from_itself():
    references = tissue.patches(FIELD, 32, 32)
    found = search(references, references)
    np.testing.assert_array_equal(found.indices[:, 0], np.arange(len(references)))
    np.testing.assert_allclose(found.distances[:, 0], 0, atol=2e-3)  # single precision of 1 - c^2


def test_distance_of_a_known_correlation():
    """A query of correlation 0.8 with what is looked for: sqrt(1 - 0.8^2) = 0.6."""
    rng = np.random.default_rng(0)
    z, w = np.linalg.qr(rng.normal(size=(900, 2)) - rng.normal(size=(900, 2)).mean(axis=0))[0].T
    z, w = z - z.mean(), w - w.mean()
    w -= z * (z @ w) / (z @ z)
    query = np.zeros((32, 32), np.float32)
    query[1:-1, 1:-1] = (0.8 * z / np.linalg.norm(z) + 0.6 * w / np.linalg.norm(w)).reshape(30, 30) * 100
    template = matching.cut_templates(np.pad(z.reshape(1, 30, 30) * 100, ((0, 0), (1, 1), (1, 1))), max_shift=1)
    distances, shifts = matching.align(query, template, np.zeros(1, np.int64), max_shift=1)
    assert distances[0] == pytest.approx(0.6, abs=1e-5)
    assert shifts.tolist() == [[0, 0]]


def test_glass_resembles_nothing():
    glass = np.full((2, 64, 64, 3), 243, np.uint8)
    references = np.concatenate([tissue.patches(FIELD, 64, 48), glass])
    assert (search(glass, references, candidates=27).distances == 1).all()
    assert np.isfinite(matching.describe(glass)).all()


def test_rectangles_keep_their_shape():
    references = np.stack([FIELD[y : y + 40, x : x + 64] for y in range(0, 200, 50) for x in (0, 70, 140)])
    found = search(references[:, ::-1, ::-1], references)
    np.testing.assert_array_equal(found.indices[:, 0], np.arange(len(references)))
    assert {matching.SYMMETRIES[s] for s in found.symmetries[:, 0]} == {(2, False)}


def test_keys_bar_what_may_not_be_found():
    images = tissue.patches(FIELD, 64, 64)
    keys = np.arange(len(images)) // 4
    found = matching.find(source(images), matching.index(source(images), keys), keys=keys, candidates=99, shift_px=4)
    own = keys[found.indices] == keys[:, None]
    assert (np.isinf(found.distances) == own).all()
    assert (own.sum(axis=1) == 4).all()


def test_blocks_change_nothing(monkeypatch):
    references, queries = tissue.patches(FIELD, 32, 16), tissue.patches(tissue.patient(1), 32, 32)
    whole = search(queries, references)
    for name, size in (("QUERY_BLOCK", 7), ("REFERENCE_BLOCK", 13), ("FETCH_BLOCK", 5)):
        monkeypatch.setattr(matching, name, size)
    parts = search(queries, references)
    np.testing.assert_array_equal(parts.indices, whole.indices)
    np.testing.assert_allclose(parts.distances, whole.distances, atol=1e-5)


def test_images_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\(32, 32, 3\) are looked for among images of shape \(64, 64, 3\)"):
        search(tissue.patches(FIELD, 32, 128), tissue.patches(FIELD, 64, 128))
