"""Parts of a data set: whose images stay, and under which label."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from diffpath_jax.data import selection
from diffpath_jax.data.selection import Selection
from diffpath_jax.io.errors import DiffpathError

PATIENTS = tuple(f"p{i // 5:02d}" for i in range(200))


def images(**changes) -> Selection:
    """Forty patients of five images; the last two have the rare class."""
    labels = np.array([2 if i >= 190 else i % 2 for i in range(200)])
    return replace(Selection(np.ones(200, bool), labels, PATIENTS, ("a", "b", "rare"), "here"), **changes)


def kept(chosen: Selection) -> set[str]:
    return {PATIENTS[i] for i in np.flatnonzero(chosen.kept)}


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_shares_of_patients_are_whole_nested_and_hold_every_class(seed):
    parts = [selection.patient_share(images(), share, seed=seed) for share in (0.01, 0.1, 0.25, 0.5, 1.0)]
    sizes = [len(kept(part)) for part in parts]
    assert sizes[1:] == [4, 10, 20, 40] and sizes[0] <= 3
    for small, large in itertools.pairwise(parts):
        assert kept(small) < kept(large)
    for part in parts:
        # All images of a patient, or none.
        assert set(Counter(PATIENTS[i] for i in np.flatnonzero(part.kept)).values()) == {5}
        assert all(part.counts().values())


def test_another_seed_takes_other_patients():
    one, other = (selection.patient_share(images(), 0.25, seed=seed) for seed in (0, 1))
    assert kept(one) != kept(other)


def test_a_class_loses_patients_and_others_do_not():
    part = selection.class_share(images(), "a", 0.25, seed=0)
    own = images().labels == 0
    assert len({PATIENTS[i] for i in np.flatnonzero(part.kept & own)}) == 10  # of 38, rounded up
    assert (part.kept[~own]).all()


def test_numbers_of_images_are_nested():
    small, large = (selection.number_per_class(images(), number, seed=3) for number in (2, 10))
    assert small.counts() == {"a": 2, "b": 2, "rare": 2} and large.counts() == {"a": 10, "b": 10, "rare": 10}
    assert (small.kept <= large.kept).all()
    with pytest.raises(DiffpathError, match="'rare' has 10 images"):
        selection.number_per_class(images(), 11, seed=3)


def test_shuffled_labels_keep_their_numbers_and_say_nothing():
    many = replace(images(), kept=np.arange(200) < 190)
    shuffled = selection.shuffled_labels(many, seed=0)
    assert shuffled.counts() == many.counts() and (shuffled.labels[190:] == many.labels[190:]).all()
    # Agreement is that of chance: 95 of 190, with a standard deviation below 7.
    assert abs(int((shuffled.labels == many.labels)[:190].sum()) - 95) < 28


def test_what_cannot_be_chosen_is_named():
    with pytest.raises(DiffpathError, match="patients of its images are not known"):
        selection.patient_share(images(patients=("",) * 200), 0.5, seed=0)
    with pytest.raises(DiffpathError, match="no class 'c'"):
        selection.class_share(images(), "c", 0.5, seed=0)


def test_the_digest_tells_what_is_kept():
    one = selection.number_per_class(images(), 5, seed=0)
    assert one.digest == selection.number_per_class(images(), 5, seed=0).digest
    assert one.digest != selection.number_per_class(images(), 5, seed=1).digest
    assert images().digest != selection.shuffled_labels(images(), seed=0).digest
