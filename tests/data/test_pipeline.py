import numpy as np
import pytest

from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.data.pipeline import Records, Symmetry, read_arrays, training_batches


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


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_depends_on_its_number_alone(source, workers):
    """Not on where reading began, nor on the number of decoding processes."""
    first = batches(source)
    whole = [next(first) for _ in range(9)]
    later = batches(source, start=5, workers=workers)
    assert all(equal(next(later), expected) for expected in whole[5:])


def test_processes_share_the_same_batch(source):
    whole = batches(source)
    parts = [batches(source, process=(i, 2)) for i in range(2)]
    for _ in range(3):
        halves = [next(part) for part in parts]
        assert equal({name: np.concatenate([h[name] for h in halves]) for name in halves[0]}, next(whole))


def test_a_batch_that_cannot_be_shared_is_refused(source):
    with pytest.raises(ValueError, match="divided"):
        batches(source, batch_size=8, process=(0, 3))


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("none", lambda x: [x]),
        ("hflip", lambda x: [x, x[:, ::-1]]),
        ("flips", lambda x: [x, x[:, ::-1], x[::-1], x[::-1, ::-1]]),
        ("dihedral", lambda x: [v for turns in range(4) for v in (np.rot90(x, turns), np.rot90(x, turns)[:, ::-1])]),
    ],
)
def test_augmentation_makes_all_of_a_group_and_only_those(group, expected):
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    rng = np.random.default_rng(0)
    found = {Symmetry(group).random_map({"image": image}, rng)["image"].tobytes() for _ in range(200)}
    assert found == {view.tobytes() for view in expected(image)}


def test_read_arrays_spreads_a_limit(dataset):
    opened = open_dataset(dataset)
    everything = read_arrays(opened, "train")
    some = read_arrays(opened, "train", limit=5)
    assert len(everything["label"]) == opened.count("train")
    np.testing.assert_array_equal(some["image"][[0, -1]], everything["image"][[0, -1]])
