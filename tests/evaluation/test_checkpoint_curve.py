"""``diffpath eval --workdir``: the checkpoints of a run over its training, and which one is called best."""

import csv
import json
import re
import shutil

import cv2
import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.evaluation import checkpoint_curve, checkpoint_page
from diffpath_jax.evaluation.checkpoint_curve import CheckpointRecord, Choice, NoChoice
from diffpath_jax.evaluation.record import (
    Distances,
    EvaluationRecord,
    FeatureSpace,
    ImageSetRecord,
    Number,
    Row,
    SkippedAudit,
)
from diffpath_jax.runs import run as runs
from diffpath_jax.training.checkpoint import Checkpoints
from tests.conftest import TINY_DENOISER, write_run

SAMPLER = ["--sampler", "ddim", "--steps", 2]
NAME = "FD-resnet16"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, dataset):
    """A run with the checkpoints 1, 2 and 3, each of other parameters."""
    workdir = write_run(tmp_path_factory.mktemp("trained") / "ddpm", dataset, TINY_DENOISER)
    run = runs.open_run(workdir)
    params = runs.load_parameters(run).params
    checkpoints = Checkpoints(workdir, keep=3, compatibility_digest=run.compatibility_digest)
    for step in (2, 3):
        moved = {"network": scaled(params, 1 + 0.1 * step)}
        checkpoints.save(step, {"params": moved, "ema": {}, "model_state": {"network": {}}})
    checkpoints.close()
    return workdir


def scaled(tree, factor):
    if isinstance(tree, dict):
        return {name: scaled(value, factor) for name, value in tree.items()}
    return np.asarray(tree) * np.float32(factor)


def words(trained, dataset, resnet_run, out, *more):
    settings = ["--num_per_class", 6, *SAMPLER, "--resamples", 2, "--audit", "none", "--cache", out.parent / "cache"]
    command = ["eval", "--workdir", trained, "--real", dataset, "--features", resnet_run, "--out", out, *settings]
    return [str(word) for word in (*command, *more)]


@pytest.fixture(scope="module")
def measured(tmp_path_factory, trained, dataset, resnet_run):
    out = tmp_path_factory.mktemp("curve") / "out"
    assert cli.main(words(trained, dataset, resnet_run, out, "--checkpoints", "3,1,latest")) == 0
    return out


def fails(capsys, command, code=2):
    assert cli.main(command) == code
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error:"))
    return line


def content(out):
    return json.loads((out / checkpoint_curve.RECORD).read_text())


def test_every_checkpoint_draws_what_the_sample_command_draws(measured, trained, tmp_path):
    command = ["sample", "--workdir", trained, "--out", tmp_path / "set", "--num_per_class", 6, "--checkpoint", 3]
    assert cli.main([str(word) for word in (*command, *SAMPLER)]) == 0
    assert open_dataset(tmp_path / "set").digest == open_dataset(measured / "samples" / "3").digest
    assert [each["samples"] for each in content(measured)["checkpoints"]] == [
        open_dataset(measured / "samples" / str(step)).digest for step in (1, 3)
    ]


def test_numbers_are_those_of_the_plain_command(measured, dataset, resnet_run, tmp_path):
    """Every number, and the floor, as ``--generated`` has them for the same sets."""
    command = [
        "eval",
        "--real",
        dataset,
        "--split",
        "val",
        "--generated",
        measured / "samples" / "3",
        "--audit",
        "none",
    ]
    more = ["--features", resnet_run, "--resamples", 2, "--out", tmp_path, "--cache", measured.parent / "cache"]
    assert cli.main([str(word) for word in (*command, *more)]) == 0
    plain, record = json.loads((tmp_path / "metrics.json").read_text()), content(measured)
    of_last = record["checkpoints"][1]["evaluation"]
    for kind in ("distances", "stain", "nuclei"):
        whole, parts = plain[kind], (of_last[kind], record["floor"][kind])
        if kind == "distances":
            whole, parts = whole[0]["rows"], tuple(part[0]["rows"] for part in parts)
        assert whole == {**parts[0], **parts[1]}
    assert record["floor"]["sets"]["floor"] == plain["sets"]["floor"]


def test_the_best_is_the_lowest_on_validation_images(measured):
    record = content(measured)
    values = {
        each["step"]: each["evaluation"]["distances"][0]["rows"]["generated"]["overall"]["metrics"][NAME]["value"]
        for each in record["checkpoints"]
    }
    assert record["best"]["step"] == min(values, key=values.get)
    assert (record["best"]["metric"], record["best"]["split"]) == (NAME, "val")
    assert record["checkpoints"][0]["evaluation"]["reference"]["split"] == "val"


def test_table_page_and_record_read_back(measured):
    with (measured / checkpoint_curve.TABLE).open() as file:
        lines = list(csv.DictReader(file))
    assert {line["step"] for line in lines} == {"1", "3", "floor"}
    assert {line["set"] for line in lines if line["step"] == "floor"} == {"floor"}
    text = (measured / "index.html").read_text()
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    for part in (f"{NAME} over the training steps", "step 1", "step 3", "real val", "Best: step", "The floor is"):
        assert part in text, part
    assert (measured / "figures" / "resnet16" / f"{NAME}.png").stat().st_size > 1000
    record = checkpoint_curve.read(content(measured))
    assert isinstance(record.best, Choice) and [each.step for each in record.checkpoints] == [1, 3]


def test_a_rerun_draws_only_what_is_missing(measured, trained, dataset, resnet_run, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(measured, out)
    shutil.rmtree(out / "samples" / "3")
    before = {path: path.stat().st_mtime_ns for path in (out / "samples" / "1").rglob("*.array_record*")}
    assert cli.main(words(trained, dataset, resnet_run, out, "--checkpoints", "all")) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}
    again = content(out)
    assert [each["step"] for each in again["checkpoints"]] == [1, 2, 3]
    for new, old in zip(again["checkpoints"][::2], content(measured)["checkpoints"], strict=True):
        assert (new["samples"], new["parameters"]) == (old["samples"], old["parameters"])
        assert new["evaluation"]["distances"] == old["evaluation"]["distances"]


def test_test_images_choose_nothing(measured, trained, dataset, resnet_run, tmp_path):
    shutil.copytree(measured / "samples", tmp_path / "out" / "samples")
    command = words(trained, dataset, resnet_run, tmp_path / "out", "--split", "test", "--checkpoints", "1")
    assert cli.main(command) == 0
    assert "tunes on the images" in content(tmp_path / "out")["best"]["reason"]
    text = (tmp_path / "out" / "index.html").read_text()
    assert "No checkpoint is called best: these numbers are of the test split" in text and "best: step" not in text


def row(value, half):
    return Row(8, 8, {NAME: Number(value, value - half, value + half)}, [])


def checkpoint(step, value, *, half=0.5, split="val"):
    space = FeatureSpace("resnet16", "", "", "none", NAME, "KD-resnet16")
    about = ImageSetRecord("x", split, "real", "", "", 8, (16, 16), None, 0)
    evaluation = EvaluationRecord(
        versions={},
        seed=0,
        resamples=2,
        reference=about,
        sets={"generated": about},
        distances=[Distances(space, {"generated": {"overall": row(value, half)}})],
        classification=[],
        audit=SkippedAudit("x"),
    )
    return CheckpointRecord(step, "", "", evaluation)


def test_of_equal_checkpoints_the_earliest_is_best_and_those_that_overlap_are_named():
    found = checkpoint_curve.choose(
        [checkpoint(30, 2.0), checkpoint(10, 2.0), checkpoint(20, 9.0), checkpoint(40, 2.9)]
    )
    assert (found.step, found.not_apart) == (10, (30, 40))


@pytest.mark.parametrize(("split", "why"), [("train", "copies it best"), ("test", "tunes"), ("", "nothing says")])
def test_other_splits_choose_nothing(split, why):
    found = checkpoint_curve.choose([checkpoint(1, 1.0, split=split)])
    assert isinstance(found, NoChoice) and why in found.reason


def test_a_number_without_an_interval_has_a_curve_all_the_same():
    single = checkpoint(1, 1.0).evaluation.distances[0]
    bare = Distances(single.features, {"generated": {"overall": Row(8, 8, {NAME: Number(1.0)}, [])}})
    metric = next(iter(checkpoint_page.headlines(single.features).values()))
    assert checkpoint_page.draw_curve({1: bare}, NAME, metric, NoChoice("x")).picture[:4] == b"\x89PNG"
    assert checkpoint_page.draw_curve({1: bare}, "KD-resnet16", metric, NoChoice("x")) is None


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (["--checkpoints", "7"], "not there; there are 1, 2, 3; fix: choose one of those"),
        (["--checkpoints", "soon"], "'soon' is no step"),
        (["--checkpoints", ","], "it names none"),
        (["--checkpoints", "best"], "train with train.keep_best"),
        (["--generated", "x"], "--workdir draws what is measured"),
        (["--split", "validation"], "use one of ['train', 'val', 'test']"),
        (["--num_per_class", "0"], "'0' is not from 1"),
        (["--num_per_class", "grey=2"], "unknown class 'grey'"),
        (["--eta", "2"], "key 'eta'"),
        (["--batch_size", "0"], "--batch_size"),
    ],
)
def test_what_cannot_be_measured_is_one_line_and_leaves_nothing(
    capsys, tmp_path, trained, dataset, resnet_run, more, what
):
    assert what in fails(capsys, words(trained, dataset, resnet_run, tmp_path / "out", *more))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("left_out", "what"),
    [
        ("--num_per_class", "say how many images checkpoints draw"),
        ("--features", "name what the checkpoints are measured in"),
        ("--workdir", "error: --num_per_class in the command line: it is of checkpoints"),
    ],
)
def test_options_that_need_each_other(capsys, tmp_path, trained, dataset, resnet_run, left_out, what):
    command = words(trained, dataset, resnet_run, tmp_path / "out")
    place = command.index(left_out)
    assert what in fails(capsys, command[:place] + command[place + 2 :])


def test_real_images_of_other_classes_are_refused_before_anything_is_drawn(
    capsys, tmp_path, trained, dataset, resnet_run
):
    (tmp_path / "real" / "grey").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "real" / "grey" / "0.png"), np.zeros((16, 16, 3), np.uint8))
    command = words(trained, tmp_path / "real", resnet_run, tmp_path / "out")
    assert "['pink', 'purple'] are not among those of" in fails(capsys, command)
    assert not (tmp_path / "out").exists()


def test_a_classifier_draws_nothing(capsys, tmp_path, dataset, resnet_run):
    line = fails(capsys, words(resnet_run, dataset, resnet_run, tmp_path / "out"))
    assert "not a diffusion model" in line


def test_a_damaged_checkpoint_is_left_out_of_all_and_refused_by_name(capsys, tmp_path, trained):
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    victim = next(path for path in (copy / "checkpoints" / "2").rglob("*") if path.is_file())
    victim.write_bytes(victim.read_bytes() + b"x")
    run = runs.open_run(copy)
    assert runs.find_steps(run, ["all"]) == [1, 3]
    assert "checkpoint 2" in capsys.readouterr().err
    with pytest.raises(Exception, match="does not match its digest"):
        runs.find_steps(run, [2])
