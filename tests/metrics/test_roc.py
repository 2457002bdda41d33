"""The area under the curve and its tail, against closed forms, scipy, and DeLong's formula written out."""

import numpy as np
import pytest
import scipy.stats

from diffpath_jax.metrics import roc
from diffpath_jax.metrics.bootstrap import BootstrapConfig, Groups


def two_normals(rng, count, shift):
    positive = np.arange(2 * count) < count
    return rng.normal(size=2 * count) + shift * positive, positive


def singly(count):
    return Groups(np.arange(count), count, "images")


def test_area_of_two_normal_distributions():
    """Phi(d / sqrt 2)."""
    scores, positive = two_normals(np.random.default_rng(0), 100_000, 1.0)
    assert roc.area(scores, positive) == pytest.approx(scipy.stats.norm.cdf(1 / np.sqrt(2)), abs=0.003)


def test_area_is_mann_and_whitneys_statistic_with_ties():
    rng = np.random.default_rng(1)
    scores, positive = rng.integers(0, 6, 60).astype(float), rng.random(60) < 0.3
    statistic = scipy.stats.mannwhitneyu(scores[positive], scores[~positive]).statistic
    area = statistic / (positive.sum() * (~positive).sum())
    assert roc.area(scores, positive) == pytest.approx(area)
    divisions = np.stack([positive, ~positive])
    np.testing.assert_allclose(roc.areas(scores, divisions), [area, 1 - area])


def test_placements_are_shares_of_pairs():
    rng = np.random.default_rng(2)
    scores, positive = rng.integers(0, 5, 30).astype(float), rng.random(30) < 0.4
    pairs = np.sign(scores[positive][:, None] - scores[~positive]) / 2 + 0.5
    placed = roc.placements(scores, positive)
    np.testing.assert_allclose(placed[positive], pairs.mean(axis=1))
    np.testing.assert_allclose(placed[~positive], pairs.mean(axis=0))


def test_standard_error_is_delongs():
    scores, positive = two_normals(np.random.default_rng(3), 40, 0.7)
    pairs = scores[positive][:, None] > scores[~positive]
    variance = pairs.mean(axis=1).var(ddof=1) / 40 + pairs.mean(axis=0).var(ddof=1) / 40
    estimate = roc.area_estimate(scores, positive, singly(40), singly(40))
    assert estimate.standard_error == pytest.approx(np.sqrt(variance))
    assert estimate.low < estimate.value < estimate.high


def test_intervals_by_patient_hold_where_intervals_by_image_do_not():
    """20 patients a side of 10 images that resemble each other, without a difference: the area is a half."""
    rng = np.random.default_rng(4)
    positive, owner = np.repeat([True, False], 200), np.repeat(np.arange(20), 10)
    missed = np.zeros(2)
    for _ in range(200):
        scores = np.repeat(rng.normal(size=40), 10) + 0.5 * rng.normal(size=400)
        for place, groups in enumerate((Groups(owner, 20, "patients"), singly(200))):
            estimate = roc.area_estimate(scores, positive, groups, groups)
            missed[place] += not estimate.low <= 0.5 <= estimate.high
    by_patient, by_image = missed / 200
    assert by_patient < 0.08 < 0.3 < by_image


def test_no_interval_where_nothing_overlaps():
    estimate = roc.area_estimate(np.arange(20.0), np.arange(20) >= 10, singly(10), singly(10))
    assert (estimate.value, estimate.low) == (1.0, None)


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 2 / 6), (0.24, 2 / 6), (0.25, 4 / 6), (0.5, 5 / 6), (0.75, 1.0)])
def test_true_positives_of_a_few_images(rate, expected):
    """Negatives at 4, 3, 2 and 0; positives above each of them, by hand. A tie is not above."""
    scores = np.array([6.0, 5, 4, 3.5, 3, 1, 4, 3, 2, 0])
    positive = np.arange(10) < 6
    # Above 4: 6, 5. Above 3: 6, 5, 4, 3.5. Above 2: and 3. Above 0: and 1.
    found = roc.true_positive_rates(scores, positive[None], ~positive[None], rate=rate)
    assert found[0] == pytest.approx(expected)


def test_true_positive_rate_of_two_normal_distributions_and_its_interval():
    """1 - Phi(z - d) where 1 - Phi(z) is the rate."""
    rng = np.random.default_rng(5)
    config, covered = BootstrapConfig(60, seed=0), 0
    expected = scipy.stats.norm.sf(scipy.stats.norm.isf(0.05) - 1.5)
    for _ in range(60):
        scores, positive = two_normals(rng, 200, 1.5)
        estimate = roc.true_positive_estimate(scores, positive, singly(200), singly(200), rate=0.05, config=config)
        covered += estimate.low <= expected <= estimate.high
    assert covered >= 50  # of 57 expected: four standard errors below


def test_curve_is_a_staircase_through_every_threshold():
    false, true = roc.curve(np.array([3.0, 2, 2, 1]), np.array([True, True, False, False]))
    np.testing.assert_allclose(false, [0, 0, 0.5, 1])
    np.testing.assert_allclose(true, [0, 0.5, 1, 1])
