"""Sampling jobs: what is drawn depends on nothing but the job, and what cannot be drawn is said in one line."""

import dataclasses
import itertools
import json
import re
import shutil
from pathlib import Path

import cv2
import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from diffpath_jax import cli
from diffpath_jax.config import sampling as samplers
from diffpath_jax.config import sections
from diffpath_jax.data import staging
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.devices import sharding
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.sealed import SEAL
from diffpath_jax.runs import run as runs
from diffpath_jax.sampling import field, likes, references, starts, sweep
from diffpath_jax.sampling import job as sampling_job
from diffpath_jax.sampling.draw import Model

CLASSES = ({"label": 0}, {"label": 1})


@pytest.fixture(scope="module")
def model(denoiser_run):
    run = runs.open_run(denoiser_run)
    return Model(run, runs.load_parameters(run))


def mesh(count):
    return sharding.make_mesh(jax.devices()[:count])


def job_of(out, sampler, **other):
    settings = {
        "name": "drawn",
        "conditions": CLASSES,
        "counts": (5, 5),
        "image_px": (16, 16),
        "batch_size": 2,
        "seed": 0,
        **other,
    }
    return sampling_job.SampleJob(out=out, sampler=sections.SamplerConfig(**sampler), **settings)


def drawn(path):
    """Images by index."""
    return {record.index: record.image for record in open_dataset(path).read("train")}


SAMPLERS = {
    "ddpm": {"sampler": "ddpm", "steps": 3, "guidance": 0.5},
    "unipc": {
        "sampler": "unipc",
        "steps": 3,
        "guidance": 2.0,
        "guidance_from": 0.3,
        "guidance_to": 0.8,
        "thresholding": "dynamic",
    },
}


@pytest.mark.parametrize(
    ("name", "numbers"), [("ddpm", (1, 2)), pytest.param("unipc", (1, 2, 4), marks=pytest.mark.full)]
)
def test_pixels_do_not_depend_on_the_number_of_devices(model, tmp_path, name, numbers):
    digests = {
        n: sampling_job.run_job(job_of(tmp_path / str(n), SAMPLERS[name]), model, mesh(n)).digest for n in numbers
    }
    assert len(set(digests.values())) == 1
    images = drawn(tmp_path / "1")
    assert sorted(images) == list(range(10))
    assert len({image.tobytes() for image in images.values()}) == 10


def test_an_interrupted_job_goes_on(model, tmp_path, monkeypatch):
    whole = sampling_job.run_job(job_of(tmp_path / "whole", SAMPLERS["ddpm"]), model, mesh(1))
    commit, calls = sampling_job.Staging.commit, []

    def broken(self, *args):
        calls.append(args[0])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return commit(self, *args)

    monkeypatch.setattr(sampling_job.Staging, "commit", broken)
    with pytest.raises(KeyboardInterrupt):
        sampling_job.run_job(job_of(tmp_path / "parts", SAMPLERS["ddpm"]), model, mesh(1))
    assert not (tmp_path / "parts" / "manifest.json").exists()
    resumed = sampling_job.run_job(job_of(tmp_path / "parts", SAMPLERS["ddpm"]), model, mesh(1))
    assert resumed.digest == whole.digest
    # Nothing was written twice: 5 batches of 2, one of them begun twice.
    assert len(calls) == 6


def test_a_class_does_not_depend_on_how_many_the_others_have(model, tmp_path):
    options = {"sampler": "ddim", "steps": 2}
    sampling_job.run_job(job_of(tmp_path / "even", options), model, mesh(1))
    sampling_job.run_job(job_of(tmp_path / "odd", options, counts=(1, 4)), model, mesh(1))
    even, odd = drawn(tmp_path / "even"), drawn(tmp_path / "odd")
    assert sorted(odd) == [0, 1, 3, 5, 7]
    for index, image in odd.items():
        # Another batch: the same to rounding, not to the bit.
        assert np.abs(image.astype(int) - even[index]).max() <= 1
    assert open_dataset(tmp_path / "odd").class_counts["train"] == {"pink": 1, "purple": 4}


def test_classes_can_share_their_noise(model, tmp_path):
    denoise_only = {"sampler": "ddim", "steps": 1, "unconditional": True}
    sampling_job.run_job(job_of(tmp_path, denoise_only, shared_noise=True), model, mesh(1))
    images = drawn(tmp_path)
    for rank in range(5):
        np.testing.assert_array_equal(images[2 * rank], images[2 * rank + 1])
    assert len({image.tobytes() for image in images.values()}) == 5


def test_another_job_in_the_same_directory_is_refused(model, tmp_path):
    sampling_job.run_job(job_of(tmp_path, {"sampler": "ddim", "steps": 2}), model, mesh(1))
    with pytest.raises(DiffpathError, match="sampler") as caught:
        sampling_job.run_job(job_of(tmp_path, {"sampler": "ddim", "steps": 3}), model, mesh(1))
    assert caught.value.code == ExitCode.REFUSED


@pytest.mark.parametrize("side", [12, *(pytest.param(side, marks=pytest.mark.full) for side in (8, 24))])
def test_another_patch_size_keeps_um_per_px(model, tmp_path, side):
    dataset = sampling_job.run_job(job_of(tmp_path, {"steps": 2}, image_px=(side, side)), model, mesh(1))
    found = list(dataset.read("train"))
    assert {record.image.shape for record in found} == {(side, side, 3)}
    assert {(record.mpp, record.fov_um) for record in found} == {(model.run.mpp, side * model.run.mpp)}
    assert dataset.details.fov_um == side * model.run.mpp


def sample_command(workdir, out, *words):
    count = () if "--num_per_class" in words else ("--num_per_class", 2)
    return [str(word) for word in ("sample", "--workdir", workdir, "--out", out, *count, *words)]


def test_every_image_says_how_it_was_made(denoiser_run, classifier_run, tmp_path, capsys):
    guided = ["--classifier", classifier_run, "--classifier_scale", 2, "--guidance_scale", 1.5]
    words = ["--sampler", "ddim", "--steps", 3, "--patch_px", 24, "--seed", 7, *guided]
    assert cli.main(sample_command(denoiser_run, tmp_path / "set", *words)) == 0
    rows = pq.read_table(tmp_path / "set" / "samples.parquet").to_pylist()
    dataset = open_dataset(tmp_path / "set")
    assert [row["index"] for row in rows] == [record.index for record in dataset.read("train")]
    assert [row["class"] for row in rows] == ["pink", "purple"] * 2
    expected = {"sampler": "ddim", "steps": 3, "evaluations": 3, "seed": 7, "guidance": 0.5, "classifier_scale": 2.0}
    for row in rows:
        assert expected.items() <= row.items()
        assert (row["mpp"], row["fov_um"]) == (2.0, 48.0)
    assert {len(rows[0][name]) for name in ("checkpoint_digest", "run_digest", "classifier_digest")} == {64}
    assert {**expected, "seed": 7}.items() <= dataset.details.sampling.items()
    said = " ".join(capsys.readouterr().err.split())
    assert "24 px at 2 um/px: field of view 48 um; 3 evaluations" in said
    assert f"the first at t = {rows[0]['first_timestep']}" in said


def test_pictures(denoiser_run, tmp_path):
    words = [
        "--sampler",
        "dpmpp",
        "--steps",
        4,
        "--png",
        "--grid",
        "--trajectory",
        "--num_per_class",
        "pink=3,purple=1",
    ]
    assert cli.main(sample_command(denoiser_run, tmp_path / "set", *words)) == 0
    images = drawn(tmp_path / "set")
    for index, name in ((0, "pink"), (1, "purple"), (2, "pink"), (4, "pink")):
        found = cv2.imread(str(tmp_path / "set" / "png" / name / f"{index:07d}.png"))[..., ::-1]
        np.testing.assert_array_equal(found, images[index])
    assert cv2.imread(str(tmp_path / "set" / "qa" / "grid.png")).shape == (2 + 2 * 18, 2 + 3 * 18, 3)
    trajectory = cv2.imread(str(tmp_path / "set" / "qa" / "trajectory.png"))[..., ::-1]
    assert trajectory.shape == (2 + 2 * 18, 2 + 10 * 18, 3)
    # It ends with the image itself.
    last = trajectory[2:18, -18:-2]
    assert np.abs(last.astype(int) - images[0]).max() <= 1


def test_a_sweep_draws_every_point_from_the_same_noise(denoiser_run, tmp_path, capsys):
    words = ["--sweep", "sampler=ddim,dpmpp steps=2,5", "--sweep", "sampler=ddim steps=2 eps_scale=1.0,1.005"]
    assert cli.main(sample_command(denoiser_run, tmp_path / "sweep", *words)) == 0
    summary = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["points"]
    plain = {f"sampler-{name}_steps-{steps}" for name, steps in itertools.product(("ddim", "dpmpp"), (2, 5))}
    scaled = {f"sampler-ddim_steps-2_eps_scale-{scale}" for scale in ("1.0", "1.005")}
    assert set(summary) == plain | scaled
    for name, row in summary.items():
        assert open_dataset(tmp_path / "sweep" / name).digest == row["digest"]
    # lambda = 1 is the plain set; another lambda differs, but starts from the same noise.
    assert summary["sampler-ddim_steps-2"]["digest"] == summary["sampler-ddim_steps-2_eps_scale-1.0"]["digest"]
    assert 0 < summary["sampler-ddim_steps-2_eps_scale-1.005"]["rms_from_first"] < 10
    sheet = cv2.imread(str(tmp_path / "sweep" / "contact.png"))
    assert sheet.shape[0] > 6 * 64
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep").rglob("*.array_record*")}
    assert cli.main(sample_command(denoiser_run, tmp_path / "sweep", *words)) == 0
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    again = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["points"]
    assert {name: row["seconds"] for name, row in again.items()} == {n: row["seconds"] for n, row in summary.items()}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--steps", "1001"], "1001 steps of the 1000"),
        (["--steps", "0"], "steps"),
        (["--sampler", "euler"], "sampler"),
        (["--spacing", "odd"], "spacing"),
        (["--sampler", "ddim_author_code", "--steps", "1000"], "authors"),
        (["--sampler", "ddim", "--spacing", "100,50,10"], "sections 100,50,10 have 160; fix: .*--steps"),
        (["--spacing", "100,0"], "spacing.*even, leading"),
        (["--spacing", "strided", "--steps", "501"], "exactly 501 steps"),
        (["--guidance", "-1"], "guidance"),
        (["--guidance_scale", "0.5"], "guidance_scale.*conditional"),
        (["--guidance_scale", "2", "--guidance", "1"], "guidance_scale"),
        (["--guidance_from", "0.7", "--guidance_to", "0.3"], "guidance_from"),
        (["--sampler", "ddim", "--eta", "2"], "eta"),
        (["--eta", "0.5"], "ddpm has none"),
        (["--sampler", "ddim", "--variance", "large"], "variance"),
        (["--variance", "learned"], "without a learned variance"),
        (["--eps_scale", "0"], "eps_scale"),
        (["--thresholding", "dynamic", "--percentile", "1.5"], "percentile"),
        (["--limit", "odd"], "thresholding.*clip, dynamic, none"),
        (["--unconditional", "--guidance", "1"], "unconditional"),
        (["--classifier_scale", "1"], "add --classifier"),
        (["--guide_weight", "1"], "add --guide"),
        (["--guide_from", "0.7", "--guide_to", "0.3"], "guide_from"),
        (["--guide", "nowhere@latest"], "add --guide_weight"),
        (["--guide", "nowhere", "--guide_weight", "1"], "nowhere"),
        (["--patch_px", "33"], "stride 2.*multiple"),
        (["--patch_px", "0"], "patch_px.*greater than or equal to 1"),
        (["--num_per_class", "0"], "num_per_class"),
        (["--num_per_class", "many"], "num_per_class"),
        (["--num_per_class", "pink=2,blue=1"], "unknown class 'blue'.*pink, purple"),
        (["--batch_size", "0"], "batch_size"),
        (["--checkpoint", "7"], "checkpoint 7.*there are 1"),
        (["--checkpoint", "newest"], "checkpoint"),
        (["--sweep", "stepps=2"], "stepps.*steps"),
        (["--sweep", "steps=2,many"], "steps"),
        (["--sweep", "steps="], "steps"),
        (["--sweep", "sampler=ddpm,ddim eta=0.5"], "eta"),
    ],
)
def test_bad_sampling_options(denoiser_run, tmp_path, capsys, words, why):
    assert cli.main(sample_command(denoiser_run, tmp_path / "x", *words)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and "; fix: " in line
    assert re.search(why, line), line
    assert not (tmp_path / "x").exists()


def test_names_of_earlier_versions_are_read(denoiser_run, tmp_path):
    """Options, values of a sweep, and the record of a finished set."""
    now = ["--sampler", "ddim", "--steps", 2, "--thresholding", "dynamic", "--shared_noise", "--trajectory"]
    then = ["--sampler", "ddim", "--steps", 2, "--limit", "dynamic", "--twins", "--film"]
    assert cli.main(sample_command(denoiser_run, tmp_path / "now", *now)) == 0
    assert cli.main(sample_command(denoiser_run, tmp_path / "then", *then)) == 0
    assert open_dataset(tmp_path / "now").digest == open_dataset(tmp_path / "then").digest
    assert (tmp_path / "then" / "qa" / "trajectory.png").exists()
    manifest = json.loads((tmp_path / "now" / "manifest.json").read_text())
    record = manifest["details"]["job"]
    record["twins"], record["sampler"]["limit"] = record.pop("shared_noise"), record["sampler"].pop("thresholding")
    del manifest[SEAL]
    (tmp_path / "now" / "manifest.json").write_text(json.dumps(manifest))
    assert cli.main(sample_command(denoiser_run, tmp_path / "now", *now)) == 0
    points = sweep.points(["limit=none"], {"thresholding": "auto"})
    assert points == {"limit-none": {"thresholding": "none"}}


def test_a_job_goes_on_with_the_spacing_that_it_was_begun_with(model, tmp_path):
    """DDIM's own was ``leading`` in earlier versions, whose records say ``twins`` and ``limit``."""
    options = {"sampler": "ddim", "steps": 334}
    begun = job_of(tmp_path / "begun", {**options, "spacing": "leading"})
    fingerprint = sampling_job._fingerprint(begun, model)
    record = {**fingerprint, "sampler": {**fingerprint["sampler"], "spacing": "auto"}}
    record["twins"], record["sampler"]["limit"] = record.pop("shared_noise"), record["sampler"].pop("thresholding")
    staging.Staging(begun.out, record)
    assert sampling_job.as_begun(job_of(begun.out, options)) == begun
    new = job_of(tmp_path / "new", options)
    assert sampling_job.as_begun(new) == new
    # The old record is that of the job: another one would be refused.
    staging.Staging(begun.out, fingerprint, sampling_job._renewed)
    with pytest.raises(DiffpathError, match="another sampler"):
        staging.Staging(begun.out, sampling_job._fingerprint(new, model), sampling_job._renewed)


def test_a_job_of_an_earlier_version_is_found_again_when_it_is_done(model, tmp_path):
    """One step of DDIM was that at t = 0; today it is that at T - 1."""
    options = {"sampler": "ddim", "steps": 1}
    begun = job_of(tmp_path / "begun", {**options, "spacing": "leading"})
    record = sampling_job._fingerprint(begun, model)
    record["sampler"], record["twins"] = {**record["sampler"], "spacing": "auto"}, record.pop("shared_noise")
    staging.Staging(begun.out, record)
    finished = sampling_job.run_job(job_of(begun.out, options), model, mesh(1))
    whole = sampling_job.run_job(job_of(tmp_path / "whole", {**options, "spacing": "leading"}), model, mesh(1))
    new = sampling_job.run_job(job_of(tmp_path / "new", options), model, mesh(1))
    assert finished.digest == whole.digest != new.digest
    before = (begun.out / "manifest.json").read_bytes()
    assert sampling_job.run_job(job_of(begun.out, options), model, mesh(1)).digest == finished.digest
    assert (begun.out / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"steps": 1001}, "steps"),
        ({"sampler": "ddim", "spacing": "100,50,10"}, "steps"),
        ({"eta": 0.5}, "eta"),
        ({"sampler": "ddim", "variance": "large"}, "variance"),
        ({"variance": "learned"}, "variance"),
        ({"guidance_from": 0.7, "guidance_to": 0.3}, "guidance_from"),
        ({"unconditional": True, "guidance": 1.0}, "unconditional"),
        ({"classifier_scale": 1.0}, "classifier_scale"),
    ],
)
def test_the_library_names_parameters(model, options, parameter):
    """Options of a command are no business of who calls it from Python."""
    with pytest.raises(DiffpathError) as caught:
        samplers.check_sampler(model.run.config, sections.SamplerConfig(**options), classifier=False)
    assert caught.value.what == parameter
    assert caught.value.where == "the sampler's options"
    assert "--" not in str(caught.value)


def refused(capsys, words, code=2):
    assert cli.main([str(word) for word in words]) == code
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_a_checkpoint_of_another_config_is_refused(denoiser_run, tmp_path, capsys):
    """The shapes fit, but the noise does not: nothing but the seal can tell."""
    copied = shutil.copytree(denoiser_run, tmp_path / "run")
    content = json.loads((copied / "config.json").read_text())
    content["config"]["noise"]["schedule"] = "linear"
    del content[SEAL]
    (copied / "config.json").write_text(json.dumps(content))
    assert "another network, noise" in refused(capsys, sample_command(copied, tmp_path / "x"), code=5)
    assert "another network, noise" in refused(
        capsys, sample_command(copied, tmp_path / "x", "--checkpoint", 1), code=5
    )
    assert not (tmp_path / "x").exists()


def test_a_draw_says_what_it_is_of(model):
    """Nothing that decides pixels is missing from what a directory is compared by."""
    images = references.References([], (), digest="", split="test", origin="held out")
    started, liked = starts.Starts(images), likes.Likes(images)
    covered = field.FieldOptions(16, 8, 4)
    job = job_of(
        Path("x"),
        {},
        conditions=tuple({**told, "place": 1.0} for told in CLASSES),
        starts=started,
        likes=liked,
        field=covered,
    )
    known = set(sampling_job._fingerprint(job, model))
    assert {field.name for field in dataclasses.fields(sampling_job.SampleJob)} - {"out"} <= known
