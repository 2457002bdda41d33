"""Mixtures of data sets: so many images of each as were asked for, the same ones for the same seed."""

import dataclasses

import numpy as np
import pytest

from diffpath_jax.data import mixture
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.data.pipeline import Records, training_batches, training_source
from diffpath_jax.io.errors import DiffpathError

TRAIN = "train"


@pytest.fixture(scope="module")
def pair(dataset, samples):
    """A prepared data set, which stands for the real images, and a generated one of 16 pink and 8 purple."""
    return [open_dataset(dataset), open_dataset(samples)]


def chosen(pair, *amounts, seed=0):
    source = training_source(pair, amounts=amounts, balanced=False, seed=seed)
    return [(source[i]["image"].tobytes(), int(source[i]["label"])) for i in range(len(source))]


def images(*datasets):
    return [record.image.tobytes() for dataset in datasets for record in dataset.read(TRAIN)]


def test_amounts_are_counted_class_by_class(pair):
    first = pair[0].class_counts[TRAIN]
    share = 8 / max(first.values())
    counts = mixture.mixture_counts(pair, TRAIN, (1.0, share))
    assert counts[0] == first
    assert counts[1] == {name: round(share * count) for name, count in first.items()}
    found = chosen(pair, 1.0, share)
    real, generated = images(pair[0]), images(pair[1])
    assert sum(image in real for image, _ in found) == len(real)
    assert sum(image in generated for image, _ in found) == sum(counts[1].values())
    labels = np.bincount([label for _, label in found], minlength=2)
    np.testing.assert_array_equal(labels, mixture.total(counts))


def test_a_larger_amount_holds_the_smaller_and_a_seed_chooses(pair):
    share = 8 / max(pair[0].class_counts[TRAIN].values())
    small, large = (set(chosen(pair, 0.0, amount)) for amount in (share / 2, share))
    assert small < large and large <= {(image, label) for image, label in chosen(pair)}
    assert small == set(chosen(pair, 0.0, share / 2))
    assert any(small != set(chosen(pair, 0.0, share / 2, seed=seed)) for seed in (1, 2, 3))


def test_without_amounts_everything_is_taken(pair):
    assert sorted(image for image, _ in chosen(pair)) == sorted(images(*pair))


@pytest.mark.parametrize(
    ("amounts", "why"),
    [((1.0,), "1 amounts for 2 data sets"), ((0.0, 0.0), "no image at all"), ((0.0, 1000.0), "its train split has")],
)
def test_amounts_that_cannot_be(pair, amounts, why):
    with pytest.raises(DiffpathError, match=why):
        mixture.mixture_counts(pair, TRAIN, amounts)


def test_a_data_set_that_lends_its_validation_alone_needs_no_training_split(pair):
    only_val = dataclasses.replace(pair[1], splits={"val": pair[1].splits[TRAIN]}, class_counts={})
    source = training_source([pair[0], only_val], amounts=(1.0, 0.0), balanced=False, seed=0)
    assert len(source) == pair[0].count(TRAIN)


def test_classes_are_drawn_equally_often_and_all_of_their_images(pair):
    source = training_source(pair[1:], amounts=(), balanced=True, seed=0)
    drawn = [source[i] for i in range(400)]
    labels = np.array([int(item["label"]) for item in drawn])
    # Five standard errors of a coin; the data set has twice as many of one class.
    assert abs(labels.mean() - 0.5) < 5 * 0.5 / 20
    assert {item["image"].tobytes() for item in drawn} == set(images(pair[1]))


@pytest.mark.parametrize("balanced", [False, True])
def test_a_batch_of_a_mixture_depends_on_its_number_alone(pair, balanced):
    source = training_source(pair, amounts=(1.0, 0.05), balanced=balanced, seed=0)

    def batches(**options):
        options = {"batch_size": 4, "seed": 0, "augment": "dihedral", "workers": 0, **options}
        return training_batches(source, **options)

    whole, later, parallel = batches(), batches(start=3), batches(start=3, workers=1)
    expected = [next(whole)["image"] for _ in range(6)][3:]
    halves = [batches(start=3, process=(i, 2)) for i in range(2)]
    for image in expected:
        np.testing.assert_array_equal(next(later)["image"], image)
        np.testing.assert_array_equal(next(parallel)["image"], image)
        np.testing.assert_array_equal(np.concatenate([next(half)["image"] for half in halves]), image)


def test_labels_are_read_without_images(pair):
    source = Records(pair, TRAIN)
    own = np.concatenate(source.labels())
    np.testing.assert_array_equal(own, [int(source[i]["label"]) for i in range(len(source))])
    assert [len(part) for part in source.labels()] == [dataset.count(TRAIN) for dataset in pair]
