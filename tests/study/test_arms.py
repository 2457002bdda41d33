"""Arms of a study through the command: scores and differences with intervals, and every reason to doubt them."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.evaluation import image_sets
from diffpath_jax.evaluation.feature_cache import FeatureStore
from diffpath_jax.io.errors import ExitCode
from diffpath_jax.metrics import paired
from diffpath_jax.metrics.classification import SCORES
from diffpath_jax.study import arms
from tests.conftest import TINY_RESNET, write_run

SEEDS = (0, 1, 2)
# Networks need no features.
STORE = FeatureStore(Path("nowhere"))


def data(train, **more):
    return {"train": train, "batch_size": 8, "augment": "none", "workers": 0, **more}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, dataset, samples):
    """Runs of an arm of real images and of one of generated images alone, three seeds each."""
    directory = tmp_path_factory.mktemp("arms")
    kinds = {"real": data(str(dataset)), "generated": data(f"{dataset},{samples}", mixture=(0.0, 0.06))}
    return {
        name: [write_run(directory / f"{name}-{s}", dataset, TINY_RESNET, seed=s, data=section) for s in SEEDS]
        for name, section in kinds.items()
    }


def compare(out, dataset, *words):
    return cli.main(["compare", "--test", str(dataset), "--out", str(out), "--resamples", "50", *words])


def arm(name, paths):
    return ["--arm", f"{name}={','.join(map(str, paths))}"]


def test_the_command_writes_every_score_and_difference(tmp_path, dataset, trained, capsys):
    words = [*arm("real", trained["real"]), *arm("generated", reversed(trained["generated"]))]
    assert compare(tmp_path / "out", dataset, *words) == 0
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [one["name"] for one in content["arms"]] == ["real", "generated"]
    assert [run["seed"] for run in content["arms"][1]["runs"]] == list(SEEDS)
    confusion = np.array(content["arms"][0]["confusion"])
    assert confusion.sum() == len(SEEDS) * open_dataset(dataset).count("test")
    assert content["arms"][0]["scores"]["accuracy"]["value"] == pytest.approx(np.trace(confusion) / confusion.sum())
    (difference,) = content["differences"]
    assert (difference["arm"], difference["from"]) == ("generated", "real")
    # The runs have the same parameters: what they differ in is not what they say.
    assert all(found["value"] == 0 for found in difference["scores"].values())
    rows = list(csv.DictReader((tmp_path / "out" / "comparison.csv").open()))
    assert len(rows) == 3 * len(SCORES)
    assert {row["less"] for row in rows} == {"", "real"}
    # One slide: all images are of one patient, in training and test alike.
    said = capsys.readouterr().err
    assert "fewer than 8 test patients: no intervals" in said
    assert "arm 'real': 1 test patients, with 100% of the test images, were trained on" in said
    # What the generated images were learnt from is the real data set, which the other arm names.
    assert "arm 'generated': 1 test patients, with 100% of the test images" in said


@pytest.fixture
def images(dataset):
    """The test images, as if of twelve patients that nobody was trained on."""
    found = image_sets.from_dataset(open_dataset(dataset), "test")
    return dataclasses.replace(found, patients=tuple(f"p{index % 12}" for index in range(len(found))))


def answers(name, paths, images, chance, seed):
    """An arm whose classifiers are right with a probability."""
    rng = np.random.default_rng(seed)
    right = rng.random((len(SEEDS), len(images))) < chance
    told = np.where(right, images.labels, 1 - images.labels)
    return arms.Tested(arms.open_arm(name, paths, STORE), np.eye(2)[told], (1,) * len(SEEDS))


def test_a_split_of_one_class_has_every_score_but_the_one_that_needs_two(trained, images):
    of_one = images.subset(images.of_class(images.classes[0]))
    real = answers("real", trained["real"], of_one, 0.7, 0)
    content = arms.comparison(
        [real, answers("both", trained["generated"], of_one, 0.9, 1)], of_one, seed=0, resamples=20
    )
    assert set(content["arms"][0]["scores"]) == set(SCORES) - {"macro_auroc"}
    assert content["arms"][0]["recall"][images.classes[1]] is None
    assert json.dumps(content, allow_nan=False)


def test_differences_are_those_of_the_paired_statistics(trained, images):
    real = answers("real", trained["real"], images, 0.7, 0)
    better = answers("both", trained["generated"], images, 0.95, 1)
    content = arms.comparison([real, better], images, seed=3, resamples=60)
    found = content["differences"][0]["scores"]["macro_f1"]
    how = {"patients": images.patients, "seed": 3, "resamples": 60}
    ours, theirs = (
        paired.replicates(SCORES["macro_f1"].of_owners, images.labels, arm.logits, **how) for arm in (better, real)
    )
    assert found == dataclasses.asdict((ours - theirs).interval)
    assert 0 < found["low"] < found["value"] < found["high"]
    shares = content["arms"][0]["recall"]
    told = (real.logits.argmax(axis=-1) == images.labels).mean(axis=0)
    assert shares == pytest.approx({name: told[images.of_class(name)].mean() for name in images.classes})
    assert not content["warnings"]


def test_a_planted_leak_and_unequal_training_are_reported(tmp_path, dataset, trained, images):
    patient = next(open_dataset(dataset).read("train")).patient
    planted = dataclasses.replace(images, patients=(patient, *images.patients[1:]))
    other = [
        write_run(
            tmp_path / f"{s}", dataset, TINY_RESNET, seed=s, data=data(str(dataset)), optim={"learning_rate": 1e-2}
        )
        for s in SEEDS
    ]
    found = [answers(name, paths, planted, 0.8, 0) for name, paths in (("real", trained["real"]), ("other", other))]
    warnings = arms.comparison(found, planted, seed=0, resamples=2)["warnings"]
    assert any("'real': 1 test patients, with 1% of the test images" in warning for warning in warnings)
    assert any("was not trained like 'real': optim.learning_rate differ" in warning for warning in warnings)


def test_what_is_behind_generated_images_must_be_known(trained, images, samples, dataset, tmp_path):
    alone = [write_run(tmp_path / f"{s}", samples, TINY_RESNET, seed=s, data=data(str(samples))) for s in SEEDS]
    warnings = arms.comparison([answers("alone", alone, images, 0.8, 0)], images, seed=0, resamples=2)["warnings"]
    assert len(warnings) == 1 and "its model was trained on a data set that no arm names" in warnings[0]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (lambda runs: arm("a", runs["real"]) + arm("b", runs["real"][:2]), "train both with the same seeds"),
        (lambda runs: arm("a", runs["real"]) + arm("a", runs["generated"]), "two arms have one name"),
        (lambda runs: arm("a", [runs["real"][0], runs["generated"][0]]), "a seed of its own"),
        (lambda runs: ["--arm", "a"], "is not NAME=RUN"),
    ],
)
def test_arms_that_cannot_be_compared(tmp_path, dataset, trained, capsys, words, why):
    assert compare(tmp_path / "out", dataset, *words(trained)) == ExitCode.BAD_INPUT
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ") and why in said and "\n" not in said
    assert not (tmp_path / "out").exists()


def test_a_denoiser_is_no_classifier(tmp_path, dataset, denoiser_run, capsys):
    assert compare(tmp_path / "out", dataset, *arm("a", [denoiser_run])) == ExitCode.BAD_INPUT
    assert "not a classifier" in capsys.readouterr().err
