"""Neighbours against all pairs, and against cases worked by hand."""

import numpy as np
import pytest
import scipy.spatial.distance

from diffpath_jax.metrics import neighbours


def test_neighbours_on_a_line():
    found = neighbours.nearest(np.array([[0.0], [10.0]]), np.array([[4.0], [1.0], [-1.0], [12.0]]), k=3)
    assert found.indices.tolist() == [[1, 2, 0], [3, 0, 1]]  # equally far: the lower index first
    assert found.distances.tolist() == [[1, 1, 4], [2, 6, 9]]


def test_no_vector_is_its_own_neighbour_but_its_double_is():
    x = np.array([[1.0], [1.0], [3.0]])
    found = neighbours.nearest(x, x, k=1, exclude_self=True)
    assert found.indices[:, 0].tolist() == [1, 0, 0]
    assert found.distances[:, 0].tolist() == [0, 0, 2]


@pytest.mark.parametrize("same", [False, True])
def test_blocks_give_what_all_pairs_give(monkeypatch, tmp_path, same):
    """Blocks that do not divide the sets, a memory-mapped reference, and a mean far from zero."""
    monkeypatch.setattr(neighbours, "QUERY_BLOCK", 7)
    monkeypatch.setattr(neighbours, "REFERENCE_BLOCK", 11)
    rng = np.random.default_rng(0)
    reference = np.memmap(tmp_path / "features", np.float32, "w+", shape=(100, 5))
    reference[:] = rng.normal(size=(100, 5)) + 1000
    queries = reference if same else rng.normal(size=(30, 5)) + 1000
    found = neighbours.nearest(queries, reference, k=4, exclude_self=same)
    pairs = scipy.spatial.distance.cdist(queries, reference)
    if same:
        np.fill_diagonal(pairs, np.inf)
    np.testing.assert_array_equal(found.indices, np.argsort(pairs, axis=1)[:, :4])
    np.testing.assert_allclose(found.distances, np.sort(pairs, axis=1)[:, :4], rtol=1e-9)


def test_no_queries():
    assert neighbours.nearest(np.zeros((0, 2)), np.zeros((3, 2)), k=2).indices.shape == (0, 2)


def test_what_cannot_be_searched():
    with pytest.raises(ValueError, match="3 neighbours among 2"):
        neighbours.nearest(np.zeros((3, 2)), np.zeros((3, 2)), k=3, exclude_self=True)
    with pytest.raises(ValueError, match="finite"):
        neighbours.nearest(np.full((1, 2), np.nan), np.zeros((3, 2)), k=1)
