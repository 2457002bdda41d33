"""What version 0.1.0 wrote still opens, goes on, and comes out the same; README.md says what there is."""

import json
import shutil
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.data.pipeline import read_arrays
from diffpath_jax.latents.first_stage import open_first_stage
from diffpath_jax.runs import run as runs
from diffpath_jax.weights import safetensors_file

ARCHIVE = Path(__file__).parent / "first_version.tar.xz"
DIGEST = "0521b56c87a4cfc79e0aa59037b75a0f3546097ffc34533385295857400965c4"
# Logged numbers of the machine, not of the run.
OF_THE_MACHINE = {"images_per_second", "share_of_peak"}
DENOISER = ("sample", "--workdir", "denoiser", "--num_per_class", 6, "--sampler", "ddim", "--steps", 4)
DENOISER = (*DENOISER, "--batch_size", 4, "--guidance", 0.5)
LATENT = ("sample", "--workdir", "latent_denoiser", "--num_per_class", 3, "--sampler", "dpmpp", "--steps", 4)
LATENT = (*LATENT, "--batch_size", 4)


def run_cli(*words):
    return cli.main([str(word) for word in words])


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """The archive, unpacked; paths in it are relative to it."""
    directory = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(directory, filter="data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        # The batches of four were trained on one device.
        patch.setattr(jax, "device_count", lambda: 1)
        yield directory


@pytest.fixture(scope="module")
def expected(old):
    return json.loads((old / "expected.json").read_text())


def images(directory):
    return np.stack([record.image for record in open_dataset(directory).read("train")]).astype(int)


def numbers(content):
    """Every number in nested JSON, by its place."""
    if isinstance(content, dict):
        return {f"{key}/{rest}": n for key, value in content.items() for rest, n in numbers(value).items()}
    if isinstance(content, list):
        return numbers(dict(enumerate(content)))
    return {"": content} if isinstance(content, int | float) else {}


@pytest.mark.parametrize("name", ["dataset", "latents", "samples", "latent_samples", "reconstructions"])
def test_data_sets_open_and_are_read(old, name):
    dataset = open_dataset(old / name)
    recorded = json.loads((old / name / "manifest.json").read_text())
    assert dataset.digest == recorded["digest"] and (name != "dataset" or dataset.digest == DIGEST)
    for split in dataset.splits:
        found = [int(label) for label in read_arrays(dataset, split)["label"]]
        counts = {kind: found.count(label) for label, kind in enumerate(dataset.schema.classes)}
        assert counts == dict(dataset.class_counts[split])


@pytest.mark.parametrize("name", ["denoiser", "latent_denoiser"])
def test_parameters_are_those_that_were_saved(old, expected, name):
    trained = runs.load_parameters(runs.open_run(Path(name)))
    assert (trained.step, trained.averaged, trained.digest) == (2, True, expected[name]["digest_at_2"])


@pytest.mark.parametrize("name", ["denoiser", "latent_denoiser"])
def test_training_goes_on_as_it_would_have(old, expected, name):
    config = old / f"{name}.py"
    settings = json.loads((old / name / "config.json").read_text())["config"]
    config.write_text(
        f"from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({settings!r})\n"
    )
    workdir = old / f"{name}_resumed"
    shutil.copytree(old / name, workdir)
    assert run_cli("train", "--config", config, "--workdir", workdir, "--allow_change", "train.eval_every") == 0
    trained = runs.load_parameters(runs.open_run(workdir))
    assert trained.step == expected[name]["step"] == 4
    found = safetensors_file.flatten(trained.params)
    with np.load(old / f"{name}_at_4.npz") as stored:
        assert set(found) == set(stored)
        for key in stored:
            np.testing.assert_allclose(found[key], stored[key], atol=1e-5)
    logged = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    logged, stored = ([line for line in lines if "loss" in line] for lines in (logged, expected[name]["metrics"]))
    assert len(logged) == 4
    for line, before in zip(logged, stored, strict=True):
        assert set(line) - OF_THE_MACHINE == set(before) - OF_THE_MACHINE
        for key in set(before) - OF_THE_MACHINE:
            assert line[key] == pytest.approx(before[key], rel=1e-3, abs=1e-4), key


@pytest.mark.parametrize(("words", "name"), [(DENOISER, "samples"), (LATENT, "latent_samples")])
def test_sampling_gives_the_same_images(old, words, name):
    assert run_cli(*words, "--out", f"{name}_again") == 0
    assert np.abs(images(old / f"{name}_again") - images(old / name)).max() <= 1


def test_finished_job_is_recognised(old, expected):
    before = (old / "samples/manifest.json").read_bytes()
    assert run_cli(*DENOISER, "--out", "samples") == 0
    assert (old / "samples/manifest.json").read_bytes() == before


def test_unfinished_job_is_finished(old, expected):
    first = (old / "unfinished_samples/.staging/batch-000000000.array_record").read_bytes()
    shutil.copytree(old / "unfinished_samples", old / "continued")
    assert first and run_cli(*DENOISER, "--seed", 1, "--out", "continued") == 0
    found, stored = images(old / "continued"), images(old / "finished_samples")
    assert np.array_equal(found[:4], stored[:4]) and np.abs(found - stored).max() <= 1
    assert open_dataset(old / "finished_samples").digest == expected["unfinished_samples"]["digest"]


def test_autoencoder_opens_and_reconstructs(old):
    stage = open_first_stage(old / "autoencoder")
    assert stage.space(1.0).digest == open_dataset(old / "latents").details["latents"]["digest"]
    words = ("--data", "dataset", "--first_stage", "autoencoder", "--split", "train")
    assert run_cli("reconstruct", *words, "--out", "reconstructions_again") == 0
    assert np.abs(images(old / "reconstructions_again") - images(old / "reconstructions")).max() <= 1
    found, stored = (
        json.loads((old / name / "reconstruction.json").read_text())
        for name in ("reconstructions_again", "reconstructions")
    )
    assert numbers(found) == pytest.approx(numbers(stored), rel=1e-3)


def test_latents_are_encoded_the_same(old):
    words = ("--data", "dataset", "--first_stage", "autoencoder", "--augment", "flips")
    assert run_cli("encode", *words, "--out", "latents_again") == 0
    found, stored = (read_arrays(open_dataset(old / name), "train")["latent"] for name in ("latents_again", "latents"))
    np.testing.assert_allclose(found, stored, atol=2e-2)


def test_evaluation_gives_the_same_numbers(old):
    sets = ("--real", "dataset", "--split", "train", "--generated", "samples", "--audit", "none")
    networks = ("--features", "resnet", "--classifier", "resnet", "--resamples", 4, "--cache", "cache")
    assert run_cli("eval", *sets, *networks, "--out", "evaluation_again") == 0
    found, stored = (
        json.loads((old / name / "metrics.json").read_text()) for name in ("evaluation_again", "evaluation")
    )
    assert numbers(found) == pytest.approx(numbers(stored), rel=1e-3, abs=1e-5)


def test_classifier_run_opens(old):
    run = runs.open_run(Path("resnet"))
    assert run.classes == ("pink", "purple") and runs.load_parameters(run).step == 2
