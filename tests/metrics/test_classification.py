"""Scores of classifiers against numbers worked by hand."""

import itertools

import numpy as np
import pytest

from diffpath_jax.metrics import classification
from diffpath_jax.metrics.classification import SCORES

# Ten images of class 0, five of class 1, five of class 2, none of class 3.
CONFUSION = np.array([[8, 1, 1, 0], [2, 3, 0, 0], [5, 0, 0, 0], [0, 0, 0, 0]])
PAIRS = [pair for pair in itertools.product(range(4), repeat=2) for _ in range(CONFUSION[pair])]
LABELS, TOLD = map(np.array, zip(*PAIRS, strict=True))


def sure_of(told, confidence=0.7, classes=4):
    """Logits that give this probability to what is told and share the rest."""
    rest = (1 - confidence) / (classes - 1)
    return np.log(
        np.where(np.arange(classes) == told[:, None], np.reshape(confidence, (-1, 1)), np.reshape(rest, (-1, 1)))
    )


def test_what_is_told_of_each_class():
    np.testing.assert_array_equal(classification.confusion_matrix(LABELS, TOLD, 4), CONFUSION)
    np.testing.assert_allclose(classification.recall(CONFUSION), [0.8, 0.6, 0, np.nan])
    # Class 0: 8 hits, 7 false alarms, 2 misses; class 1: 3, 1, 2; class 2: 0, 1, 5.
    np.testing.assert_allclose(classification.f1(CONFUSION), [16 / 25, 6 / 9, 0, np.nan])
    assert classification.summarise(CONFUSION) == pytest.approx({"accuracy": 11 / 20, "balanced_accuracy": 1.4 / 3})


def test_means_over_the_classes_that_occur():
    found = {name: score.measure(LABELS, sure_of(TOLD)) for name, score in SCORES.items()}
    assert found["accuracy"] == pytest.approx(11 / 20)
    assert found["balanced_accuracy"] == pytest.approx(1.4 / 3)
    assert found["macro_f1"] == pytest.approx((16 / 25 + 6 / 9) / 3)
    # 11 images get probability 0.7 for their class, 9 get 0.1.
    assert found["log_loss"] == pytest.approx(-(11 * np.log(0.7) + 9 * np.log(0.1)) / 20)
    assert found["calibration_error"] == pytest.approx(0.7 - 11 / 20)
    # Probabilities of exactly 1 and 0 are two levels: each class's AUROC is (1 + hit rate - rate of false alarms) / 2.
    expected = [(1 + 8 / 10 - 7 / 10) / 2, (1 + 3 / 5 - 1 / 15) / 2, (1 + 0 - 1 / 15) / 2]
    assert SCORES["macro_auroc"].measure(LABELS, 1e4 * np.eye(4)[TOLD]) == pytest.approx(np.mean(expected))


def test_area_under_the_curve_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    positive, scores = rng.random(60) < 0.3, rng.integers(12, size=60) / 4.0
    pairs = [(a > b) + (a == b) / 2 for a in scores[positive] for b in scores[~positive]]
    assert classification.auroc(positive, scores) == pytest.approx(np.mean(pairs))
    assert classification.auroc(positive, -scores) == pytest.approx(1 - np.mean(pairs))
    assert classification.auroc(positive, positive.astype(float)) == 1
    assert np.isnan(classification.auroc(np.ones(3, bool), np.zeros(3)))
    assert np.isnan(classification.auroc(np.array([True, False, False]), np.array([1.0, np.nan, 0.0])))


def test_calibration_bin_by_bin():
    """Four images that are told with 0.5 (two right), two with 0.8 (both right), ten bins."""
    labels, told = np.array([0, 0, 1, 1, 0, 1]), np.array([0, 1, 1, 0, 0, 1])
    confidence = np.array([0.5, 0.5, 0.5, 0.5, 0.8, 0.8])
    logits = sure_of(told, confidence, classes=3)
    found = classification.reliability(labels, logits, bins=10)
    assert found.count.tolist() == [0, 0, 0, 0, 4, 0, 0, 2, 0, 0]
    np.testing.assert_allclose(found.confidence[[4, 7]], [0.5, 0.8])
    np.testing.assert_allclose(found.accuracy[[4, 7]], [0.5, 1.0])
    assert np.isnan(found.accuracy[0])
    assert found.expected_calibration_error == pytest.approx(2 / 6 * 0.2)


def test_a_classifier_that_is_never_wrong():
    labels = np.arange(30) % 4
    found = {name: score.measure(labels, sure_of(labels, 1 - 3e-9)) for name, score in SCORES.items()}
    assert found == pytest.approx(dict.fromkeys(SCORES, 1.0) | {"log_loss": 0, "calibration_error": 0}, abs=1e-8)


def test_logits_too_large_for_exponentials():
    logits = np.array([[1e4, 0.0], [0.0, 1e4]])
    assert SCORES["log_loss"].measure(np.array([0, 0]), logits) == pytest.approx(5e3)
