"""Intervals from derivatives: closed forms, finite differences, the bootstrap, and how often they hold the truth."""

import numpy as np
import pytest
import scipy.linalg

from diffpath_jax.metrics import bootstrap, fid, influence
from diffpath_jax.metrics.bootstrap import BootstrapConfig, Groups
from diffpath_jax.metrics.influence import Influence
from diffpath_jax.metrics.metric import Comparison


def grouped(count, groups=20):
    return Groups(np.arange(count) % groups, min(groups, count), "images")


def compared(x, y):
    return Comparison(x, y, grouped(len(x)), grouped(len(y)), seed=0)


def weighted_distance(x, x_weights, y, y_weights):
    """The distance of weighted sets by its textbook formula, with scipy's matrix square root."""
    moments = []
    for values, weights in ((x, x_weights), (y, y_weights)):
        mean = weights @ values / weights.sum()
        away = values - mean
        moments.append((mean, (weights[:, None] * away).T @ away / (weights.sum() - 1)))
    (mean_a, a), (mean_b, b) = moments
    root = scipy.linalg.sqrtm(a @ b)
    return np.square(mean_a - mean_b).sum() + np.trace(a) + np.trace(b) - 2 * np.trace(root).real


def slope(function, count, index, step=1e-4):
    """Central difference by one weight."""
    up, down = np.ones(count), np.ones(count)
    up[index], down[index] = 1 + step, 1 - step
    return (function(up) - function(down)) / (2 * step)


def test_derivatives_against_finite_differences():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 5)), rng.normal(size=(30, 5)) @ np.diag([1, 2, 0.5, 1, 3]) + 0.3
    found = fid.frechet_influence(compared(x, y))
    assert found.value == pytest.approx(weighted_distance(x, np.ones(40), y, np.ones(30)), rel=1e-9)
    for index in (0, 17):
        of_x = slope(lambda weights: weighted_distance(x, weights, y, np.ones(30)), 40, index)
        of_y = slope(lambda weights: weighted_distance(x, np.ones(40), y, weights), 30, index)
        assert found.x[index] == pytest.approx(of_x, rel=1e-5, abs=1e-8)
        assert found.y[index] == pytest.approx(of_y, rel=1e-5, abs=1e-8)


def test_derivatives_of_fewer_images_than_features():
    """Products of singular covariances have no square root for scipy: the trace is that of singular values instead."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(7, 12)), 2 * rng.normal(size=(9, 12)) + 0.3

    def root(values, weights):
        away = values - weights @ values / weights.sum()
        return np.sqrt(weights / (weights.sum() - 1))[:, None] * away, weights @ values / weights.sum()

    def distance(x_weights, y_weights):
        (a, mean_a), (b, mean_b) = root(x, x_weights), root(y, y_weights)
        common = np.linalg.svd(a @ b.T, compute_uv=False).sum()
        return np.square(mean_a - mean_b).sum() + np.square(a).sum() + np.square(b).sum() - 2 * common

    found = fid.frechet_influence(compared(x, y))
    for index in range(7):
        assert found.x[index] == pytest.approx(slope(lambda w: distance(w, np.ones(9)), 7, index), rel=1e-5, abs=1e-8)
    for index in range(9):
        assert found.y[index] == pytest.approx(slope(lambda w: distance(np.ones(7), w), 9, index), rel=1e-5, abs=1e-8)


def test_a_shifted_copy_by_hand():
    """T is the identity: of each image only its place along the shift counts."""
    x = np.random.default_rng(2).normal(size=(50, 4))
    shift = np.array([1.0, 0, 0, 2.0])
    found = fid.frechet_influence(compared(x, x + shift))
    expected = -2 * (x - x.mean(axis=0)) @ shift / 50
    np.testing.assert_allclose(found.x, expected, atol=1e-9)
    np.testing.assert_allclose(found.y, -expected, atol=1e-9)


@pytest.mark.parametrize(("m", "n"), [(60, 25), (25, 60), (12, 60), (12, 14)])
def test_large_matrices_take_another_way_to_the_same(monkeypatch, m, n):
    rng = np.random.default_rng(3)
    comparison = compared(rng.normal(size=(m, 20)), rng.normal(size=(n, 20)) + 1)
    small = fid.frechet_influence(comparison)
    monkeypatch.setattr(fid, "SINGULAR_SIDE", 2)
    monkeypatch.setattr(fid, "BLOCK", 7)
    large = fid.frechet_influence(comparison)
    assert large.value == pytest.approx(small.value, rel=1e-6)
    np.testing.assert_allclose(large.x, small.x, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(large.y, small.y, rtol=1e-5, atol=1e-7)


def test_the_variance_of_a_mean():
    """Its derivatives are (x_i - mean) / n, and its variance s^2 / n; of whole groups, that of their means."""
    values = np.random.default_rng(4).normal(size=60)
    derivatives = (values - values.mean()) / 60
    assert influence.variance(derivatives, grouped(60, 60)) == pytest.approx(values.var(ddof=1) / 60)
    means = values.reshape(3, 20).mean(axis=0)
    assert influence.variance(derivatives, grouped(60)) == pytest.approx(means.var(ddof=1) / 20)


def test_the_interval_of_a_difference_of_means_is_that_of_welch():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=30), 3 * rng.normal(size=12) + 1
    found = influence.estimate(
        Influence(y.mean() - x.mean(), (x.mean() - x) / 30, (y - y.mean()) / 12), grouped(30, 30), grouped(12, 12)
    )
    expected = scipy.stats.ttest_ind(y, x, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_few_groups_have_no_interval_and_bounds_are_kept():
    few = influence.estimate(Influence(1.0, np.ones(3), np.arange(9.0)), grouped(3), grouped(9))
    assert (few.value, few.low) == (1.0, None)
    values = np.arange(9.0)
    found = influence.estimate(Influence(1.0, values, values), grouped(9), grouped(9), lower=0.0, upper=2.0)
    assert (found.low, found.high) == (0.0, 2.0)


@pytest.mark.parametrize(("count", "dimension", "shift"), [(200, 8, 0.5), (200, 8, 0.0), (100, 150, 0.2)])
def test_intervals_beside_the_bootstrap_and_new_draws(count, dimension, shift):
    """Errors are those of new draws or, where the bias is large, above them, and below the bootstrap's."""
    rng = np.random.default_rng(6)
    estimates, replicates = [], []
    for trial in range(60):
        x, y = rng.normal(size=(count, dimension)), rng.normal(size=(count, dimension)) + shift
        comparison = compared(x, y)
        groups = (comparison.x_groups, comparison.y_groups)
        estimates.append(influence.estimate(fid.frechet_influence(comparison), *groups, lower=0.0))
        if trial < 10:
            config = BootstrapConfig(60, trial)
            replicates.append(bootstrap.estimate(fid.frechet_statistic(comparison), *groups, config=config))
    values = np.array([found.value for found in estimates])
    errors = np.array([found.standard_error for found in estimates])
    # The standard deviation of 60 values is known to 9 %.
    assert 0.8 < errors.mean() / values.std(ddof=1) < 1.8
    assert errors[:10].mean() < 1.1 * np.mean([found.standard_error for found in replicates])
    held = np.mean([found.low <= values.mean() <= found.high for found in estimates])
    assert held > 0.95 - 5 * np.sqrt(0.95 * 0.05 / len(values))
