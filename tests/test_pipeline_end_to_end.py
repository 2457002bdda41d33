"""The whole of ``diffpath demo`` in small, and the promises that need its results."""

import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from diffpath_jax import cli, runs, sample, sections, sharding
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.errors import DiffpathError, ExitCode


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
    for part in ("Real beside generated", "Denoising", "confusion", "FD-", "KD-", "floor", "by place", "1,037"):
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
        assert {(r.mpp, r.fov_um) for r in records} == {(real.details["mpp"], real.details["fov_um"])}
        assert samples.details["sampling"]["checkpoint_digest"][:16] == records[0].slide.partition(":")[2]
        for picture in ("grid.png", "film.png") if name == "ddpm" else ("grid.png",):
            assert (samples.directory / "qa" / picture).stat().st_size > 100


def test_metrics_name_features_numbers_and_digests(demo):
    content = json.loads((demo / "evals" / "ddpm" / "metrics.json").read_text())["distances"]
    assert set(content) == {"generated", "floor"}
    found = content["generated"]
    assert found["other"]["digest"] == open_dataset(demo / "samples" / "ddpm").digest
    assert found["features"]["digest"]
    row = found["rows"]["overall"]
    assert row["n_other"] == 8
    assert any(key.startswith("FD-resnet") for key in row)
    assert "fewer images" in row["note"]
    assert not any(key.startswith(("FID", "KID")) for row in found["rows"].values() for key in row)


def test_the_demo_again_does_nothing(demo, capsys):
    stamps = {p: p.stat().st_mtime_ns for p in demo.rglob("*.array_record*")}
    run = runs.open_run(demo / "ddpm")
    job = job_of(demo / "samples" / "ddpm", {"steps": 2, "sampler": "ddpm"})
    assert sample.run_job(job, run, runs.load_parameters(run), mesh(1)).count("train") == 8
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps}


def mesh(count):
    return sharding.make_mesh(jax.devices()[:count])


def job_of(out, sampler, **other):
    settings = {"name": "generated", "num_per_class": 4, "image_px": (32, 32), "batch_size": 32, "seed": 0, **other}
    return sample.SampleJob(out=out, sampler=sections.SamplerConfig(**sampler), **settings)


@pytest.fixture(scope="module")
def trained(demo):
    run = runs.open_run(demo / "ddpm")
    return run, runs.load_parameters(run)


def pixels(dataset):
    return np.stack([r.image for r in dataset.read("train")])


def test_pixels_do_not_depend_on_devices_or_interruption(trained, tmp_path, monkeypatch):
    run, parameters = trained
    options = {"sampler": "ddpm", "steps": 3, "guidance": 0.5}
    job = {"num_per_class": 5, "batch_size": 2}
    one = sample.run_job(job_of(tmp_path / "one", options, **job), run, parameters, mesh(1))
    four = sample.run_job(job_of(tmp_path / "four", options, **job), run, parameters, mesh(4))
    assert one.digest == four.digest
    assert len({image.tobytes() for image in pixels(one)}) == 10

    commit = sample.shards.Staging.commit
    calls = []

    def broken(self, *args):
        calls.append(args[0])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return commit(self, *args)

    monkeypatch.setattr(sample.shards.Staging, "commit", broken)
    with pytest.raises(KeyboardInterrupt):
        sample.run_job(job_of(tmp_path / "two", options, **job), run, parameters, mesh(1))
    assert not (tmp_path / "two" / "manifest.json").exists()
    resumed = sample.run_job(job_of(tmp_path / "two", options, **job), run, parameters, mesh(1))
    assert resumed.digest == one.digest
    # Nothing was drawn twice: 5 batches of 2, one of them begun twice.
    assert len(calls) == 6


def test_another_job_in_the_same_directory_is_refused(trained, demo):
    run, parameters = trained
    with pytest.raises(DiffpathError, match="sampler") as caught:
        sample.run_job(job_of(demo / "samples" / "ddpm", {"sampler": "ddpm", "steps": 3}), run, parameters, mesh(1))
    assert caught.value.code == ExitCode.REFUSED


def test_another_patch_size_keeps_um_per_px(trained, tmp_path):
    run, parameters = trained
    dataset = sample.run_job(
        job_of(tmp_path, {"sampler": "ddim", "steps": 2}, image_px=(48, 48), batch_size=8), run, parameters, mesh(1)
    )
    assert pixels(dataset).shape == (8, 48, 48, 3)
    assert dataset.details["mpp"] == run.mpp
    assert dataset.details["fov_um"] == 48 * run.mpp


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--steps", "1001"], "1000"),
        (["--steps", "0"], "steps"),
        (["--sampler", "euler"], "sampler"),
        (["--guidance", "-1"], "guidance"),
        (["--eta", "2"], "eta"),
        (["--eps_scale", "0"], "eps_scale"),
        (["--patch_px", "33"], "multiple of 4"),
        (["--num_per_class", "0"], "num_per_class"),
    ],
)
def test_bad_sampling_options(demo, tmp_path, capsys, words, why):
    fixed = ["sample", "--workdir", str(demo / "ddpm"), "--out", str(tmp_path / "x")]
    count = [] if "--num_per_class" in words else ["--num_per_class", "1"]
    assert cli.main([*fixed, *count, *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(why, line)
    assert not (tmp_path / "x").exists()


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
