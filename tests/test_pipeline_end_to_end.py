"""The whole of ``diffpath demo`` in small, and the promises that need its results."""

import json
import os
import re
import subprocess
import sys

import pytest

from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset


@pytest.fixture(scope="module")
def demo(tmp_path_factory, slide, annotated):
    out = tmp_path_factory.mktemp("demo") / "out"
    words = ["demo", "--debug", "--slide", str(slide), "--annotations", str(annotated), "--out", str(out)]
    command = [sys.executable, "-m", "diffpath_jax.cli", *words]
    done = subprocess.run(command, env={**os.environ, "XLA_FLAGS": ""}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def test_the_report_is_one_file_with_everything(demo):
    text = (demo / "report.html").read_text()
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    for part in (
        "Real beside generated",
        "Denoising",
        "confusion",
        "FD-",
        "KD-",
        "floor",
        "by place",
        "1,037",
        "audit of ddpm",
        "audit of ddim",
    ):
        assert part.lower() in text.lower(), part
    for name in ("ddpm", "ddim", "ddpm_eps_1.014", "trained on real", "trained on generated", "trained on both"):
        assert name in text, name
    # What is not measured in the FID Inception network is not called FID.
    assert "not FID" in text
    assert not re.search(r"<t[dh][^>]*>\s*(FID|KID)\b", text)


def test_generated_sets_are_data_sets_like_real_ones(demo):
    real = open_dataset(demo / "dataset")
    for name in ("ddpm", "ddim", "ddpm_eps_1.014"):
        samples = open_dataset(demo / "samples" / name)
        assert samples.schema == real.schema
        assert samples.class_counts["train"] == {"pink": 4, "purple": 4}
        records = list(samples.read("train"))
        assert [r.index for r in records] == list(range(8))
        assert {(r.mpp, r.fov_um) for r in records} == {(real.details.mpp, real.details.fov_um)}
        assert samples.details.sampling["checkpoint_digest"][:16] == records[0].slide.partition(":")[2]
        for picture in ("grid.png", "trajectory.png") if name == "ddpm" else ("grid.png",):
            assert (samples.directory / "qa" / picture).stat().st_size > 100


def test_metrics_name_features_numbers_and_digests(demo):
    content = json.loads((demo / "evals" / "ddpm" / "metrics.json").read_text())
    assert set(content["sets"]) == {"generated", "floor"}
    assert content["sets"]["generated"]["dataset"] == open_dataset(demo / "samples" / "ddpm").digest
    (distances,) = content["distances"]
    assert distances["features"]["digest"]
    row = distances["rows"]["generated"]["overall"]
    assert row["n_other"] == 8
    assert any(key.startswith("FD-resnet") for key in row["metrics"])
    assert any("fewer images" in note for note in row["notes"])
    rows = [row for found in distances["rows"].values() for row in found.values()]
    assert not any(key.startswith(("FID", "KID")) for row in rows for key in row["metrics"])
    assert "verdict" in content["audit"]["copies"]


def test_the_demo_again_does_nothing(demo, capsys):
    stamps = {p: p.stat().st_mtime_ns for p in demo.rglob("*.array_record*")}
    words = ["sample", "--workdir", demo / "ddpm", "--out", demo / "samples" / "ddpm", "--num_per_class", 4]
    assert cli.main([str(w) for w in (*words, "--batch_size", 32, "--sampler", "ddpm", "--steps", 2)]) == 0
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps}


def test_a_resume_with_other_settings_names_the_keys(demo, tmp_path, capsys):
    fixed = ["train", "--config", "configs/demo_ddpm.py:debug", "--workdir", str(demo / "ddpm")]
    data = f"--config.data.train={demo / 'dataset'}"
    assert cli.main([*fixed, data, "--config.optim.learning_rate=0.5", "--config.data.batch_size=16"]) == 4
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "optim.learning_rate" in line
    assert "data.batch_size" in line
    other = f"--config.data.train={demo / 'samples' / 'ddpm'}"
    assert cli.main([*fixed, other]) == 4
    assert "data" in capsys.readouterr().err
