"""Intervals over patients and seeds: what they are made of, and that they cover as often as they say."""

import dataclasses

import numpy as np
import pytest

from diffpath_jax.metrics import paired
from diffpath_jax.metrics.classification import SCORES

ACCURACY = SCORES["accuracy"].of_owners


@dataclasses.dataclass(frozen=True)
class World:
    """Where two arms, their patients and their seeds come from; shares of images that are told.

    Attributes:
        effect: what the one arm gains, on average over all patients and seeds that there could be.
        of_patients: half the range of what a patient's fields add to both arms.
        of_pairs: half the range of what they add to one of them.
        of_seeds: half the range of what a seed adds to one arm.
        alike: share of the images on which all classifiers agree.
    """

    effect: float
    of_patients: float = 0.08
    of_pairs: float = 0.04
    of_seeds: float = 0.02
    alike: float = 0.7
    patients: int = 30
    images: int = 20
    seeds: int = 5


def draw(world, rng):
    """Labels, logits of both arms, patients."""

    def even(half, *shape):
        return rng.uniform(-half, half, shape)

    owner = np.repeat(np.arange(world.patients), world.images)
    labels = rng.integers(2, size=owner.size)
    both = even(world.of_patients, world.patients)
    shared, arms = rng.random(owner.size), []
    for gain in (world.effect, 0.0):
        chance = 0.8 + gain + (both + even(world.of_pairs, world.patients))[owner]
        chance = chance + even(world.of_seeds, world.seeds, 1)
        own = rng.random((world.seeds, owner.size))
        told_right = np.where(rng.random(owner.size) < world.alike, shared, own) < chance
        arms.append(np.eye(2)[np.where(told_right, labels, 1 - labels)])
    return labels, *arms, np.array([f"patient {index}" for index in owner])


WORLDS = {
    "nothing to find": World(0.0),
    "two points": World(0.02),
    "training decides": World(0.02, of_pairs=0.0, of_seeds=0.08),
    "patients decide": World(0.0, of_pairs=0.1, of_seeds=0.0),
    "chance decides": World(0.0, of_patients=0.0, of_pairs=0.0, of_seeds=0.0, alike=0.0),
}


def of_score(*arguments, **options):
    """Interval of a score of one arm."""
    return paired.replicates(*arguments, **options).interval


def of_difference(score, labels, ours, theirs, patients, **options):
    """Interval of the score of one arm less that of another."""
    one, other = (paired.replicates(score, labels, arm, patients, **options) for arm in (ours, theirs))
    return (one - other).interval


def coverage(world, repeats, resamples):
    """Share of the intervals that hold the effect, and of those that exclude zero."""
    rng, hits, alarms = np.random.default_rng(1), 0, 0
    for number in range(repeats):
        labels, ours, theirs, patients = draw(world, rng)
        found = of_difference(ACCURACY, labels, ours, theirs, patients, seed=number, resamples=resamples)
        hits += found.low <= world.effect <= found.high
        alarms += found.excludes_zero
    return hits / repeats, alarms / repeats


def check(world, repeats, resamples):
    covered, alarms = coverage(world, repeats, resamples)
    print(f"{world}: {covered:.3f} of {repeats} intervals hold the effect, {alarms:.3f} exclude zero")
    # Three standard errors of a coin that falls so 95 times of 100; too wide is a fault as well.
    reach = 3 * np.sqrt(0.95 * 0.05 / repeats)
    assert 0.95 - reach < covered < 0.95 + reach + 0.02
    if world.effect == 0:
        assert alarms < 0.05 + reach


@pytest.mark.parametrize("name", WORLDS)
def test_intervals_cover_as_often_as_they_say(name):
    check(WORLDS[name], repeats=500, resamples=120)


def test_pairing_pays():
    """Patients that are hard for both arms do not blur the difference between them."""
    world = World(0.05, of_patients=0.14, of_pairs=0.0, of_seeds=0.0, alike=1.0)
    labels, ours, theirs, patients = draw(world, np.random.default_rng(0))
    score = of_score(ACCURACY, labels, ours, patients, seed=0)
    difference = of_difference(ACCURACY, labels, ours, theirs, patients, seed=0)
    # Of two arms on patients of their own it would be the square root of 2 times that of one.
    assert difference.standard_error < 0.6 * np.sqrt(2) * score.standard_error
    assert difference.value == pytest.approx(score.value - of_score(ACCURACY, labels, theirs, patients, seed=0).value)


def test_variance_of_a_mean_is_that_of_the_analysis_of_variance():
    """Every patient with as many images: patients, seeds and their interaction as mean squares have them."""
    labels, ours, theirs, patients = draw(World(0.1, seeds=4), np.random.default_rng(3))
    right = [(arm.argmax(axis=-1) == labels).reshape(4, 30, 20).mean(axis=-1) for arm in (ours, theirs)]
    table = right[0] - right[1]
    rows, columns = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    rest = table - rows - columns + table.mean()
    interaction = np.square(rest).sum() / (3 * 29)
    expected = columns.var(ddof=1) / 30 + max(rows.var(ddof=1) / 4 - interaction / (4 * 30), 0)
    found = of_difference(ACCURACY, labels, ours, theirs, patients, seed=0, resamples=4000)
    assert found.standard_error == pytest.approx(np.sqrt(expected), rel=0.05)


def test_one_seed_and_few_patients():
    labels, ours, theirs, patients = draw(World(0.0, seeds=1), np.random.default_rng(0))
    table = ((ours[0].argmax(-1) == labels) * 1.0 - (theirs[0].argmax(-1) == labels)).reshape(30, 20).mean(axis=1)
    found = of_difference(ACCURACY, labels, ours, theirs, patients, seed=0, resamples=4000)
    assert (found.seeds, found.patients) == (1, 30)
    assert found.standard_error == pytest.approx(table.std(ddof=1) / np.sqrt(30), rel=0.05)
    few = of_score(ACCURACY, labels, ours, [f"{index % 7}" for index in range(labels.size)], seed=0)
    assert few.low is few.high is few.standard_error is None and not few.excludes_zero


@pytest.mark.parametrize("name", SCORES)
def test_every_score_has_an_interval(name):
    labels, ours, _, patients = draw(World(0.0), np.random.default_rng(0))
    logits = ours + 0.3 * np.random.default_rng(1).standard_normal(ours.shape)
    found = of_score(SCORES[name].of_owners, labels, logits, patients, seed=0, resamples=50)
    assert found.low < found.value < found.high


@pytest.mark.parametrize("name", SCORES)
def test_scores_of_resamples_are_those_of_the_images_drawn(name):
    """From sums over patients, or from the images themselves: with patients of one class and ties of probabilities."""
    rng = np.random.default_rng(5)
    labels, patients = rng.integers(4, size=300), rng.integers(12, size=300).astype(str)
    labels[patients == "3"], labels[labels == 2] = 1, 0
    logits = np.round(2 * rng.standard_normal((3, 300, 4)) + 2 * np.eye(4)[labels]) / 2
    score, how = SCORES[name], {"seed": 0, "resamples": 40}
    found = paired.replicates(score.of_owners, labels, logits, patients, **how)
    expected = paired.replicates(paired.any_score(score.measure), labels, logits, patients, **how)
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-12)
    np.testing.assert_allclose(found.resampled, expected.resampled, rtol=1e-12)
    assert found.resampled.std(axis=0).min() > 0


def test_intervals_end_at_the_bounds_of_the_score():
    """30 patients of whom one is told wrong: the interval of .967 +- would pass 1, that of the difference does not."""
    labels, patients = np.zeros(30, int), [f"{index}" for index in range(30)]
    nearly = np.tile(np.array([1.0, -1.0]), (2, 30, 1))
    nearly[:, 0] *= -1
    how = {"seed": 0, "resamples": 200}
    free = paired.replicates(ACCURACY, labels, nearly, patients, **how)
    cut = paired.replicates(ACCURACY, labels, nearly, patients, **how, bounds=SCORES["accuracy"].bounds)
    assert free.interval.high > 1 == cut.interval.high and free.interval.low == cut.interval.low
    assert (cut - cut).bounds == (-1, 1) and (cut - free).bounds == (-np.inf, np.inf)


def test_arms_with_other_seeds_cannot_be_paired():
    labels, ours, theirs, patients = draw(World(0.0), np.random.default_rng(0))
    with pytest.raises(ValueError, match="cannot be paired"):
        of_difference(ACCURACY, labels, ours, theirs[:3], patients, seed=0)


def test_a_planted_leak_is_reported():
    """A classifier that has learnt some test patients by heart: those are named, with the share of their images."""
    labels, ours, _, patients = draw(World(0.0), np.random.default_rng(0))
    known = [f"patient {index}" for index in (4, 11, 29)]
    by_heart = np.where(np.isin(patients, known)[None, :, None], np.eye(2)[labels], ours)
    assert of_difference(ACCURACY, labels, by_heart, ours, patients, seed=0).value > 0
    training = [f"patient {index}" for index in range(100, 160)]
    found = paired.leak([*training, *known, ""], patients)
    assert found.patients == tuple(sorted(known)) and found.images == pytest.approx(3 / 30)
    assert paired.leak(training, patients) == paired.Leak((), 0.0)
    assert paired.leak(["", "a"], ["", "b"]) == paired.Leak((), 0.0)


def test_resamples_without_a_number_are_left_out_and_without_half_of_them_there_is_no_interval():
    """The AUROC of patients who all have one class is no number."""
    rng = np.random.default_rng(0)
    values, resampled = rng.normal(size=3), rng.normal(size=(100, 3))
    with_holes = np.concatenate([resampled, np.full((99, 3), np.nan)])
    found = paired.Replicates(values, with_holes, 20).interval
    assert found == paired.Replicates(values, resampled, 20).interval and found.low < found.value < found.high
    assert paired.Replicates(values, np.concatenate([with_holes, np.full((2, 3), np.nan)]), 20).interval.low is None
    labels = np.repeat(np.arange(10) == 0, 5).astype(int)
    patients = np.repeat([f"p{index}" for index in range(10)], 5)
    logits = rng.normal(size=(2, 50, 2))
    one = paired.replicates(SCORES["macro_auroc"].of_owners, labels, logits, patients, seed=0, resamples=200)
    # The only patient of the class is missing from a share of (1 - 1 / 10)^10 of the resamples.
    assert np.isnan(one.resampled).any(axis=1).mean() == pytest.approx(0.9**10, abs=0.1)
    assert one.is_defined and one.interval.low is not None and np.isfinite([one.interval.low, one.interval.high]).all()
