"""Groups and intervals: whole patients, and intervals that hold the truth as often as they say."""

import numpy as np
import pytest

from diffpath_jax.metrics import bootstrap, fid
from diffpath_jax.metrics.bootstrap import BootstrapConfig, Groups
from diffpath_jax.metrics.metric import Comparison


def test_patients_stay_together():
    patients = np.repeat([f"p{i}" for i in range(45)], 3)
    groups = bootstrap.partition(patients, seed=0)
    assert (groups.unit, groups.count) == ("patients", bootstrap.MAX_GROUPS)
    assert all(len(set(groups.index[patients == name])) == 1 for name in set(patients))
    sizes = np.bincount(groups.index, minlength=groups.count)
    assert sizes.min() >= 6 and sizes.sum() == 135


@pytest.mark.parametrize("patients", [["a"] * 30, [""] * 30, [f"p{i}" for i in range(29)] + [""]])
def test_images_are_drawn_where_patients_are_few_or_unknown(patients):
    groups = bootstrap.partition(patients, seed=0)
    assert groups.unit == "images"
    assert set(np.bincount(groups.index)) <= {1, 2}


def test_fewer_images_than_groups():
    assert bootstrap.partition([""] * 3, seed=0).count == 3
    assert bootstrap.partition([], seed=0).count == 0


def test_mean_of_what_was_drawn():
    groups = Groups(np.array([0, 0, 1, 2]), 3, "images")
    mean = bootstrap.weighted_mean(np.array([1.0, 3.0, 10.0, 100.0]), groups)
    assert mean(np.array([1, 1, 1])) == pytest.approx(28.5)
    assert mean(np.array([2, 1, 0])) == pytest.approx((2 * 4 + 10) / 5)


def coverage(correlated, unit, trials=300):
    """Share of 95 % intervals of a mean that hold the true mean, 0, where patients differ from each other or not."""
    rng, held = np.random.default_rng(0), 0
    patients = np.repeat([f"p{i}" for i in range(20)], 10)
    names = patients if unit == "patients" else [""] * 200
    for trial in range(trials):
        values = rng.normal(size=200) + correlated * np.repeat(rng.normal(size=20), 10)
        groups = bootstrap.partition(names, seed=trial)
        mean = bootstrap.weighted_mean(values, groups)
        config = BootstrapConfig(200, trial)
        found = bootstrap.estimate(lambda w, _, mean=mean: mean(w), groups, groups, config=config)
        held += found.low <= 0 <= found.high
    return held / trials


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Five standard errors of 300 trials below 95 %, less what 20 groups cost (their t quantile is 2.09, not 1.96)."""
    error = 5 * np.sqrt(0.95 * 0.05 / 300)
    assert coverage(0.0, "images") > 0.93 - error
    assert coverage(1.0, "patients") > 0.93 - error
    # Drawing images of patients that differ is what makes intervals too narrow.
    assert coverage(1.0, "images") < 0.75


def test_replicates_that_lie_above_the_value_are_moved_to_it():
    groups = Groups(np.arange(10), 10, "images")
    config = BootstrapConfig(400, 0)
    found = bootstrap.estimate(lambda x, y: 5.0 + (x.std() > 0) * (10 + x[0]), groups, groups, config=config, upper=5.5)
    assert found.value == 5.0
    assert found.low < 5.0 < found.high == 5.5


@pytest.mark.parametrize(("shift", "most"), [(0.0, 2.2), (0.5, 1.4)])
def test_standard_errors_of_a_distance_are_those_of_new_draws(shift, most):
    """A Frechet distance is biased: at no difference errors are up to twice too large, never too small."""
    rng = np.random.default_rng(0)
    groups = Groups(np.arange(200) % 20, 20, "images")

    def draw():
        return rng.normal(size=(200, 8)), rng.normal(size=(200, 8)) + shift

    values, errors = [], []
    for trial in range(60):
        statistic = fid.frechet_statistic(Comparison(*draw(), groups, groups, seed=trial))
        found = bootstrap.estimate(statistic, groups, groups, config=BootstrapConfig(60, trial))
        values.append(found.value)
        errors.append(found.standard_error)
    assert 0.75 < np.mean(errors) / np.std(values) < most


def test_no_replicates_no_interval():
    groups = Groups(np.arange(10), 10, "images")
    found = bootstrap.estimate(lambda x, y: 1.0, groups, groups, config=BootstrapConfig(0, 0))
    assert (found.value, found.low, found.high) == (1.0, None, None)
