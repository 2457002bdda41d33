"""The Inception Score in closed form, and against scipy's entropy."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

from diffpath_jax.metrics import bootstrap, inception_score
from diffpath_jax.metrics.metric import Comparison

SURE = 1e3


def test_one_class_alone_is_1_and_every_class_their_number():
    """Logits of certainty: KL is log(classes) where all are seen, 0 where one is."""
    every = SURE * np.eye(5)[np.arange(50) % 5]
    assert inception_score.score(every) == pytest.approx(5)
    assert inception_score.score(every[::5]) == pytest.approx(1)
    assert inception_score.score(np.zeros((7, 5))) == pytest.approx(1)


def test_two_classes_by_hand():
    """Each image has one of two classes with 0.9: KL = log 2 - H(0.9)."""
    logits = np.log([[0.9, 0.1], [0.1, 0.9]])
    assert inception_score.score(logits) == pytest.approx(np.exp(np.log(2) - scipy.stats.entropy([0.9, 0.1])))


def test_another_implementation():
    logits = np.random.default_rng(0).normal(size=(60, 8), scale=2)
    each = scipy.special.softmax(logits, axis=1)
    expected = np.exp(np.mean([scipy.stats.entropy(own, each.mean(axis=0)) for own in each]))
    assert inception_score.score(logits.astype(np.float32)) == pytest.approx(expected, rel=1e-5)


def test_splits_are_random_parts_of_equal_size():
    """Of a set that is stored by class each split still sees all: in its order, every split would score 1."""
    logits = SURE * np.eye(2)[np.repeat([0, 1], 500)]
    scores = inception_score.split_scores(logits, seed=0)
    assert len(scores) == inception_score.SPLITS and scores.min() > 1.9
    assert np.array_equal(scores, inception_score.split_scores(logits, seed=0))


def test_the_row_is_the_mean_over_splits_and_says_how_many():
    logits = np.random.default_rng(1).normal(size=(40, 6))
    groups = bootstrap.partition([""] * 40, seed=0)
    comparison = Comparison(logits[:3], logits, bootstrap.partition([""] * 3, seed=0), groups, seed=2)
    scores = inception_score.split_scores(logits, seed=2)
    row = inception_score.SCORE
    assert row.statistic(comparison)(np.ones(3, int), np.ones(groups.count, int)) == pytest.approx(scores.mean())
    assert row.details(comparison) == {"splits": 10, "splits_std": pytest.approx(scores.std())}
    assert "10 splits" in row.title


def test_fewer_images_than_splits():
    with pytest.raises(ValueError, match="needs 10 images"):
        inception_score.split_scores(np.zeros((9, 4)), seed=0)
