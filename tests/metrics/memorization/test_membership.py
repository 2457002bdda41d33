"""Membership inference on simulated scores: alarms where there is a difference, at most the nominal rate without."""

from dataclasses import replace

import numpy as np
import pytest

from diffpath_jax.metrics.memorization import membership
from diffpath_jax.metrics.memorization.membership import LEAKS, NO_SIGN, UNKNOWN, MembershipConfig

CONFIG = MembershipConfig(permutations=300, resamples=20)


def cohort(sizes, *, side):
    """The patient of each image of patients with so many images."""
    return np.repeat([f"{side}{number}" for number in range(len(sizes))], sizes)


def patients_alike(rng, images, *, effect=0.0):
    """A score that images of a patient share in part, and that members have more of."""
    units = rng.normal(size=images.owner.max() + 1)
    return units[images.owner] + rng.normal(size=len(images.owner)) + effect * images.member


def alarms(scores, images, config):
    return min(min(own.values()) for own in membership.chances(scores, images, config).values()) < config.significance


def verdict(scores, images, config=CONFIG):
    return membership.outcome(membership.attacks(scores, images, config), config)


def test_alarms_without_a_difference_are_as_rare_as_stated():
    """Two correlated scores, patients of very different sizes, at a significance of 5 %: 500 repeats."""
    rng, count = np.random.default_rng(0), 0
    config = replace(CONFIG, significance=0.05, permutations=100)
    for _ in range(500):
        sizes = rng.integers(1, 30, (2, 10))
        images = membership.population(*(cohort(own, side=side) for own, side in zip(sizes, "ab", strict=True)))
        first = patients_alike(rng, images)
        scores = {"first": first, "second": first + rng.normal(size=len(first))}
        count += alarms(scores, images, config)
    assert count <= 25 + 3 * np.sqrt(500 * 0.05 * 0.95)
    assert count >= 5  # a test that never alarms would pass the line above


def test_images_of_a_patient_taken_as_independent_would_alarm_falsely():
    """Why patients are the units: the same scores with the patients' names taken away."""
    rng, count = np.random.default_rng(1), 0
    config = replace(CONFIG, significance=0.05, permutations=100)
    for _ in range(60):
        images = membership.population(cohort([20] * 10, side="a"), cohort([20] * 10, side="b"))
        nameless = replace(images, owner=np.arange(len(images.owner)), by_patient=False)
        count += alarms({"score": patients_alike(rng, images)}, nameless, config)
    assert count > 12


@pytest.mark.parametrize("effect", [1.5, 3.0])
def test_members_that_score_higher_are_told(effect):
    rng = np.random.default_rng(2)
    images = membership.population(cohort([10] * 20, side="a"), cohort([10] * 20, side="b"))
    scores = {"score": patients_alike(rng, images, effect=effect)}
    found = membership.attacks(scores, images, CONFIG)
    assert membership.outcome(found, CONFIG) == LEAKS and alarms(scores, images, CONFIG)
    attack = found["score"]
    assert attack.area.low > 0.5 and attack.area_by_patient.value > attack.area.value
    assert set(attack.p_values) == {"area", "true_positives", "area_by_patient"}


def test_a_few_copied_images_are_told_by_the_tail_alone():
    """4 % of the members stand out, which the area hardly shows."""
    rng = np.random.default_rng(3)
    images = membership.population(np.full(500, ""), np.full(500, ""))
    scores = rng.normal(size=1000)
    scores[:20] += 20
    found = membership.attacks({"score": scores}, images, CONFIG)
    assert found["score"].p_values["true_positives"] < 0.01 < found["score"].p_values["area"]
    assert membership.outcome(found, CONFIG) == LEAKS


def test_no_sign_needs_enough_images():
    rng = np.random.default_rng(4)
    many = membership.population(cohort([5] * 200, side="a"), cohort([5] * 200, side="b"))
    few = membership.population(cohort([5] * 10, side="a"), cohort([5] * 10, side="b"))
    assert verdict({"score": patients_alike(rng, many)}, many) == NO_SIGN
    assert verdict({"score": patients_alike(rng, few)}, few) == UNKNOWN


def test_fewer_non_members_than_one_in_a_hundred_give_no_tail():
    rng = np.random.default_rng(5)
    for count, there in ((99, False), (100, True)):
        images = membership.population(np.full(count, ""), np.full(count, ""))
        attack = membership.attacks({"score": rng.normal(size=2 * count)}, images, CONFIG)["score"]
        assert (attack.true_positives is not None) == there
        assert attack.area_by_patient is None


@pytest.mark.parametrize(
    ("members", "others", "reason"),
    [
        (["a", "b", "c", "d"], ["e", "f", "g", ""], "unknown"),
        (["a", "b", "c", "d"], ["d", "e", "f", "g"], "both sides: 1"),
        (["a", "b", "c"], ["d", "e", "f", "g"], "3 and 4 patients are too few"),
        (["a", "b", "c", "d"], ["e", "f", "g", "h"], ""),
    ],
)
def test_patients_are_units_where_they_can_be(members, others, reason):
    images = membership.population(np.array(members), np.array(others))
    assert reason in images.reason and images.by_patient == (not reason)


def test_chances_of_one_statistic_are_its_rank_and_of_many_alike_the_same():
    """With one test the chance is the share of divisions as large; copies of a test change nothing."""
    statistics = np.random.default_rng(6).normal(size=(200, 1))
    statistics[0] = np.sort(statistics[1:], axis=0)[-10]
    chance = membership.family_chances(statistics)
    assert chance[0] == 11 / 200
    np.testing.assert_allclose(membership.family_chances(np.repeat(statistics, 3, axis=1)), np.repeat(chance, 3))


def test_chances_of_independent_tests_are_those_of_the_smallest_of_them():
    """1 - (1 - p)^3 for the smallest of three (Sidak), in expectation."""
    statistics = np.random.default_rng(7).normal(size=(20_000, 3))
    statistics[0] = np.quantile(statistics, 0.95, axis=0)
    np.testing.assert_allclose(membership.family_chances(statistics), 1 - 0.95**3, atol=0.01)


def test_the_score_of_losses_takes_moderate_levels_alike_whatever_their_scale():
    rng = np.random.default_rng(8)
    noise = np.array([0.01, 0.1, 0.5, 0.9])
    easy = rng.normal(size=100)
    losses = np.exp(np.stack([rng.normal(size=100), 0.01 * easy, 3 * easy - 5, rng.normal(size=100)], axis=1))
    scores = membership.loss_score(losses, noise, CONFIG)
    np.testing.assert_allclose(scores, -(easy - easy.mean()) / easy.std(), atol=1e-6)


def test_a_copied_image_has_the_largest_distance_score():
    scores = membership.distance_score(np.array([0.0, 1.0, 2.0]), np.array([1.0, 2.0, 0.5]))
    np.testing.assert_allclose(scores, [0, -0.5, -4])


def test_gap_is_the_difference_of_means_with_welchs_interval():
    rng = np.random.default_rng(9)
    images = membership.population(np.full(30, ""), np.full(50, ""))
    values = rng.normal(size=80) + 2.0 * ~images.member
    found = membership.gap(values, images)
    held_out, trained = values[30:], values[:30]
    assert found.value == pytest.approx(held_out.mean() - trained.mean())
    error = np.sqrt(trained.var(ddof=1) / 30 + held_out.var(ddof=1) / 50)
    assert found.standard_error == pytest.approx(error)
    assert found.low < 2 < found.high
