"""Kernel distances against toy values, their own definition, and the public tools."""

import numpy as np
import pytest

from diffpath_jax.metrics import kid
from diffpath_jax.metrics.bootstrap import Groups
from diffpath_jax.metrics.metric import Comparison
from tests.golden import weights
from tests.metrics.test_fid import GOLDEN, TOY_X, TOY_Y


def by_definition(x, y):
    """The means over pairs of different images, one pair at a time."""

    def k(a, b):
        return (a @ b / len(a) + 1) ** 3

    def within(values):
        return np.mean([k(a, b) for i, a in enumerate(values) for j, b in enumerate(values) if i != j])

    return within(x) + within(y) - 2 * np.mean([k(a, b) for a in x for b in y])


def test_toy_value():
    assert kid.squared_mmd(TOY_X, TOY_Y) == pytest.approx(-0.390309037, abs=1e-9)


@pytest.mark.parametrize("block", [4, 1000])
def test_definition(monkeypatch, block):
    monkeypatch.setattr(kid, "BLOCK", block)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 5)), rng.normal(size=(14, 5)) + 0.3
    assert kid.squared_mmd(x, y) == pytest.approx(by_definition(x, y), rel=1e-12)
    groups = Groups(np.arange(9) % 4, 4, "images"), Groups(np.arange(14) % 3, 3, "images")
    statistic = kid.kernel_statistic(Comparison(x, y, *groups, seed=0))
    assert statistic(np.ones(4, int), np.ones(3, int)) == pytest.approx(by_definition(x, y), rel=1e-12)
    # A group that is not drawn is not there.
    left = statistic(np.array([1, 0, 1, 1]), np.array([0, 1, 1]))
    assert left == pytest.approx(by_definition(x[groups[0].index != 1], y[groups[1].index != 0]), rel=1e-12)


def test_what_was_drawn_twice_makes_no_pair_with_itself():
    """So replicates of two equal distributions stay around zero."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 60, 4))
    groups = Groups(np.arange(60) % 20, 20, "images")
    statistic = kid.kernel_statistic(Comparison(x, y, groups, groups, seed=0))
    found = [
        statistic(rng.multinomial(20, np.full(20, 0.05)), rng.multinomial(20, np.full(20, 0.05))) for _ in range(300)
    ]
    assert abs(np.mean(found) - kid.squared_mmd(x, y)) < 0.3 * np.std(found)


@pytest.mark.parametrize("mean", [0.0, 5.0, 30.0])
def test_large_features_keep_their_digits(mean):
    rng = np.random.default_rng(5)
    x, y = (rng.normal(size=(300, 64)) + shift for shift in (mean, mean + 0.01))
    groups = Groups(np.arange(300) % 20, 20, "images")
    ones = np.ones(20, int)
    single, double = (
        kid.kernel_statistic(Comparison(x.astype(kind), y.astype(kind), groups, groups, seed=0))(ones, ones)
        for kind in ("f4", "f8")
    )
    assert single == pytest.approx(kid.squared_mmd(x.astype("f4").astype("f8"), y.astype("f4").astype("f8")), rel=1e-4)
    assert np.sign(single) == np.sign(double)


def test_unbiased():
    rng = np.random.default_rng(3)
    values = [kid.squared_mmd(rng.normal(size=(30, 5)), rng.normal(size=(20, 5))) for _ in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(200)


def test_small_sets_have_small_subsets_and_seeds_repeat():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(50, 3)), rng.normal(size=(20, 3)) + 1
    found = kid.subset_distance(x, y, seed=1)
    assert (found["subset_size"], found["subsets"]) == (20, 100)
    assert found["subsets_mean"] > 0.1
    assert kid.subset_distance(x, y, seed=1) == found != kid.subset_distance(x, y, seed=2)


def test_single_images_have_no_distance():
    with pytest.raises(ValueError, match="at least 2"):
        kid.squared_mmd(np.ones((1, 3)), np.ones((5, 3)))


@pytest.mark.parametrize("case", ["many", "few"])
def test_reference_tools_agree(case):
    """The same subsets, drawn by torch-fidelity; ours in single precision, as features come."""
    x, y = (weights.features(f"distances {case} {side}", *GOLDEN[f"{case}/{side}"]) for side in "xy")
    subsets = zip(GOLDEN[f"{case}/x subsets"], GOLDEN[f"{case}/y subsets"], strict=True)
    found = [kid.squared_mmd(x[rows], y[columns]) for rows, columns in subsets]
    np.testing.assert_allclose(found, GOLDEN[f"{case}/torch_fidelity kid"], atol=1e-6)
