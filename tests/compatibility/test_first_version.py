"""What users have on their disks: the files of the first version open, resume, sample and evaluate as they did then."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.data.pipeline import read_arrays
from diffpath_jax.runs import run as runs
from tests.conftest import ALONE

ARCHIVE = Path(__file__).with_name("first_version.tar.xz")
# XLA compiles for the CPU at hand, and sums are taken in another order than then.
RELATIVE, GREY_LEVELS = 1e-3, 1
DDIM = ("--sampler", "ddim", "--steps", 4, "--batch_size", 4, "--guidance", 0.5)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The files, unpacked where tests may write."""
    directory = tmp_path_factory.mktemp("first_version")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(directory, filter="data")
    return directory


@pytest.fixture(scope="module")
def expected(stored):
    return json.loads((stored / "expected.json").read_text())


@pytest.fixture(autouse=True)
def beside_the_files(stored, monkeypatch):
    """The runs name their data by relative paths."""
    monkeypatch.chdir(stored)


def run(*words):
    assert cli.main([str(word) for word in words]) == 0


def images(path, split="train"):
    return [record.image for record in open_dataset(Path(path)).read(split)]


def assert_same_pixels(found, other):
    for own, then in zip(images(found), images(other), strict=True):
        assert np.abs(own.astype(int) - then.astype(int)).max() <= GREY_LEVELS


@pytest.mark.parametrize("name", ["dataset", "latents", "samples", "latent_samples"])
def test_data_sets_open(name, expected):
    dataset = open_dataset(Path(name))
    for split in dataset.splits:
        assert len(read_arrays(dataset, split)["label"]) == dataset.count(split)
    if name in expected:
        assert dataset.digest == expected[name]["digest"]
        assert [image[0, 0].tolist() for image in images(name)] == expected[name]["first_pixels"]
        assert [image.mean() for image in images(name)] == expected[name]["means"]


def test_parameters_are_the_stored_ones_to_the_last_bit(expected):
    for name in ("denoiser", "latent_denoiser"):
        found = runs.load_parameters(runs.open_run(Path(name)))
        assert (found.step, found.digest) == (2, expected[name]["digest_at_2"])
    for name in ("autoencoder", "resnet"):
        assert runs.load_parameters(runs.open_run(Path(name))).step == 2


# Before the runs are resumed: samples are of the last checkpoint.
def test_samples_are_the_same_pixels(tmp_path):
    run("sample", "--workdir", "denoiser", "--out", tmp_path / "a", "--num_per_class", 6, *DDIM)
    assert_same_pixels(tmp_path / "a", "samples")
    words = ("--num_per_class", 3, "--sampler", "dpmpp", "--steps", 4, "--batch_size", 4)
    run("sample", "--workdir", "latent_denoiser", "--out", tmp_path / "b", *words)
    assert_same_pixels(tmp_path / "b", "latent_samples")


def test_a_finished_job_is_left_alone(capsys):
    before = Path("samples/manifest.json").read_bytes()
    run("sample", "--workdir", "denoiser", "--out", "samples", "--num_per_class", 6, *DDIM)
    assert Path("samples/manifest.json").read_bytes() == before


def test_an_unfinished_job_is_finished(expected):
    # Its first batch is taken as it lies there: a job of another kind would be refused.
    batch = Path("unfinished_samples/.staging/batch-000000000.array_record")
    assert batch.exists()
    run("sample", "--workdir", "denoiser", "--out", "unfinished_samples", "--num_per_class", 6, "--seed", 1, *DDIM)
    then = expected["unfinished_samples"]
    for image, pixel, mean in zip(images("unfinished_samples"), then["first_pixels"], then["means"], strict=True):
        assert np.abs(image[0, 0].astype(int) - pixel).max() <= GREY_LEVELS
        assert image.mean() == pytest.approx(mean, abs=GREY_LEVELS)


def test_latents_are_encoded_as_then(tmp_path):
    run("encode", "--data", "dataset", "--first_stage", "autoencoder", "--out", tmp_path / "l", "--augment", "flips")
    found, then = open_dataset(tmp_path / "l"), open_dataset(Path("latents"))
    own, other = (read_arrays(dataset, "train") for dataset in (found, then))
    np.testing.assert_array_equal(own["label"], other["label"])
    np.testing.assert_allclose(own["latent"].astype(float), other["latent"].astype(float), rtol=1e-2, atol=1e-2)


def test_evaluation_gives_the_same_numbers(tmp_path):
    words = ("--features", "resnet", "--classifier", "resnet", "--resamples", 4, "--audit", "none")
    words = ("--real", "dataset", "--split", "train", "--generated", "samples", *words)
    run("eval", *words, "--out", tmp_path / "evaluation", "--cache", tmp_path / "cache")
    found = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    then = json.loads(Path("evaluation/metrics.json").read_text())
    assert_close(found, then | {"versions": found["versions"]}, "metrics.json")


def assert_close(found, then, where):
    """Every name of then is there, with the same number up to rounding, or the same text."""
    if isinstance(then, dict):
        for name, value in then.items():
            assert name in found, f"{where} lacks {name}"
            assert_close(found[name], value, f"{where}: {name}")
    elif isinstance(then, list) and where.endswith("notes"):
        # Later versions note more.
        assert set(then) <= set(found), where
    elif isinstance(then, list):
        assert len(found) == len(then), where
        for number, (own, value) in enumerate(zip(found, then, strict=True)):
            assert_close(own, value, f"{where}[{number}]")
    elif isinstance(then, float):
        assert found == pytest.approx(then, rel=RELATIVE, abs=1e-6), where
    else:
        assert found == then, where


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("denoiser", "dataset", []),
        pytest.param(
            "latent_denoiser",
            "latents",
            ["--config.codec.first_stage=autoencoder", "--config.data.augment=flips"],
            marks=pytest.mark.full,
        ),
    ],
)
def test_runs_are_resumed(name, data, words, expected):
    words = ["--config", f"configs/{name}.py", "--workdir", name, f"--config.data.train={data}", *words]
    # In a process with one device: a batch of four cannot be split over the eight of the tests.
    subprocess.run([sys.executable, "-m", "diffpath_jax.cli", "train", *words], env=ALONE, check=True)
    found = [json.loads(line) for line in Path(name, "metrics.jsonl").read_text().splitlines()]
    then = expected[name]["metrics"]
    assert runs.load_parameters(runs.open_run(Path(name))).step == 4
    assert [line["step"] for line in found] == [line["step"] for line in then]
    for own, other in zip(found, then, strict=True):
        for key in set(other) & {"loss", "grad_norm", "learning_rate", "val_loss"}:
            assert own[key] == pytest.approx(other[key], rel=RELATIVE), (own["step"], key)
