"""Kappa against its closed forms and published tables."""

import numpy as np
import pytest

from diffpath_jax.metrics.agreement import cohen, fleiss

# Fleiss (1971), as in the table of most textbooks: 14 raters, 10 subjects, 5 categories.
COUNTS = [
    *((0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1)),
    *((7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7)),
]


def test_fleiss_of_the_textbook():
    answers = np.array([np.repeat(np.arange(5), row) for row in COUNTS]).T
    assert fleiss(answers, num_choices=5) == pytest.approx(0.210, abs=5e-4)


def test_cohen_by_hand():
    """20 both yes, 15 both no, 5 and 10 apart: p_o = 0.7, p_e = 0.5."""
    x = np.repeat([1, 1, 0, 0], [20, 5, 10, 15])
    y = np.repeat([1, 0, 1, 0], [20, 5, 10, 15])
    assert cohen(x, y, num_choices=2) == pytest.approx(0.4)


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
def test_cohen_of_agreement_and_of_chance(weights):
    rng = np.random.default_rng(0)
    x = rng.integers(5, size=200_000)
    assert cohen(x, x, num_choices=5, weights=weights) == pytest.approx(1)
    assert abs(cohen(x, rng.permutation(x), num_choices=5, weights=weights)) < 0.01


def test_quadratic_weights_are_the_intraclass_correlation():
    """``2 cov / (var + var + (difference of means)^2)``, all over n (Fleiss and Cohen 1973)."""
    rng = np.random.default_rng(1)
    x = rng.integers(5, size=60)
    y = np.clip(x + rng.integers(-1, 2, size=60), 0, 4)
    expected = 2 * np.cov(x, y, ddof=0)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    assert cohen(x, y, num_choices=5, weights="quadratic") == pytest.approx(expected)


@pytest.mark.parametrize(("name", "weights"), [(None, "none"), ("linear", "linear"), ("quadratic", "quadratic")])
def test_cohen_of_another_implementation(name, weights):
    metrics = pytest.importorskip("sklearn.metrics")
    x, y = np.random.default_rng(2).integers(5, size=(2, 80))
    expected = metrics.cohen_kappa_score(x, y, labels=range(5), weights=name)
    assert cohen(x, y, num_choices=5, weights=weights) == pytest.approx(expected)


def test_fleiss_of_agreement_and_of_two_readers():
    """Of two readers it is Scott's pi: chance by the answers of both together."""
    x, y = np.random.default_rng(3).integers(3, size=(2, 50))
    assert fleiss(np.stack([x, x, x]), num_choices=3) == pytest.approx(1)
    shares = np.bincount(np.concatenate([x, y]), minlength=3) / 100
    by_chance = np.square(shares).sum()
    assert fleiss(np.stack([x, y]), num_choices=3) == pytest.approx(((x == y).mean() - by_chance) / (1 - by_chance))


def test_one_answer_alone_says_nothing():
    same = np.zeros(9, int)
    assert np.isnan(cohen(same, same, num_choices=2)) and np.isnan(fleiss(np.stack([same, same]), num_choices=2))
