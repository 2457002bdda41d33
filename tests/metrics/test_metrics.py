"""Distances and scores against closed forms and toy values computed elsewhere."""

import numpy as np
import pytest
import scipy.linalg

from diffpath_jax.metrics import fid, kid
from diffpath_jax.metrics.classification import confusion_matrix, summarise

TOY_X = np.arange(12).reshape(4, 3) / 10
TOY_Y = TOY_X[::-1] + np.array([0.1, -0.2, 0.3])


def test_frechet_distance_of_shifted_unit_gaussians():
    d = 2048
    a = fid.Gaussian(np.zeros(d), np.eye(d), 10)
    b = fid.Gaussian(np.ones(d), np.eye(d), 10)
    assert fid.frechet_distance(a, b) == pytest.approx(2048, rel=1e-8)
    assert fid.frechet_distance(a, a) == pytest.approx(0, abs=1e-8)


def test_frechet_distance_of_commuting_covariances():
    """For diagonal covariances: |mu|^2 + sum (s - t)^2 over standard deviations."""
    rng = np.random.default_rng(0)
    s, t, mean = rng.uniform(0.1, 3, 50), rng.uniform(0.1, 3, 50), rng.normal(size=50)
    found = fid.frechet_distance(fid.Gaussian(np.zeros(50), np.diag(s**2), 9), fid.Gaussian(mean, np.diag(t**2), 9))
    assert found == pytest.approx((mean**2).sum() + ((s - t) ** 2).sum(), rel=1e-9)


def test_frechet_distance_against_scipy_square_root():
    rng = np.random.default_rng(1)
    a, b = (fid.fit_gaussian(rng.normal(size=(200, 20)) @ rng.normal(size=(20, 20))) for _ in range(2))
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance).real
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert fid.frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)


def test_toy_values():
    found = fid.frechet_distance(fid.fit_gaussian(TOY_X), fid.fit_gaussian(TOY_Y))
    assert found == pytest.approx(0.14, abs=1e-6)
    assert kid.squared_mmd(TOY_X, TOY_Y) == pytest.approx(-0.390309037, abs=1e-9)


def test_frechet_distance_of_fewer_images_than_features():
    rng = np.random.default_rng(2)
    few = fid.fit_gaussian(rng.normal(size=(5, 40)))
    assert fid.frechet_distance(few, few) == pytest.approx(0, abs=1e-6)


def test_identical_images():
    same = fid.fit_gaussian(np.ones((10, 4)))
    assert fid.frechet_distance(same, same) == pytest.approx(0, abs=1e-12)


def test_kernel_distance_is_unbiased_and_takes_small_sets():
    rng = np.random.default_rng(3)
    values = [kid.squared_mmd(rng.normal(size=(30, 5)), rng.normal(size=(20, 5))) for _ in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(200)
    found = kid.kernel_distance(rng.normal(size=(30, 5)), rng.normal(size=(20, 5)) + 1, seed=0)
    assert found["subset_size"] == 20
    assert found["mean"] > 0.1


def test_kernel_distance_repeats_with_its_seed():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(50, 3)), rng.normal(size=(20, 3))
    assert kid.kernel_distance(x, y, seed=1) == kid.kernel_distance(x, y, seed=1) != kid.kernel_distance(x, y, seed=2)


@pytest.mark.parametrize("features", [np.ones((1, 3)), np.full((3, 3), np.nan)])
def test_features_that_cannot_be_measured(features):
    with pytest.raises(ValueError, match=r"2 images|finite"):
        fid.fit_gaussian(features)


def test_confusion_matrix():
    labels, predicted = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    confusion = confusion_matrix(labels, predicted, 3)
    assert confusion.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert summarise(confusion) == {
        "accuracy": pytest.approx(3 / 5),
        "balanced_accuracy": pytest.approx((1 / 2 + 2 / 3) / 2),
    }
