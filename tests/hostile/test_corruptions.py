"""Changed bytes in every kind of file that the project writes: named with exit code 5 (or 2 where a file is gone), or
proven harmless by equal results."""

import dataclasses
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset, read_shard
from diffpath_jax.evaluation import record
from diffpath_jax.evaluation.feature_cache import FeatureStore
from diffpath_jax.evaluation.features.open import open_extractor
from diffpath_jax.evaluation.image_sets import open_set
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.reader import key, page
from diffpath_jax.runs import run as runs
from diffpath_jax.training.metrics_log import METRICS
from diffpath_jax.weights import safetensors_file

# What no result of the project is read from: pages, pictures, TFDS' own descriptions, logs, locks.
NOT_READ = (".lock", ".html", ".png", ".csv", "README.md", "dataset_info.json", "features.json", METRICS)
# Random changes of each kind of file: in the plain suite and in the full one.
FEW, MANY = 6, 150


def of_dataset(directory: Path) -> object:
    """Everything that training, sampling and evaluation take from a data set."""
    opened = open_dataset(directory)
    records = {split: [bytes(r) for path in opened.paths(split) for r in read_shard(path)] for split in opened.splits}
    return dataclasses.replace(opened, directory=Path()), records


def of_run(directory: Path) -> object:
    run = runs.open_run(directory)
    trained = runs.load_parameters(run)
    return dataclasses.replace(run, workdir=Path()), trained.digest, trained.step


def of_reader_study(directory: Path) -> object:
    study = key.read(directory)
    page.check_same_study(directory, study)
    return study


def of_export(path: Path) -> object:
    arrays, about = safetensors_file.read_parameters(path / "x.safetensors")
    return {name: (array.shape, array.tobytes()) for name, array in arrays.items()}, about


def changed(data: bytes, rng: random.Random) -> bytes | None:
    """A flipped bit, a zeroed block, a truncation, or (none) no file at all."""
    kind, place = rng.choice(("flip", "flip", "flip", "zero", "truncate", "delete")), rng.randrange(max(len(data), 1))
    if kind == "delete":
        return None
    if kind == "truncate":
        return data[:place]
    if kind == "zero":
        return data[:place] + bytes(min(64, len(data) - place)) + data[place + 64 :]
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :] if data else b"\0"


@pytest.fixture(scope="module")
def written(tmp_path_factory, dataset, samples, denoiser_run, resnet_run, autoencoder_run) -> dict[str, Path]:
    """A directory of each kind, written by the commands themselves."""
    folder = tmp_path_factory.mktemp("written")
    commands = {
        "latents": ["encode", "--data", dataset, "--first_stage", autoencoder_run],
        "evaluation": [
            "eval",
            "--real",
            dataset,
            "--generated",
            samples,
            "--resamples",
            2,
            "--cache",
            folder / "cache",
        ],
        "reader": ["reader", "make", "--real", dataset, "--generated", samples, "--images", 4, "--readers", 1],
    }
    for name, words in commands.items():
        assert cli.main([str(word) for word in (*words, "--out", folder / name)]) == 0
    (folder / "export").mkdir()
    words = ["export", "--workdir", denoiser_run, "--out", folder / "export" / "x.safetensors"]
    assert cli.main([str(word) for word in words]) == 0
    return {"dataset": dataset, "samples": samples, "run": denoiser_run} | {
        name: folder / name for name in ("latents", "evaluation", "reader", "export")
    }


READERS: dict[str, Callable[[Path], object]] = {
    "dataset": of_dataset,
    "samples": of_dataset,
    "latents": of_dataset,
    "run": of_run,
    "evaluation": lambda path: record.read(path / record.METRICS),
    "reader": of_reader_study,
    "export": of_export,
}


def check(directory: Path, read: Callable[[Path], object], whole: object, rng: random.Random) -> bool:
    """One change; true where it was named."""
    files = sorted(p for p in directory.rglob("*") if p.is_file() and not p.name.endswith(NOT_READ))
    path = rng.choice(files)
    before = path.read_bytes()
    after = changed(before, rng)
    if after is None:
        path.unlink()
    else:
        path.write_bytes(after)
    try:
        assert read(directory) == whole, f"{path.name}: other results, and nothing was said"
        return False
    except DiffpathError as error:
        allowed = {ExitCode.DAMAGED} if after is not None else {ExitCode.DAMAGED, ExitCode.BAD_INPUT}
        assert error.code in allowed, f"{path.name}: {error}"
        assert str(directory) in str(error), error
        return True
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.full)])
def test_named_or_harmless(written, tmp_path, kind, count):
    directory = shutil.copytree(written[kind], tmp_path / kind)
    rng, read = random.Random(f"{kind} {count}"), READERS[kind]
    whole = read(directory)
    named = sum(check(directory, read, whole, rng) for _ in range(count))
    assert named >= count // 4, "the check could not fail"


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.full)])
def test_changed_features_are_computed_again(tmp_path, samples, resnet_run, count):
    images, extractor = open_set(samples, split="train"), open_extractor(resnet_run, resize="tf_bilinear")
    store, rng = FeatureStore(tmp_path / "cache"), random.Random(count)
    whole = np.array(store.features(images, extractor))
    for _ in range(count):
        path = rng.choice(sorted((tmp_path / "cache").iterdir()))
        data = changed(path.read_bytes(), rng)
        path.write_bytes(data) if data is not None else path.unlink()
        np.testing.assert_array_equal(store.features(images, extractor), whole)


def test_the_scale_of_a_data_set_is_under_a_digest(tmp_path, dataset):
    """A number of the manifest, well-formed and wrong."""
    copy = shutil.copytree(dataset, tmp_path / "copy")
    text = (copy / "manifest.json").read_text()
    assert '"mpp": 2.0' in text
    (copy / "manifest.json").write_text(text.replace('"mpp": 2.0', '"mpp": 9.0'))
    with pytest.raises(DiffpathError, match="does not match its digest") as caught:
        open_dataset(copy)
    assert caught.value.code == ExitCode.DAMAGED
