"""Crops: pieces of the same pixels, of sides that are drawn, in batches that depend on their number alone."""

import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.config import checks, size_checks
from diffpath_jax.data.crops import Crops
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.data.pipeline import Records, training_batches
from diffpath_jax.io.errors import DiffpathError
from tests.conftest import TINY_DENOISER, TINY_RESNET, train_words
from tests.training.test_loop import RUN


@pytest.fixture(scope="module")
def source(dataset):
    return Records([open_dataset(dataset)], "train")


def batches(source, crops, **options):
    common = {"batch_size": 8, "seed": 0, "augment": "dihedral", "workers": 0, "crops": crops}
    return training_batches(source, **{**common, **options})


def some(iterator, number):
    return [next(iterator) for _ in range(number)]


def is_piece(piece, image):
    windows = np.lib.stride_tricks.sliding_window_view(image, piece.shape)
    return (windows == piece).all(axis=(3, 4, 5)).any()


def test_crops_are_pieces_of_the_images_that_would_have_been_whole(source):
    """Pixel by pixel: um/px is what it was."""
    for cut, whole in zip(some(batches(source, Crops((8,), 0, 0)), 3), some(batches(source, None), 3), strict=True):
        assert cut["image"].shape == (8, 8, 8, 3)
        assert all(map(is_piece, cut["image"], whole["image"]))
        assert np.array_equal(cut["label"], whole["label"])


def test_each_batch_has_one_of_the_sides_evenly(source):
    sides = [batch["image"].shape[1] for batch in some(batches(source, Crops((4, 8, 16), 0, 0)), 150)]
    # Three standard deviations of a share of a third among 150.
    assert all(abs(sides.count(side) - 50) < 3 * np.sqrt(150 * 2 / 9) for side in (4, 8, 16))


def test_corners_reach_every_place_evenly(source):
    """Coded images: each pixel is its own place."""
    coded = np.stack(np.meshgrid(np.arange(16), np.arange(16), [0], indexing="ij"), axis=-1)[:, :, 0]
    images = [{"image": coded.astype(np.uint8), "label": np.int32(0)}] * 8
    cut = some(batches(images, Crops((12,), 0, 0), augment="none"), 250)
    corners = np.concatenate([batch["image"][:, 0, 0, :2] for batch in cut])
    for axis in (0, 1):
        counts = np.bincount(corners[:, axis], minlength=5)
        # Chi squared with 4 degrees of freedom is above 18.5 once in a thousand times.
        assert len(counts) == 5 and np.sum((counts - 400) ** 2 / 400) < 18.5


def test_images_are_whole_after_so_many_steps(source):
    sides = [batch["image"].shape[1] for batch in some(batches(source, Crops((8,), 3, 0)), 5)]
    assert sides == [8, 8, 8, 16, 16]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_of_crops_depends_on_its_number_alone(source, workers):
    crops = Crops((4, 8, 16), 0, 5)
    whole, later = some(batches(source, crops), 9), batches(source, crops, start=5, workers=workers)
    for expected, found in zip(whole[5:], some(later, 4), strict=True):
        assert np.array_equal(found["image"], expected["image"])


def test_processes_share_a_batch_of_crops(source):
    crops = Crops((4, 8, 16), 0, 5)
    halves = [some(batches(source, crops, process=(i, 2)), 4) for i in range(2)]
    for number, whole in enumerate(some(batches(source, crops), 4)):
        assert np.array_equal(np.concatenate([half[number]["image"] for half in halves]), whole["image"])


def config(kind=None, **data):
    content = RUN.as_json()
    return {**content, **(kind or {}), "data": {**content["data"], **data}}


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"crop_steps": 3}, r"data\.crop_steps.*nothing is cut"),
        ({"kind": TINY_RESNET, "crop_px": (8,)}, r"data\.crop_px.*whole images"),
    ],
)
def test_crops_that_mean_nothing_are_refused(data, key):
    with pytest.raises(DiffpathError, match=key):
        checks.run_config(config(**data), where="test")


@pytest.mark.parametrize("side", [32, 7])
def test_sides_must_fit_images_and_network(side):
    settings = checks.run_config(config(TINY_DENOISER, crop_px=(8, side)), where="test")
    with pytest.raises(DiffpathError, match=rf"data\.crop_px.*{side} is no multiple"):
        size_checks.check_crops(settings, (16, 16), where="test")


def test_a_model_of_crops_draws_smaller_and_larger_images(dataset, tmp_path):
    """Than its crops, and than its largest: they are of training alone."""
    run = tmp_path / "run"
    assert cli.main(train_words(run, dataset, {"data.crop_px": "(8,16)"})) == 0
    for px in (4, 24):
        out = tmp_path / f"of_{px}"
        fixed = ["--num_per_class", "1", "--steps", "2", "--sampler", "ddim", "--patch_px", str(px)]
        assert cli.main(["sample", "--workdir", str(run), "--out", str(out), *fixed]) == 0
        assert open_dataset(out).schema.image_px == (px, px)
