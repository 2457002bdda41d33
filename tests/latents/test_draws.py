"""What is drawn by a model of latents: their decoded images, at every size, from a start and under a guide."""

import json

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest

from diffpath_jax.config import noise, sections
from diffpath_jax.data import pipeline
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.devices import sharding
from diffpath_jax.diffusion import schedule as diffusion
from diffpath_jax.evaluation import denoising_losses
from diffpath_jax.latents import first_stage
from diffpath_jax.networks.codecs import LatentCodec
from diffpath_jax.runs import run as runs
from diffpath_jax.sampling import draw as draws
from diffpath_jax.training.metrics_log import read_metrics
from tests.latents.conftest import error_line, run_cli, train


@pytest.mark.full
def test_a_latent_model_looks_and_draws_at_every_size(tmp_path, latents, autoencoder_run, ldm_run, capsys):
    """Previews, validation loss, guidance; multiples of the autoencoder's factor times the network's stride."""
    assert train(tmp_path / "run", latents, autoencoder_run, **{"train.eval_every": 2}) == 0
    rows = read_metrics(tmp_path / "run")
    assert {"loss", "val_loss", "stain/eosin_shift"} <= {name for row in rows for name in row}
    assert len(list((tmp_path / "run" / "previews").glob("*.png"))) == 1
    words = ("sample", "--workdir", ldm_run, "--num_per_class", 3, "--steps", 2, "--batch_size", 4)
    for name, *options in (
        ("larger", "--sampler", "ddpm", "--patch_px", 24, "--guidance", 2, "--grid", "--trajectory"),
        ("smaller", "--sampler", "dpmpp", "--patch_px", 8, "--eps_scale", 1.01),
    ):
        assert run_cli(*words, "--out", tmp_path / name, *options) == 0
    larger, smaller = (open_dataset(tmp_path / name) for name in ("larger", "smaller"))
    assert (larger.schema.image_px, smaller.schema.image_px) == ((24, 24), (8, 8))
    run = runs.open_run(ldm_run)
    assert larger.details.sampling["codec_digest"] == run.latents.digest
    # The audit looks for copies among the images that the latents were made from.
    assert list(larger.details.training_data) == list(run.images) != list(run.data)
    capsys.readouterr()
    for words_of_error, *options in (
        ("stride 2", "--patch_px", 15),
        ("latents have no bounds", "--thresholding", "clip"),
    ):
        assert run_cli(*words, "--out", tmp_path / "odd", *options) == 2
        assert words_of_error in error_line(capsys)
    assert not (tmp_path / "odd").exists()


def test_samples_are_decoded_latents(tmp_path, ldm_run):
    """What the sampler draws in latents, divided by the scale and decoded by the network itself."""
    run = runs.open_run(ldm_run)
    trained = runs.load_parameters(run)
    seen = {}

    class Watched(LatentCodec):
        def decode(self, weights, x):
            jax.debug.callback(lambda value: seen.update(x=np.asarray(value)), x)
            return super().decode(weights, x)

    codec = run.latents.codec(dtype="float32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs.Run, "codec", Watched(**vars(codec)))
        mesh = sharding.make_mesh(jax.devices()[:1])
        draw = draws.make_draw(draws.Recipe(run, sections.SamplerConfig("ddim", 3), (16, 16)), mesh=mesh)
        weights = {
            draws.DENOISER: (trained.params, trained.model_state),
            draws.CODEC: trained.codec_params,
        }
        images, _ = draw(weights, jax.random.key(0), jnp.arange(4), {"label": jnp.array([0, 1, 0, 1])}, {})
    jax.effects_barrier()
    assert seen["x"].shape == (4, 8, 8, 3)
    z, codes = seen["x"] / run.latents.scale, np.asarray(trained.codec_params["codebook"]["embedding"])
    nearest = codes[np.square(z[..., None, :] - codes).sum(-1).argmin(-1)]
    decoded, _ = codec.network.apply(
        trained.codec_params,
        {},
        codec.network.apply(trained.codec_params, {}, jnp.asarray(nearest), method="features")[0],
        method="to_image",
    )
    expected = np.round((np.clip(np.asarray(decoded), -1, 1) + 1) * 127.5)
    assert np.abs(np.asarray(images).astype(float) - expected).max() <= 1


@pytest.mark.full
def test_latents_start_from_images(tmp_path, ldm_run, dataset, autoencoder_run):
    """At level 0 the autoencoder's own images; what is known stays to the bit, through the decoder too."""
    mask = np.zeros((16, 16), np.uint8)
    mask[:, 9:] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    ddim = ["--sampler", "ddim", "--steps", 2, "--num_per_class", 2, "--start", dataset]
    ways = {"level": ["--start_level", 0], "painted": ["--inpaint", tmp_path / "mask.png"]}
    for name, words in ways.items():
        assert run_cli("sample", "--workdir", ldm_run, "--out", tmp_path / name, *ddim, *words) == 0
    stage = first_stage.open_first_stage(autoencoder_run)
    through = jax.jit(first_stage.round_trip(stage.network, "float32"))
    images = np.stack([record.image for record in open_dataset(dataset).read("test")])
    for name in ways:
        numbers = pq.read_table(tmp_path / name / "samples.parquet")["start_image"].to_numpy()
        found = np.stack([record.image for record in open_dataset(tmp_path / name).read("train")])
        if name == "painted":
            np.testing.assert_array_equal(found[:, :, :9], images[numbers][:, :, :9])
            continue
        expected = np.asarray(through(stage.params, jnp.asarray(images[numbers])).images)
        assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.full
def test_latents_of_large_images_are_drawn_and_decoded_in_windows(tmp_path, ldm_run):
    """One window is the image drawn whole; of several, windows that lie on each other are decoded alike."""
    ddim = ["--workdir", ldm_run, "--sampler", "ddim", "--steps", 2, "--num_per_class", 1, "--batch_size", 1]
    for name, words in (("whole", []), ("one", ["--window_px", 16]), ("field", ["--window_px", 16, "--patch_px", 40])):
        assert run_cli("sample", "--out", tmp_path / name, *ddim, *words) == 0
    assert open_dataset(tmp_path / "one").digest == open_dataset(tmp_path / "whole").digest
    images = [record.image for record in open_dataset(tmp_path / "field").read("train")]
    assert {image.shape for image in images} == {(40, 40, 3)} and all(image.std() > 0 for image in images)


@pytest.mark.full
def test_a_classifier_of_noisy_latents_guides(
    tmp_path, dataset, latents, autoencoder_run, ldm_run, classifier_run, capsys
):
    content = {
        "codec": {"first_stage": str(autoencoder_run)},
        "data": {"train": str(latents), "batch_size": 8, "augment": "dihedral", "workers": 0},
        "optim": {"learning_rate": 1e-3},
        "train": {"num_steps": 2, "log_every": 1, "checkpoint_every": 2},
        "noise": {"schedule": "cosine"},
        "seed": 0,
        "dtype": "float32",
        "task": "noisy_classification",
        "network": json.loads((classifier_run / runs.RUN).read_text())["config"]["network"],
    }
    path = tmp_path / "noisy.py"
    path.write_text(
        f"from ml_collections import ConfigDict\n\n\ndef get_config():\n    return ConfigDict({content!r})\n"
    )
    assert run_cli("train", "--config", path, "--workdir", tmp_path / "noisy") == 0
    words = ("sample", "--workdir", ldm_run, "--num_per_class", 1, "--steps", 2, "--classifier_scale", 2)
    assert run_cli(*words, "--out", tmp_path / "set", "--classifier", tmp_path / "noisy") == 0
    capsys.readouterr()
    assert run_cli(*words, "--out", tmp_path / "no", "--classifier", classifier_run) == 2
    assert "its space pixels is not the latents of" in error_line(capsys)


class _Nothing:
    """A network that predicts nothing, so that its loss is the square of what was asked for."""

    def apply(self, params, state, x_t, t, conditions):
        return jnp.zeros_like(x_t), state


def test_losses_of_single_images_are_taken_in_latents(ldm_run, dataset, monkeypatch):
    run = runs.open_run(ldm_run)
    trained = runs.load_parameters(run)
    monkeypatch.setattr(runs.Run, "network", property(lambda self: _Nothing()))
    items = pipeline.Chosen(pipeline.Records([open_dataset(dataset)], "test"), np.arange(3))
    steps = np.array([300])
    losses = denoising_losses.denoising_losses(draws.Model(run, trained), items, steps, draws=1, seed=0, title="losses")
    image = items[1]["image"]
    x_0 = run.codec.encode(trained.codec_params, {"image": jnp.asarray(image[None])}, jax.random.key(0))
    key = jax.random.fold_in(jax.random.key(0), denoising_losses.image_key(image))
    eps = jax.random.normal(jax.random.fold_in(key, 0), x_0.shape[1:])[None]
    form, levels = run.config.diffusion.prediction, noise.schedule(run.config.noise)
    target = diffusion.training_target(form, levels, x_0, jnp.asarray(steps), eps)
    assert losses[1, 0] == pytest.approx(float(jnp.square(target).mean()), rel=1e-4)
    assert losses[1, 0] != pytest.approx(losses[0, 0], rel=1e-4)
