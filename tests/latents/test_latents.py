"""Latent diffusion through the commands: latents stored once, trained on, sampled from; and what is refused."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds

from diffpath_jax.config import checks
from diffpath_jax.config import files as config_files
from diffpath_jax.config.network import network_section
from diffpath_jax.config.tasks import make_task
from diffpath_jax.data import pipeline
from diffpath_jax.data import transform as derive
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.latents import first_stage
from diffpath_jax.networks.kinds import make_network
from diffpath_jax.runs import run as runs
from diffpath_jax.training.tasks.task import NETWORK
from diffpath_jax.weights import safetensors_file
from tests.conftest import TINY_AUTOENCODER, write_run
from tests.latents.conftest import LDM, error_line, run_cli, train


def encoder(autoencoder_run):
    """Images to latents by the network itself."""
    stage = first_stage.open_first_stage(autoencoder_run)
    network = make_network(stage.network, dtype="float32")
    apply = jax.jit(lambda x: network.apply(stage.params, {}, x, method="encode")[0])
    return lambda images: np.asarray(apply(jnp.asarray(images, jnp.float32) / 127.5 - 1))


def test_every_orientation_of_each_training_image_is_stored_and_the_others_as_they_are(
    dataset, latents, autoencoder_run
):
    source, stored, encode = open_dataset(dataset), open_dataset(latents), encoder(autoencoder_run)
    assert {split: stored.count(split) for split in stored.splits} == {
        split: source.count(split) * (8 if split == "train" else 1) for split in source.splits
    }
    orientations = [
        lambda x, k=k, flip=flip: np.rot90(x, k)[:, :: -1 if flip else 1] for flip in (False, True) for k in range(4)
    ]
    for split in source.splits:
        ways = orientations if split == "train" else orientations[:1]
        images = [way(record.image) for record in source.read(split) for way in ways]
        found = pipeline.read_arrays(stored, split)
        np.testing.assert_allclose(found["latent"], encode(np.stack(images)), rtol=2**-10, atol=1e-4)
        np.testing.assert_array_equal(found["label"], np.repeat([r.label for r in source.read(split)], len(ways)))


def test_the_scale_makes_latents_of_unit_deviation_and_names_the_autoencoder(dataset, latents, autoencoder_run):
    stored = open_dataset(latents)
    space, stage = stored.details.latents, first_stage.open_first_stage(autoencoder_run)
    values = pipeline.read_arrays(stored, "train")["latent"].astype(np.float64)
    np.testing.assert_allclose(space["scale"] * values.std(), 1.0, rtol=1e-3)
    assert space["digest"] == stage.digest and space["augment"] == "dihedral"
    assert space["network"] == network_section(stage.network)
    assert stored.images == open_dataset(dataset).digest


def test_tfds_reads_latents_too(latents):
    source = tfds.builder_from_directory(str(latents)).as_data_source("train")
    own = pipeline.Records([open_dataset(latents)], "train")
    assert len(source) == len(own)
    np.testing.assert_array_equal(source[11]["latent"], own[11]["latent"])
    assert source[11]["symmetry"] == 3


def test_encoding_goes_on_where_it_stopped(tmp_path, dataset, latents, autoencoder_run, monkeypatch):
    """An interruption after any unit; the finished set has the records of one that was left alone."""
    monkeypatch.setattr(derive, "UNIT_IMAGES", 32)
    whole, made = derive.Staging.commit, []

    def commit(self, name, *rest):
        if len(made) in (2, 3):
            made.append("interrupted")
            raise KeyboardInterrupt
        made.append(name)
        return whole(self, name, *rest)

    monkeypatch.setattr(derive.Staging, "commit", commit)
    words = ("encode", "--data", dataset, "--first_stage", autoencoder_run, "--out", tmp_path / "set")
    assert [run_cli(*words) for _ in range(3)] == [130, 130, 0]
    done = [name for name in made if name != "interrupted"]
    assert len(done) == len(set(done)) > 4
    assert open_dataset(tmp_path / "set").digest == open_dataset(latents).digest
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "set").glob("[!.]*")}
    assert run_cli(*words) == 0
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / "set").glob("[!.]*")}
    assert run_cli(*words, "--augment", "none") == 4


def task_on(data, stage, *, scale=0.0, image_channels=3):
    """The loss of a data set's first images in the task that a config describes, and the latents it works in."""
    content = config_files.load(LDM, [], checks.with_defaults)
    content["network"] |= {"channels": 16, "channel_mult": (1,), "attention_downsamples": (1,), "context_width": 8}
    content["network"]["image_channels"] = image_channels
    content["codec"] |= {"first_stage": str(stage), "scale": scale}
    settings, opened = checks.run_config(content, where="test"), open_dataset(data)
    stage = first_stage.prepare(settings, [opened], workdir=Path("nowhere"), where="test")
    task = make_task(settings, num_classes=2, first_stage=stage)
    params, state = jax.jit(task.init)(jax.random.key(0))
    params = jax.tree.map(lambda p: p + 0.1, params)
    batch = jax.tree.map(lambda x: jnp.asarray(x[:8]), pipeline.read_arrays(opened, "train"))
    loss, _ = jax.jit(task.losses[NETWORK])({**task.frozen_params, **params}, state, batch, jax.random.key(1))
    return float(loss), stage


@pytest.mark.full
def test_stored_latents_give_the_loss_of_images_encoded_in_the_step(tmp_path, dataset, autoencoder_run):
    """Both read the same images; latents are stored in half precision."""
    out = tmp_path / "latents"
    words = ("encode", "--data", dataset, "--first_stage", autoencoder_run, "--out", out, "--augment", "none")
    assert run_cli(*words) == 0
    stored, stage = task_on(out, autoencoder_run)
    encoded, same = task_on(dataset, autoencoder_run, scale=stage.scale)
    np.testing.assert_allclose(stored, encoded, rtol=2e-3)
    assert stage.as_json() == same.as_json()
    assert stage.scale == open_dataset(out).details.latents["scale"]
    # Where nobody says the scale it is measured.
    measured = first_stage.measure_scale(first_stage.open_first_stage(autoencoder_run), open_dataset(dataset))
    values = encoder(autoencoder_run)(pipeline.read_arrays(open_dataset(dataset), "train")["image"])
    np.testing.assert_allclose(measured, 1 / values.std(), rtol=1e-3)


KL = {**TINY_AUTOENCODER["network"], "kind": "kl_autoencoder", "latent_channels": 4}
del KL["codebook_size"]


@pytest.mark.full
def test_a_normal_distribution_instead_of_a_codebook(tmp_path, dataset):
    """Moments are stored and drawn from in each step; images come back from the mean."""
    run = write_run(tmp_path / "kl", dataset, {**TINY_AUTOENCODER, "network": KL})
    words = ("encode", "--data", dataset, "--first_stage", run, "--out", tmp_path / "latents", "--augment", "none")
    assert run_cli(*words) == 0
    stored = open_dataset(tmp_path / "latents")
    moments = pipeline.read_arrays(stored, "train")["latent"].astype(np.float64)
    assert moments.shape[1:] == (8, 8, 8)
    mean, variance = moments[..., :4], np.exp(np.clip(moments[..., 4:], -30, 20))
    spread = np.sqrt(mean.var() + variance.mean())
    np.testing.assert_allclose(stored.details.latents["scale"], 1 / spread, rtol=1e-3)
    loss, stage = task_on(tmp_path / "latents", run, image_channels=4)
    assert np.isfinite(loss) and stage.scale == stored.details.latents["scale"]
    of_latents = stage.codec(dtype="float32")
    batch = {"latent": jnp.asarray(moments[:2], jnp.float16)}
    draws = [np.asarray(of_latents.encode(stage.params, batch, jax.random.key(i))) for i in range(64)]
    np.testing.assert_allclose(np.mean(draws, axis=0), mean[:2] / spread, atol=0.6)
    np.testing.assert_allclose(np.std(draws, axis=0).mean(), np.sqrt(variance[:2]).mean() / spread, rtol=0.05)
    back = first_stage.round_trip(stage.network, "float32")
    images = pipeline.read_arrays(open_dataset(dataset), "train", limit=2)["image"]
    found, codes = back(stage.params, jnp.asarray(images))
    assert codes is None
    code = of_latents.code(stage.params, jnp.asarray(images))[..., :4]
    expected, _ = of_latents.network.apply(stage.params, {}, code, method="decode")
    np.testing.assert_allclose(found, (np.clip(expected, -1, 1) + 1) * 127.5, atol=0.51)


def other_stage(tmp_path, dataset):
    """An autoencoder with other parameters."""
    path = tmp_path / "other"
    write_run(
        path, dataset, TINY_AUTOENCODER, seed=1, data={"train": "", "batch_size": 4, "augment": "none", "workers": 0}
    )
    assert run_cli("export", "--workdir", path, "--out", tmp_path / "plain.safetensors") == 0
    flat, about = safetensors_file.read_parameters(tmp_path / "plain.safetensors")
    moved = {name: array + np.float32(0.01) for name, array in flat.items()}
    safetensors_file.write_parameters(tmp_path / "moved.safetensors", moved, about)
    return tmp_path / "moved.safetensors"


def test_latents_of_another_autoencoder_are_refused_and_so_is_what_cannot_be_done(
    tmp_path, dataset, latents, autoencoder_run, denoiser_run, capsys
):
    other = other_stage(tmp_path, dataset)
    run = tmp_path / "run"
    for code, words, keys, stage, data in (
        (4, "made by another first stage", {}, other, latents),
        (2, "latents are those of images augmented by 'dihedral'", {"data.augment": "flips"}, autoencoder_run, latents),
        (2, "names no autoencoder", {}, "", latents),
        (2, "no such file or run", {}, tmp_path / "missing", latents),
        (2, "not an autoencoder's run", {}, denoiser_run, latents),
        (2, "network.image_channels", {"network.image_channels": 4}, autoencoder_run, latents),
        (2, "stride 32", {"network.channel_mult": "(1,1,1,1,1)"}, autoencoder_run, latents),
    ):
        capsys.readouterr()
        assert train(run, data, stage, **keys) == code, words
        assert words in error_line(capsys)
    for command in ("encode", "reconstruct"):
        assert run_cli(command, "--data", latents, "--first_stage", autoencoder_run, "--out", run) == 2
        assert "it holds latents, not images" in error_line(capsys)
    words = ("train", "--config", "configs/demo_ddpm.py:debug", "--workdir", run, f"--config.data.train={latents}")
    assert run_cli(*words, "--config.data.augment=dihedral") == 2
    assert "it holds latents, not images" in error_line(capsys)
    assert run_cli("eval", "--real", latents, "--generated", dataset, "--out", run) == 2
    assert not run.exists()


@pytest.mark.full
def test_a_run_keeps_its_autoencoder(tmp_path, latents, autoencoder_run, ldm_run, capsys):
    """It goes on with the original and where that is gone; a damaged copy, or another one, is found before use."""
    workdir = tmp_path / "run"
    shutil.copytree(ldm_run, workdir)
    for steps, stage in ((3, autoencoder_run), (4, tmp_path / "gone")):
        again = {"train.num_steps": steps}
        assert train(workdir, latents, stage, "--allow_change", "train.num_steps", **again) == 0
    path = workdir / runs.FIRST_STAGE
    data, (params, about) = bytearray(path.read_bytes()), safetensors_file.read_parameters(path)
    words = ("sample", "--workdir", workdir, "--out", tmp_path / "set", "--num_per_class", 1, "--steps", 2)
    data[-5] ^= 1
    path.write_bytes(data)
    assert run_cli(*words) == 5
    assert "its arrays do not match their digest" in error_line(capsys)
    safetensors_file.write_parameters(path, {name: value + 1 for name, value in params.items()}, about)
    assert run_cli(*words) == 5
    assert "not the autoencoder that the run began with" in error_line(capsys)
    assert not (tmp_path / "set").exists()


def test_reconstructions_are_a_set_with_their_numbers(tmp_path, dataset, autoencoder_run, resnet_run, capsys):
    """PSNR from its definition over the images of the set; the set goes into eval like any other."""
    out = tmp_path / "set"
    assert run_cli("reconstruct", "--data", dataset, "--first_stage", autoencoder_run, "--out", out) == 0
    source, back = open_dataset(dataset), open_dataset(out)
    real, made = (np.stack([record.image for record in found.read("test")]).astype(float) for found in (source, back))
    psnr = 10 * np.log10(255**2 / np.square(real - made).mean(axis=(1, 2, 3)))
    small = real.reshape(len(real), 8, 2, 8, 2, 3).mean(axis=(2, 4)).repeat(2, axis=1).repeat(2, axis=2)
    nearest = 10 * np.log10(255**2 / np.square(real - small).mean(axis=(1, 2, 3)))
    found = json.loads((out / "reconstruction.json").read_text())
    np.testing.assert_allclose(found["psnr"], psnr.mean(), rtol=1e-6)
    # Bicubic enlargement of the same means is within a few decibels of repeating them.
    assert abs(found["baseline_psnr"] - nearest.mean()) < 3
    assert found["images"] == len(real) and found["data"] == source.digest
    assert (out / "qa" / "reconstructions.png").stat().st_size > 1000
    said = capsys.readouterr().err
    assert f"PSNR {psnr.mean():.2f} dB" in said
    words = ("eval", "--real", dataset, "--generated", out, "--generated_split", "test", "--features", resnet_run)
    assert run_cli(*words, "--floor", "none", "--audit", "none", "--resamples", 0, "--out", tmp_path / "eval") == 0
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert metrics["sets"]["generated"]["dataset"] == back.digest


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda about: about.pop("network"), "not an autoencoder"),
        (lambda about: about["network"].update(kind="unet_adm"), "not an autoencoder"),
        (lambda about: about["network"].update(codebook_size=17), "has shape"),
        (lambda about: about["network"].update(num_res_blocks=2), "names missing"),
    ],
)
def test_a_file_that_is_no_autoencoder_is_refused(tmp_path, dataset, autoencoder_run, spoil, why, capsys):
    path = tmp_path / "stage.safetensors"
    assert run_cli("export", "--workdir", autoencoder_run, "--out", path) == 0
    flat, about = safetensors_file.read_parameters(path)
    assert first_stage.open_first_stage(path).digest == first_stage.open_first_stage(autoencoder_run).digest
    spoil(about)
    safetensors_file.write_parameters(path, flat, about)
    capsys.readouterr()
    assert run_cli("encode", "--data", dataset, "--first_stage", path, "--out", tmp_path / "set") in (2, 5)
    assert why in error_line(capsys)
    assert not (tmp_path / "set").exists()
