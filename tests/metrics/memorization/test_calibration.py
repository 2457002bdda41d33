"""Thresholds and tails: worked by hand, against tables, and against what they promise."""

import numpy as np
import pytest
import scipy.stats

from diffpath_jax.metrics.memorization import calibration
from diffpath_jax.metrics.memorization.calibration import CalibrationConfig


def test_ratio_skips_the_same_scene_and_what_is_infinite():
    distances = np.array([[0.1, 0.2, 0.6, 0.8, np.inf], [0.5, 0.6, 0.7, 0.9, 0.9], [0.1, 0.1, 0.2, 0.2, 0.3]])
    found = calibration.typical_distances(distances, same_scene=0.5, neighbours=2)
    np.testing.assert_allclose(found, [0.7, 0.65, 0.5])


# Wilks 1941: sample sizes for 99 % content at 95 % confidence with the 1st, 2nd and 3rd extreme value.
@pytest.mark.parametrize(("count", "rank"), [(299, 1), (472, 1), (473, 2), (627, 2), (628, 3)])
def test_tolerance_limits_are_those_of_the_tables(count, rank):
    found, share = calibration.tolerance_rank(count, rate=0.01, confidence=0.95)
    assert (found, share <= 0.01) == (rank, True)
    assert scipy.stats.binom.sf(rank - 1, count, share) == pytest.approx(0.95)


def test_too_few_images_say_what_they_can_hold():
    rank, share = calibration.tolerance_rank(50, rate=0.01, confidence=0.95)
    assert rank == 1
    assert share == pytest.approx(1 - 0.05 ** (1 / 50))


def test_false_alarms_stay_below_the_rate_as_often_as_promised():
    """Ratios that are uniform: the share below a threshold is the threshold."""
    rng = np.random.default_rng(0)
    rank, _ = calibration.tolerance_rank(500, rate=0.01, confidence=0.95)
    kept = np.mean(np.sort(rng.uniform(size=(2000, 500)), axis=1)[:, rank - 1] <= 0.01)
    assert 0.94 < kept < 0.98


def test_patients_who_differ_lower_the_threshold():
    """10 patients of 100 images; the least ratios are one patient's, or spread over all."""
    rng = np.random.default_rng(0)
    ratios, patients = np.sort(rng.uniform(size=1000)), np.repeat([f"{i}" for i in range(10)], 100)
    clustered, _ = calibration.set_threshold(ratios, patients, config=CalibrationConfig())
    spread, rate = calibration.set_threshold(ratios, np.tile(patients[::100], 100), config=CalibrationConfig())
    assert (clustered, spread, rate) == (ratios[3], ratios[4], 0.01)


def test_no_copy_shares_less_than_a_copy_must():
    """Honest ratios between 0.98 and 1: none of them is a copy."""
    ratios = np.random.default_rng(0).uniform(0.98, 1, 1000)
    assert calibration.set_threshold(ratios, np.repeat("a", 1000), config=CalibrationConfig()) == (0.9, 0.01)


def test_limit_over_patients_by_hand():
    """Shares of 0, 0 and 3 %: a mean of 1 %, a standard error of 1 %, and t = 2.920 with 2 degrees of freedom."""
    alarms = np.zeros(300, bool)
    alarms[200:203] = True
    found = calibration.patient_limit(alarms, np.repeat(["a", "b", "c"], 100), confidence=0.95)
    assert found == pytest.approx(0.01 + 2.920 * 0.01, abs=1e-5)
    assert calibration.patient_limit(alarms, np.repeat("a", 300), confidence=0.95) == 0.01


def test_tail_of_a_power_law():
    """P(r < x) = x^12: never called rarer than it is, and at most a factor 100 commoner at 1 in 10^8."""
    ratios = np.random.default_rng(0).uniform(size=1000) ** (1 / 12)
    x = np.array([0.0, 1e-8, 1e-4, 0.5]) ** (1 / 12)
    found = calibration.tail_chances(x, ratios, confidence=0.95)
    assert found[0] == 0
    assert (found[1:3] >= x[1:3] ** 12).all() and (found[1:3] <= 100 * x[1:3] ** 12).all()
    assert found[3] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("honest", [np.zeros(100), np.ones(100), np.r_[np.zeros(5), np.linspace(0.8, 1, 95)]])
def test_held_out_images_that_say_nothing_of_rarer_ones(honest):
    """All the same, or copies themselves."""
    assert calibration.tail_chances(np.array([0.0]), honest, confidence=0.95)[0] >= 0.05


def test_patients_are_kept_apart():
    patients = np.repeat(["a", "b", "c", "d"], [30, 30, 30, 10])
    calibrating, by_patient = calibration.split_patients(patients, seed=0)
    assert by_patient
    assert not set(patients[calibrating]) & set(patients[~calibrating])
    assert 40 <= calibrating.sum() <= 60
    both = calibration.split_patients(np.repeat(["a", "b"], [90, 10]), seed=0)[0]
    assert 0 < both.sum() < 100


def test_one_patient_is_cut_in_the_middle():
    calibrating, by_patient = calibration.split_patients(np.array(["a"] * 5), seed=0)
    assert not by_patient
    assert calibrating.tolist() == [True, True, True, False, False]


def test_calibration_by_hand():
    """One patient, six images, a next distance of 1: the least of the first three ratios is the threshold."""
    nearest = np.array([0.6, 0.5, 0.8, 0.4, 0.5, 0.9])
    distances = np.stack([nearest, np.ones(6)], axis=1)
    found = calibration.calibrate(distances, np.array(["a"] * 6), config=CalibrationConfig(), seed=0)
    assert (found.threshold, found.count, found.fresh_count, found.fresh_alarms) == (0.5, 3, 3, 1)
    assert found.rate == pytest.approx(1 - 0.05 ** (1 / 3))
    # Clopper and Pearson for 1 of 3.
    assert found.fresh_interval == pytest.approx((0.0084, 0.9057), abs=1e-4)
    assert found.expected_rate == found.rate
    with pytest.raises(ValueError, match="2 held-out"):
        calibration.calibrate(distances[:1], np.array(["a"]), config=CalibrationConfig(), seed=0)
