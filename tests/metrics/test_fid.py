"""Frechet distances against closed forms, toy values, and their definition."""

import numpy as np
import pytest
import scipy.linalg

from diffpath_jax.metrics import fid
from diffpath_jax.metrics.bootstrap import Groups
from tests.golden import weights

TOY_X = np.arange(12).reshape(4, 3) / 10
TOY_Y = TOY_X[::-1] + np.array([0.1, -0.2, 0.3])


def by_definition(x, y):
    """The trace of the square root of a product is the sum of the roots of its eigenvalues."""
    (a, s), (b, t) = ((values.mean(axis=0), np.cov(values, rowvar=False)) for values in (x, y))
    eigenvalues = scipy.linalg.eigvals(s @ t).real
    return np.square(a - b).sum() + np.trace(s + t) - 2 * np.sqrt(np.maximum(eigenvalues, 0)).sum()


def distance(x, y):
    return fid.frechet_distance(fid.fit_gaussian(x), fid.fit_gaussian(y))


def test_shifted_unit_gaussians():
    d = 2048
    a, b = fid.from_covariance(np.zeros(d), np.eye(d)), fid.from_covariance(np.ones(d), np.eye(d))
    assert fid.frechet_distance(a, b) == pytest.approx(2048, rel=1e-8)
    assert fid.frechet_distance(a, a) == pytest.approx(0, abs=1e-8)


def test_commuting_covariances():
    """For diagonal covariances: |mu|^2 + sum (s - t)^2 over standard deviations."""
    rng = np.random.default_rng(0)
    s, t, mean = rng.uniform(0.1, 3, 50), rng.uniform(0.1, 3, 50), rng.normal(size=50)
    a, b = fid.from_covariance(np.zeros(50), np.diag(s**2)), fid.from_covariance(mean, np.diag(t**2))
    assert fid.frechet_distance(a, b) == pytest.approx((mean**2).sum() + ((s - t) ** 2).sum(), rel=1e-9)


@pytest.mark.parametrize(("m", "n"), [(200, 300), (200, 30), (30, 200), (25, 30), (15, 300), (12, 15)])
def test_any_number_of_images_a_dimension(m, n):
    """Many images, few, and fewer than dimensions, on either side."""
    rng = np.random.default_rng(1)
    x, y = (rng.normal(size=(count, 20)) @ rng.normal(size=(20, 20)) + shift for count, shift in ((m, 0), (n, 1)))
    assert distance(x, y) == pytest.approx(by_definition(x, y), rel=1e-6)
    assert distance(y, x) == pytest.approx(distance(x, y), rel=1e-9)


def test_singular_covariances_of_many_images():
    """Features that are always the same, as a ReLU's may be."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 500, 20))
    x[:, 5:9] = y[:, 7:12] = 0
    assert distance(x, y) == pytest.approx(by_definition(x, y), rel=1e-6)


def test_collapsed_sets():
    """1000 images of which 10 are distinct, in more dimensions than singular values are computed for; and fewer."""
    rng = np.random.default_rng(6)
    for dimension in (40, 2048):
        x, y = (rng.normal(size=(10, dimension))[rng.integers(0, 10, 1000)] for _ in range(2))
        a, b = fid.fit_gaussian(x), fid.fit_gaussian(y)
        exact = np.square(a.mean - b.mean).sum() + np.square(a.root).sum() + np.square(b.root).sum()
        exact -= 2 * scipy.linalg.svdvals(a.root @ b.root.T).sum()
        assert fid.frechet_distance(a, b) == pytest.approx(exact, rel=1e-6)


def test_large_matrices_give_the_same(monkeypatch):
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(2, 500, 40)) * np.geomspace(1e-3, 1, 40)
    x[:, 3:9] = 0
    found = distance(x, y)
    monkeypatch.setattr(fid, "SINGULAR_SIDE", 0)
    assert distance(x, y) == pytest.approx(found, rel=1e-6)


def test_toy_value():
    assert distance(TOY_X, TOY_Y) == pytest.approx(0.14, abs=1e-6)


@pytest.mark.parametrize("features", [np.random.default_rng(2).normal(size=(5, 40)), np.ones((10, 4)), np.ones((9, 4))])
def test_a_set_is_at_no_distance_from_itself(features):
    assert distance(features, features) == pytest.approx(0, abs=1e-6)


def test_blocks_change_nothing(monkeypatch):
    x = np.random.default_rng(3).normal(size=(100, 6)).astype(np.float32) + 50
    whole = fid.fit_gaussian(x)
    monkeypatch.setattr(fid, "BLOCK", 7)
    parts = fid.fit_gaussian(x)
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(parts.root.T @ parts.root, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-9)


@pytest.mark.parametrize("count", [12, 60])
def test_a_group_that_was_drawn_twice_counts_twice(count):
    """Few images, whose features are the root, and many."""
    rng = np.random.default_rng(4)
    x, drawn = rng.normal(size=(count, 8)), np.array([2, 0, 1])
    groups = Groups(np.arange(count) % 3, 3, "images")
    found = fid.pooled(x, groups)(drawn)
    repeated = np.concatenate([x[groups.index == 0]] * 2 + [x[groups.index == 2]])
    np.testing.assert_allclose(found.mean, repeated.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(found.root.T @ found.root, np.cov(repeated, rowvar=False), atol=1e-12)


@pytest.mark.parametrize("features", [np.ones((1, 3)), np.full((3, 3), np.nan), np.full((30, 3), np.inf)])
def test_features_that_cannot_be_measured(features):
    with pytest.raises(ValueError, match=r"2 images|finite"):
        fid.fit_gaussian(features)


def test_extrapolation_takes_the_bias_away():
    """Of one distribution: n images are at d / n + d (d + 1) / 4 n on average, infinitely many at 0."""
    rng = np.random.default_rng(5)
    reference = fid.from_covariance(np.zeros(32), np.eye(32))
    plain, infinite = [], []
    for seed in range(10):
        y = rng.normal(size=(1000, 32))
        plain.append(fid.frechet_distance(reference, fid.fit_gaussian(y)))
        infinite.append(fid.extrapolated(reference, y, seed=seed))
    error = np.std(infinite) / np.sqrt(len(infinite))
    assert np.mean(plain) == pytest.approx((32 + 32 * 33 / 4) / 1000, rel=0.05)
    assert abs(np.mean(infinite)) < 4 * error < 0.1


def test_too_few_images_are_not_extrapolated():
    with pytest.raises(ValueError, match="needs 64 images"):
        fid.extrapolated(fid.from_covariance(np.zeros(32), np.eye(32)), np.ones((63, 32)), seed=0)


GOLDEN = weights.load("distances.npz")


@pytest.mark.parametrize("case", ["many", "few"])
def test_reference_tools_agree(case):
    x, y = (weights.features(f"distances {case} {side}", *GOLDEN[f"{case}/{side}"]) for side in "xy")
    for tool in ("torch_fidelity", "cleanfid"):
        assert distance(x, y) == pytest.approx(float(GOLDEN[f"{case}/{tool} fid"]), rel=1e-6)
