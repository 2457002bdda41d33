import numpy as np
import pytest

from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.data.pipeline import Dihedral, Records, read_arrays, training_batches


@pytest.fixture(scope="module")
def source(dataset):
    return Records([open_dataset(dataset)], "train")


def batches(source, **options):
    return training_batches(source, **{"batch_size": 8, "seed": 0, "augment": "dihedral", "workers": 0, **options})


def test_an_epoch_holds_every_record_once(source):
    iterator = batches(source, batch_size=1, augment="none")
    seen = [next(iterator)["image"].tobytes() for _ in range(len(source))]
    assert sorted(seen) == sorted(source[i]["image"].tobytes() for i in range(len(source)))
    again = [next(iterator)["image"].tobytes() for _ in range(len(source))]
    assert sorted(again) == sorted(seen)
    assert again != seen


def test_a_restored_iterator_goes_on_exactly(source):
    first = batches(source)
    for _ in range(5):
        next(first)
    state = first.get_state()
    expected = [next(first) for _ in range(4)]
    second = batches(source)
    second.set_state(state)
    for wanted in expected:
        found = next(second)
        np.testing.assert_array_equal(found["image"], wanted["image"])
        np.testing.assert_array_equal(found["label"], wanted["label"])


def test_processes_share_a_batch_without_overlap(source):
    whole = batches(source, augment="none", batch_size=8)
    parts = [batches(source, augment="none", batch_size=8, process=(i, 2)) for i in range(2)]
    for _ in range(3):
        expected = {image.tobytes() for image in next(whole)["image"]}
        found = [image.tobytes() for part in parts for image in next(part)["image"]]
        assert len(found) == 8
        assert set(found) == expected


def test_a_batch_that_cannot_be_shared_is_refused(source):
    with pytest.raises(ValueError, match="divided"):
        batches(source, batch_size=8, process=(0, 3))


def test_dihedral_makes_the_eight_and_only_those():
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    turned = [np.rot90(image, turns) for turns in range(4)]
    expected = {view.tobytes() for turn in turned for view in (turn, turn[:, ::-1])}
    rng = np.random.default_rng(0)
    found = {Dihedral().random_map({"image": image}, rng)["image"].tobytes() for _ in range(200)}
    assert found == expected
    assert len(expected) == 8


def test_read_arrays_spreads_a_limit(dataset):
    opened = open_dataset(dataset)
    everything = read_arrays(opened, "train")
    some = read_arrays(opened, "train", limit=5)
    assert len(everything["label"]) == opened.count("train")
    np.testing.assert_array_equal(some["image"][[0, -1]], everything["image"][[0, -1]])
