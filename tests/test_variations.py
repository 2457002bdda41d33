"""Agreement of variations with their references is the area that it says it is."""

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks.variations import disjoint, own_reference_auc


def agreement(samples, references, own, among=None):
    every = np.ones((len(samples), len(references)), bool)
    return own_reference_auc(samples, references, np.asarray(own), every if among is None else among)


def test_a_reference_repeated_is_nearest_of_all_and_a_stranger_as_near_as_any():
    rng = np.random.default_rng(0)
    references = rng.standard_normal((300, 8))
    own = rng.permutation(300)
    assert agreement(3 * references[own], references, own) == 1
    strangers = agreement(rng.standard_normal((300, 8)), references, own)
    assert strangers == pytest.approx(0.5, abs=4 * np.sqrt(1 / 12 / 300))  # ranks of strangers are even
    assert agreement(-references[own], references, own) == 0


def test_a_tie_counts_half_and_only_those_asked_for_count():
    references = np.array([[1.0, 0], [1, 0], [0, 1], [-1, 0]])
    sample, own = references[:1], [0]
    assert agreement(sample, references, own) == pytest.approx((0.5 + 1 + 1) / 3)
    among = np.array([[True, True, False, False]])
    assert agreement(sample, references, own, among) == 0.5


def test_boxes_that_touch_do_not_overlap():
    boxes = np.array([[0.0, 0, 10, 10], [10, 0, 10, 10], [9, 9, 10, 10], [0, 30, 5, 5]])
    expected = [[False, True, False, True], [False, False, False, True]]
    np.testing.assert_array_equal(disjoint(boxes, np.array([0, 2])), expected)
