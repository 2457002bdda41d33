"""The whole of ``diffpath demo`` in small, and the promises that need its results."""

import json
import re
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.runs import run as runs
from tests.conftest import ALONE

DATA, MODEL, SETS, EVALS = "fov_48/dataset", "fov_48/ddpm/model", "fov_48/ddpm/samples", "fov_48/evals"
SAMPLERS = ("ddpm", "ddim", "eps_scaling")


@pytest.fixture(scope="module")
def demo(tmp_path_factory, slide, annotated):
    out = tmp_path_factory.mktemp("demo") / "out"
    words = ["demo", "--debug", "--slide", str(slide), "--annotations", str(annotated), "--out", str(out)]
    command = [sys.executable, "-m", "diffpath_jax.cli", *words]
    done = subprocess.run(command, env=ALONE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def test_the_report_is_one_file_with_everything(demo):
    text = (demo / "reports" / "fov_48_ddpm.html").read_text()
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
    for name in (*SAMPLERS, "trained on real", "trained on ddpm_generated", "trained on ddpm_both"):
        assert name in text, name
    # What is not measured in the FID Inception network is not called FID.
    assert "not FID" in text
    assert not re.search(r"<t[dh][^>]*>\s*(FID|KID)\b", text)


def test_generated_sets_are_data_sets_like_real_ones(demo):
    real = open_dataset(demo / DATA)
    for name in SAMPLERS:
        samples = open_dataset(demo / SETS / name)
        assert samples.schema == real.schema
        assert samples.class_counts["train"] == {"pink": 4, "purple": 4}
        records = list(samples.read("train"))
        assert [r.index for r in records] == list(range(8))
        assert {(r.mpp, r.fov_um) for r in records} == {(real.details.mpp, real.details.fov_um)}
        assert samples.details.sampling["checkpoint_digest"][:16] == records[0].slide.partition(":")[2]
        for picture in ("grid.png", "trajectory.png") if name == "ddpm" else ("grid.png",):
            assert (samples.directory / "qa" / picture).stat().st_size > 100


def test_metrics_name_features_numbers_and_digests(demo):
    content = json.loads((demo / EVALS / "ddpm" / "ddpm" / "metrics.json").read_text())
    assert set(content["sets"]) == {"generated", "floor"}
    assert content["sets"]["generated"]["dataset"] == open_dataset(demo / SETS / "ddpm").digest
    (distances,) = content["distances"]
    assert distances["features"]["digest"]
    row = distances["rows"]["generated"]["overall"]
    assert row["n_other"] == 8
    assert any(key.startswith("FD-resnet") for key in row["metrics"])
    assert any("fewer images" in note for note in row["notes"])
    rows = [row for found in distances["rows"].values() for row in found.values()]
    assert not any(key.startswith(("FID", "KID")) for row in rows for key in row["metrics"])
    assert "verdict" in content["audit"]["copies"]


def test_every_number_of_the_study_stands_where_it_says(demo):
    numbers = json.loads((demo / "study.json").read_text())["tables"]
    checked = 0
    for cell in (cell for table in numbers.values() for cell in table):
        name, _, pointer = cell["source"].partition("#")
        if not pointer:
            assert cell["source"].startswith("the paper")
            continue
        content = json.loads((demo / name).read_text())
        for part in pointer.split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            content = content[int(part)] if isinstance(content, list) else content[part]
        assert content == pytest.approx(cell["value"], rel=1e-12) or cell["column"] == "field, um"
        checked += 1
    assert checked > 50


def test_numbers_of_the_study_from_the_images_themselves(demo):
    """Frechet distances and shares of labels again, by other code, from the images that the study left."""
    numbers = json.loads((demo / "study.json").read_text())["tables"]
    real, run = open_dataset(demo / DATA), runs.open_run(demo / "fov_48/classifiers/real")
    trained = runs.load_parameters(run)

    def seen(dataset, split):
        records = list(dataset.read(split))
        images = np.stack([record.image for record in records]).astype(np.float32) / 127.5 - 1
        (logits, pooled), _ = run.network.apply(trained.params, trained.model_state, jnp.asarray(images), train=False)
        return np.array([record.label for record in records]), np.asarray(logits), np.asarray(pooled, np.float64)

    _, _, reference = seen(real, "test")
    for sampler, title in (("ddpm", "DDPM"), ("ddim", "DDIM"), ("eps_scaling", "epsilon scaling 1.014")):
        labels, logits, pooled = seen(open_dataset(demo / SETS / sampler), "train")
        means = [each.mean(axis=0) for each in (reference, pooled)]
        a, b = (np.cov(each, rowvar=False) for each in (reference, pooled))
        root = np.trace(scipy.linalg.sqrtm(a @ b).real)
        distance = np.sum((means[0] - means[1]) ** 2) + np.trace(a) + np.trace(b) - 2 * root
        (table,) = [cells for key, cells in numbers.items() if key.startswith("T3_")]
        (cell,) = [c for c in table if c["row"].endswith(f", DDPM, {title}") and c["column"].startswith("FD-")]
        assert cell["value"] == pytest.approx(distance, rel=1e-3)
        (cell,) = [c for c in numbers["Q_labels"] if c["row"].endswith(f", DDPM, {title}")]
        assert cell["value"] == pytest.approx(np.mean(logits.argmax(axis=1) == labels))


def test_the_page_is_one_file_and_answers_first(demo):
    text = (demo / "study.html").read_text()
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert text.index("Worth") < text.index("Safe") < text.index("Real") < text.index("<h2")
    for row in ("F1", "F4", "F6", "T3", "Q", "R"):
        assert f'id="{row}"' in text
    assert (demo / "tables" / "Q_labels.csv").exists() and (demo / "tables" / "Q_labels.tex").exists()


def test_the_demo_again_does_nothing(demo, capsys):
    stamps = {p: p.stat().st_mtime_ns for p in demo.rglob("*.array_record*")}
    words = ["sample", "--workdir", demo / MODEL, "--out", demo / SETS / "ddpm", "--num_per_class", 4]
    assert cli.main([str(w) for w in (*words, "--sampler", "ddpm", "--steps", 2)]) == 0
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps}


def test_a_resume_with_other_settings_names_the_keys(demo, tmp_path, capsys):
    fixed = ["train", "--config", "configs/demo_ddpm.py:debug", "--workdir", str(demo / MODEL)]
    data = f"--config.data.train={demo / DATA}"
    assert cli.main([*fixed, data, "--config.optim.learning_rate=0.5", "--config.data.batch_size=16"]) == 4
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "optim.learning_rate" in line
    assert "data.batch_size" in line
    other = f"--config.data.train={demo / SETS / 'ddpm'}"
    assert cli.main([*fixed, other]) == 4
    assert "data" in capsys.readouterr().err
