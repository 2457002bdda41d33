"""Classifiers under the names of their directories: in the console, the table, the page and the record."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from diffpath_jax import cli
from diffpath_jax.evaluation import record
from diffpath_jax.io.path_names import short_names
from diffpath_jax.io.sealed import SEAL
from diffpath_jax.runs import run as runs


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/resnet"], ["resnet"]),
        (["a/resnet", "b/resnet", "b/other"], ["a/resnet", "b/resnet", "other"]),
        (["/x/a/r", "/y/a/r", "/r"], ["x/a/r", "y/a/r", "/r"]),
        (["a/r", "a/../a/r"], ["r", "r"]),
        (["/a/r", "/b/a/r"], ["/a/r", "b/a/r"]),
    ],
)
def test_the_shortest_end_that_no_other_has(tmp_path, monkeypatch, paths, names):
    monkeypatch.chdir(tmp_path)
    assert short_names([Path(path) for path in paths]) == names


def test_classifiers_are_called_as_their_user_calls_them(capsys, tmp_path, dataset, resnet_run):
    first, second = (tmp_path / name / "resnet" for name in ("real", "both"))
    for path in (first, second):
        shutil.copytree(resnet_run, path)
    words = ["eval", "--real", dataset, "--classifier", first, second, "--out", tmp_path / "out", "--resamples", 0]
    assert cli.main([str(word) for word in words]) == 0
    digest = runs.open_run(first).digest
    console = capsys.readouterr().err
    page = (tmp_path / "out" / "index.html").read_text()
    rows = list(csv.DictReader((tmp_path / "out" / "per_class.csv").open()))
    entries = json.loads((tmp_path / "out" / "metrics.json").read_text())["classification"]
    assert [entry["classifier"]["name"] for entry in entries] == ["real/resnet", "both/resnet"]
    for entry in entries:
        name = entry["classifier"]["name"]
        assert f"classifier {name} ({digest[:12]})" in console and f"classifier {name} ({digest[:12]})" in page
        (row,) = (row for row in rows if row["features"] == f"classifier {name}" and row["metric"] == "accuracy")
        assert (row["digest"], float(row["value"]), row["n_other"]) == (digest, entry["accuracy"], "88")
    # One slide, cut into bands: that is said wherever numbers are.
    doubt = "its test and train splits are parts of the same slide"
    assert doubt in console.replace("\n", " ") and doubt in page
    assert doubt in json.loads((tmp_path / "out" / "metrics.json").read_text())["warnings"][0]


def test_records_of_earlier_versions_have_no_names():
    old = {"parameters": "p", "step": 1, "training_data": (), "run": "0123456789abcdef"}
    assert record.ClassifierRecord(**old).title == "0123456789ab"


def test_a_report_keeps_two_classifiers_of_one_name_apart(tmp_path, dataset, denoiser_run, resnet_run):
    first, second = (tmp_path / name / "resnet" for name in ("real", "both"))
    for path in (first, second):
        shutil.copytree(resnet_run, path)
    config = json.loads((second / "config.json").read_text())
    config["config"]["seed"] = 7
    del config[SEAL]
    (second / "config.json").write_text(json.dumps(config))
    words = ["eval", "--real", dataset, "--classifier", first, second, "--out", tmp_path / "out", "--resamples", 0]
    assert cli.main([str(word) for word in words]) == 0
    for path in (denoiser_run, first, second):
        shutil.copytree(path, tmp_path / "runs" / path.parent.name / path.name)
        (tmp_path / "runs" / path.parent.name / path.name / "metrics.jsonl").touch()
    runs_of = [tmp_path / "runs" / path.parent.name / path.name for path in (denoiser_run, first, second)]
    report = ["report", "--dataset", dataset, "--workdir", runs_of[0], "--classifiers", *runs_of[1:]]
    report += ["--evals", tmp_path / "out", "--out", tmp_path / "report.html"]
    assert cli.main([str(word) for word in report]) == 0
    page = (tmp_path / "report.html").read_text()
    for path in runs_of[1:]:
        digest = runs.open_run(path).digest[:12]
        assert f'trained on {path.parent.name}/resnet <span class="soft">{digest}</span>' in page
    assert "Warning: numbers of the test split" in page
