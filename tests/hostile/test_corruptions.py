"""Changed bytes in every kind of file that the project writes: named with exit code 5 (or 2 where a file is gone), or
proven harmless by equal results."""

import dataclasses
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from data_prep.sources import digests
from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset, read_shard
from diffpath_jax.data.staging import Staging
from diffpath_jax.evaluation import record
from diffpath_jax.evaluation.feature_cache import FeatureStore
from diffpath_jax.evaluation.features import onnx
from diffpath_jax.evaluation.features.open import open_extractor
from diffpath_jax.evaluation.image_sets import open_set
from diffpath_jax.evaluation.membership_record import MEMBERSHIP
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.sealed import write_sealed
from diffpath_jax.reader import key, page
from diffpath_jax.reader.record import READER
from diffpath_jax.runs import run as runs
from diffpath_jax.sampling import stepwise, sweep
from diffpath_jax.study import probe, runner
from diffpath_jax.study.results import COMPARISON, Results
from diffpath_jax.study.step import Step
from diffpath_jax.training.metrics_log import METRICS
from diffpath_jax.weights import safetensors_file
from tests.reader.folders import answer

# What no result of the project is read from: pages, pictures, TFDS' own descriptions, logs, locks.
NOT_READ = (".lock", ".html", ".png", ".csv", "README.md", "dataset_info.json", "features.json", METRICS)
# Without them there are others: users may leave them out.
OPTIONAL = ("encoder.json",)
# Random changes of each kind of file: in the plain suite and in the full one.
FEW, MANY = 6, 150
GOLDEN = Path(__file__).parents[1] / "golden"


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


def of_probe(directory: Path) -> object:
    linear, about = probe.read(directory)
    return [array.tobytes() for array in dataclasses.astuple(linear)], about


def of_step(file: str) -> Callable[[Path], object]:
    """What a study takes from a file of a step."""
    return lambda directory: Results(directory.parent).json(Step(directory.name, (), directory), file)


def of_study(directory: Path) -> object:
    """Which steps are done; a step whose results were changed is run again."""
    out = directory / "probes" / "a"

    def call(words: Sequence[str]) -> int:
        write_sealed(out / probe.RECORD, {"words": list(words), "penalty": 0.25})
        return 0

    needed = Step("probes/a", ("probe", "--out", "a"), out)
    made = runner.run([needed, Step("again", ("probe",), out, (needed,))], directory, call, lambda line: None)
    return {name: dataclasses.replace(done, seconds=0.0) for name, done in made.done.items()}, made.failed


def of_unfinished(directory: Path) -> object:
    """All units of a job that goes on where it stopped; what is not as it was is made again."""
    staging = Staging(directory, {"seed": 3, "mpp": 0.5})
    records = {name: [bytes([i + number]) * 40 for i in range(3)] for number, name in enumerate(("a", "b", "c"))}
    units = [staging.find(name) or staging.commit(name, items, {"mpp": 0.25}) for name, items in records.items()]
    return [(staging.describe(unit.name), list(staging.read(unit))) for unit in units]


def of_sweep(directory: Path) -> object:
    """A sweep that is run again takes from the last one how long each point took."""
    if not (directory / sweep.SUMMARY).exists():
        write_sealed(
            directory / sweep.SUMMARY, {"points": {"steps-4": {"seconds": 12.5}, "steps-8": {"seconds": 25.0}}}
        )
    return sweep.recorded(directory)


def of_digests(directory: Path) -> object:
    """Digests of slides that were not changed since; whoever changes the slide itself changes its stamp."""
    return digests.sha256_remembered([GOLDEN / "encoder.onnx"], directory)


def of_field(directory: Path) -> object:
    """What a large field has become, or what it becomes from the start."""
    rng, numbers = np.random.default_rng(0), np.arange(2)
    arrays = tuple(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, 4, 4, 3), (2, 5)))
    kept = stepwise.read_state(directory / "steps.npz", numbers)
    if kept is None:
        stepwise.write_state(directory / "steps.npz", numbers, 3, arrays)
        kept = 3, arrays
    return kept[0], [np.asarray(array).tobytes() for array in kept[1]]


def of_encoder(directory: Path) -> object:
    """What the file beside an exported encoder says of its images."""
    extractor = onnx.onnx_features(directory / "encoder.onnx")
    return extractor.name, extractor.description


def changed(data: bytes, rng: random.Random) -> bytes | None:
    """A flipped bit, another digit, a zeroed block, a truncation, or (none) no file at all."""
    kinds = ("flip", "flip", "flip", "digit", "digit", "zero", "truncate", "delete")
    kind, place = rng.choice(kinds), rng.randrange(max(len(data), 1))
    if kind == "delete":
        return None
    if kind == "digit" and (places := [place for place, byte in enumerate(data) if chr(byte) in "0123456789"]):
        place = rng.choice(places)
        return data[:place] + b"%d" % ((data[place] - ord("0") + rng.randrange(1, 10)) % 10) + data[place + 1 :]
    if kind == "truncate":
        return data[:place]
    if kind == "zero":
        return data[:place] + bytes(min(64, len(data) - place)) + data[place + 64 :]
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :] if data else b"\0"


COMMANDS = {
    "latents": "encode --data {dataset} --first_stage {autoencoder_run} --out {out}",
    "evaluation": "eval --real {dataset} --generated {samples} --resamples 2 --cache {cache} --out {out}",
    "reader": "reader make --real {dataset} --generated {samples} --images 4 --readers 1 --out {out}",
    "export": "export --workdir {denoiser_run} --out {out}/x.safetensors",
    "probe": "probe --features {resnet_run} --data {dataset} --cache {cache} --out {out}",
    "comparison": "compare --test {dataset} --arm a={resnet_run} --arm b={resnet_run} --resamples 5 --out {out}",
    "membership": "membership --workdir {denoiser_run} --data {dataset} --draws 1 --cache {cache} --out {out}",
    "scores": "reader score {reader} {answers} --resamples 5 --out {out}",
}
READERS: dict[str, Callable[[Path], object]] = {
    "dataset": of_dataset,
    "samples": of_dataset,
    "latents": of_dataset,
    "run": of_run,
    "evaluation": lambda path: record.read(path / record.METRICS),
    "reader": of_reader_study,
    "export": of_export,
    "probe": of_probe,
    "comparison": of_step(COMPARISON),
    "membership": of_step(MEMBERSHIP),
    "scores": of_step(READER),
    "encoder": of_encoder,
    # These write what is not there themselves.
    "study": of_study,
    "unfinished": of_unfinished,
    "sweep": of_sweep,
    "digests": of_digests,
    "field": of_field,
}
# They take long to write.
SLOW = {"comparison", "membership"}
# Damage to them is no error: the work is done again.
HEALED = {"field"}


@pytest.fixture(scope="module")
def written(tmp_path_factory, dataset, samples, denoiser_run, resnet_run, autoencoder_run) -> Callable[[str], Path]:
    """A directory of each kind, written by the commands themselves when it is first asked for."""
    folder = tmp_path_factory.mktemp("written")
    there = {"dataset": dataset, "samples": samples, "run": denoiser_run}
    named = {"denoiser_run": denoiser_run, "resnet_run": resnet_run, "autoencoder_run": autoencoder_run}
    named |= {"cache": folder / "cache", "answers": folder / "answers.csv"}

    def write(kind: str) -> Path:
        if kind in there:
            return there[kind]
        if kind == "scores":
            answer(named["answers"], key.read(write("reader")), 1)
        there[kind] = folder / kind
        if kind in COMMANDS:
            words = (word.format(**named, **there, out=there[kind]) for word in COMMANDS[kind].split())
            assert cli.main(list(words)) == 0
        elif kind == "encoder":
            there[kind].mkdir()
            shutil.copy(GOLDEN / "encoder.onnx", there[kind])
            said = {"name": "encoder", "size": 16, "mean": (0.5, 0.25, 0.125), "std": (0.5, 0.25, 1.0)}
            said[onnx.DIGESTS] = onnx.digests_of(there[kind] / "encoder.onnx")
            write_sealed(there[kind] / "encoder.json", said)
        else:
            there[kind].mkdir()
            READERS[kind](there[kind])
        return there[kind]

    return write


def check(directory: Path, read: Callable[[Path], object], whole: object, rng: random.Random) -> bool:
    """One change; true where it was named."""
    files = sorted(p for p in directory.rglob("*") if p.is_file() and not p.name.endswith(NOT_READ))
    path = rng.choice(files)
    before = path.read_bytes()
    after = changed(before, rng)
    if after is None and path.name in OPTIONAL:
        return False
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


CASES = [
    *((kind, FEW) for kind in READERS if kind not in SLOW),
    *(pytest.param(kind, MANY, marks=pytest.mark.full) for kind in READERS),
]


@pytest.mark.parametrize(("kind", "count"), CASES)
def test_named_or_harmless(written, tmp_path, kind, count):
    directory = shutil.copytree(written(kind), tmp_path / kind)
    rng, read = random.Random(f"{kind} {count}"), READERS[kind]
    whole = read(directory)
    named = sum(check(directory, read, whole, rng) for _ in range(count))
    assert named == 0 if kind in HEALED else named >= count // 4, "the check could not fail"


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
