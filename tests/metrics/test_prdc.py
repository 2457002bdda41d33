"""Precision, recall, density and coverage: worked by hand, against the package of Naeem et al., and as published."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from diffpath_jax.metrics import bootstrap, prdc
from diffpath_jax.metrics.metric import Comparison
from tests.golden import weights


def test_worked_by_hand():
    """On a line, k = 1. Real 0, 2, 3 have radii 2, 1, 1; generated 1, 2, 10 have radii 1, 1, 8."""
    found = prdc.measure(np.array([[0.0], [2.0], [3.0]]), np.array([[1.0], [2.0], [10.0]]), k=1)
    # 1 lies in the ball of 0 alone (on the surface of 2's is outside); 2 in that of 2 alone; 10 in none.
    assert found.precision.tolist() == [True, True, False]
    assert found.density.tolist() == [1, 1, 0]
    # 0 is on the surface of 1's ball, 2 inside its own double's and that of 10 ends at 2; 3 is within 8 of 10.
    assert found.recall.tolist() == [False, True, True]
    assert found.coverage.tolist() == [True, True, False]
    assert found.means() == {"precision": 2 / 3, "density": 2 / 3, "recall": 2 / 3, "coverage": 2 / 3}


def test_surfaces_are_outside_at_irrational_distances():
    """Radii of sqrt(2), and images exactly sqrt(2) away."""
    real = np.array([[0.0, 0.0], [1.0, 1.0]])
    found = prdc.measure(real, np.array([[2.0, 2.0], [-1.0, -1.0]]), k=1)
    assert not found.precision.any() and not found.coverage.any()


def test_every_image_repeated_by_the_generator():
    """Each ball holds its own image and k - 1 others; the k-th is on its surface."""
    x = np.random.default_rng(0).normal(size=(40, 3))
    found = prdc.measure(x, x, k=5).means()
    assert found == {"precision": 1, "recall": 1, "coverage": 1, "density": pytest.approx(1.0)}


@pytest.mark.parametrize("row", range(3))
@pytest.mark.parametrize("block", [7, 1024])
def test_the_package_of_its_authors(monkeypatch, row, block):
    monkeypatch.setattr(prdc, "BLOCK", block)
    golden = weights.load("prdc.npz")
    found = prdc.measure(golden["real"], golden["generated"], k=int(golden["k"][row])).means()
    expected = dict(zip(("precision", "recall", "density", "coverage"), golden["scores"][row], strict=True))
    assert found == pytest.approx(expected, abs=1e-12)


def test_three_neighbours_by_another_implementation():
    """Kynkaanniemi et al. 2019, equations 1 and 2: of a k-d tree's third neighbours, for each pair."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(80, 4)), rng.normal(0.7, size=(80, 4))
    radii = [cKDTree(own).query(own, k=1 + 3)[0][:, -1] for own in (x, y)]
    distances = np.linalg.norm(x[:, None] - y[None], axis=-1)
    expected = (distances <= radii[0][:, None]).any(axis=0).mean(), (distances <= radii[1]).any(axis=1).mean()
    groups = bootstrap.partition([""] * 80, seed=0)
    ones = np.ones(groups.count, int)
    rows = prdc.SCORES_AS_FIRST_PUBLISHED
    assert [row.name for row in rows] == ["precision (k = 3)", "recall (k = 3)"]
    found = [row.statistic(Comparison(x, y, groups, groups, seed=0))(ones, ones) for row in rows]
    assert found == pytest.approx(expected) and found != [1.0, 1.0]


def test_sets_that_are_too_small():
    with pytest.raises(ValueError, match="5 neighbours among 4"):
        prdc.measure(np.zeros((5, 2)), np.zeros((9, 2)), k=5)


@pytest.mark.full
def test_published_values():
    """Two samples of one Gaussian, N(0, I) in 1000 dimensions, 10,000 each."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 10_000, 1000), np.float32)
    found = prdc.measure(x, y, k=prdc.K).means()
    assert found["precision"] == pytest.approx(0.4772, abs=0.02)
    assert found["recall"] == pytest.approx(0.4705, abs=0.02)
    assert found["density"] == pytest.approx(1.0555, abs=0.05)
    assert found["coverage"] == pytest.approx(0.9735, abs=0.01)
