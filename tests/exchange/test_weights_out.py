"""Trained runs as files of diffusers and of the authors' code: the library draws the same image from the same noise."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.diffusion.samplers.loop import image_noise
from diffpath_jax.exchange import diffusers_pipeline
from diffpath_jax.networks.unet_adm import UNetConfig
from diffpath_jax.runs import run as runs
from diffpath_jax.weights import to_adm, torch_files
from diffpath_jax.weights.from_adm import from_adm
from diffpath_jax.weights.from_diffusers import from_diffusers
from tests.conftest import TINY_ADM, TINY_DENOISER, random_parameters, write_run

STEPS = 10


def export(run, out, form):
    return cli.main(["export", "--workdir", str(run), "--as", form, "--out", str(out)])


def same(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(np.asarray(x), np.asarray(y)), a, b))


def test_a_pipeline_comes_back_as_it_was(tmp_path, denoiser_run):
    assert export(denoiser_run, tmp_path / "pipe", "diffusers") == 0
    path = tmp_path / "pipe" / "unet" / diffusers_pipeline.ARRAYS
    found = from_diffusers(torch_files.read_torch(path), where=str(path))
    run = runs.open_run(denoiser_run)
    assert same(found.params, runs.load_parameters(run).params)
    assert found.details == {"noise": {"schedule": "cosine", "num_steps": 1000}, "prediction": "v"}
    config = run.config.network_for(len(run.classes))
    assert found.config.head_channels == 16 // config.num_heads
    assert "trainedAlgorithmicMedia" in (tmp_path / "pipe" / "README.md").read_text()
    # Nothing is written over.
    assert export(denoiser_run, tmp_path / "pipe", "diffusers") == 4


def test_the_library_draws_the_same_images_from_the_same_noise(tmp_path, denoiser_run):
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    words = ["sample", "--workdir", denoiser_run, "--out", tmp_path / "set", "--num_per_class", 2, "--seed", 3]
    words += ["--sampler", "ddim", "--spacing", "leading", "--steps", STEPS]
    assert cli.main([str(word) for word in words]) == 0
    assert export(denoiser_run, tmp_path / "pipe", "diffusers") == 0
    records = sorted(open_dataset(tmp_path / "set").read("train"), key=lambda record: record.index)
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(3), i))(jnp.array([r.index for r in records]))
    noise = np.array(image_noise(keys, 0, (16, 16, 3)))
    unet = diffusers.UNet2DModel.from_pretrained(tmp_path / "pipe", subfolder="unet").eval()
    config = {"timestep_spacing": "leading", "set_alpha_to_one": True}
    scheduler = diffusers.DDIMScheduler.from_pretrained(tmp_path / "pipe", subfolder="scheduler", **config)
    scheduler.set_timesteps(STEPS)
    x = torch.from_numpy(noise.transpose(0, 3, 1, 2).copy())
    labels = torch.tensor([record.label for record in records])
    for t in scheduler.timesteps:
        with torch.no_grad():
            output = unet(x, t, class_labels=labels).sample
            # Where the estimate of the image is clipped, the noise follows from it, as in the authors' code.
            x = scheduler.step(output, t, x, use_clipped_model_output=True).prev_sample
    ours = np.stack([record.image for record in records]) / 127.5 - 1
    drawn = x.numpy().transpose(0, 2, 3, 1).clip(-1, 1)
    # Ours are stored as whole levels of grey: half a level, and 1e-3.
    assert np.abs(drawn - ours).max() < 0.5 / 127.5 + 1e-3
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path / "pipe")
    assert type(pipeline.scheduler) is diffusers.DDPMScheduler and pipeline.unet.config.num_class_embeds == 3


SHAPES = {
    "conv": {"resample": "conv", "film": False},
    "heads": {"head_channels": 8, "channel_mult": (1, 2), "num_heads": 1},
    "none": {"attention_downsamples": (4,), "channel_mult": (1, 1, 2), "num_res_blocks": 2, "head_channels": 8},
    "variance": {"learn_sigma": True},
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_library_computes_what_each_shape_does(name):
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    from diffpath_jax.networks.kinds import make_network

    config = UNetConfig(**{"num_heads": 2, **TINY_ADM, "num_classes": 3, **SHAPES[name]})
    network, rng = make_network(config, dtype=jnp.float32), np.random.default_rng(0)
    params, _ = random_parameters(network.init)
    described = diffusers_pipeline.unet_config(config, image_px=(16, 16))
    unet = diffusers.UNet2DModel.from_config(described).eval()
    state = diffusers_pipeline.unet_state(params, config)
    unet.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in state.items()})
    x, t, labels = rng.standard_normal((2, 16, 16, 3), np.float32), np.array([5, 800]), np.array([0, 2])
    ours = network.apply(params, {}, jnp.asarray(x), jnp.asarray(t), {"label": jnp.asarray(labels)}, None)[0]
    with torch.no_grad():
        images = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
        theirs = unet(images, torch.from_numpy(t), class_labels=torch.from_numpy(labels)).sample
    np.testing.assert_allclose(theirs.numpy().transpose(0, 2, 3, 1), ours, atol=1e-4, rtol=1e-4)


def test_shifted_noise_has_its_betas_written(denoiser_run):
    import dataclasses

    diffusers = pytest.importorskip("diffusers")
    from diffpath_jax.config import noise

    run = runs.open_run(denoiser_run)
    shifted = dataclasses.replace(run.config, noise=dataclasses.replace(run.config.noise, snr_factor=0.5))
    network = shifted.network_for(2)
    for config in (run.config, shifted):
        written = json.loads(json.dumps(diffusers_pipeline.scheduler_config(config, network)))
        theirs = diffusers.DDPMScheduler.from_config(written).alphas_cumprod.numpy()
        np.testing.assert_allclose(theirs, noise.schedule(config.noise).alpha_bar, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (UNetConfig(channels=32, channel_mult=(1, 2), attention_downsamples=(1,), num_heads=2), "heads have"),
        (UNetConfig(channels=32, channel_mult=(2, 2), head_channels=8), "not the base width"),
    ],
)
def test_what_is_no_unet_of_the_library_is_said(config, why):
    with pytest.raises(ValueError, match=why):
        diffusers_pipeline.unet_config(config, image_px=(16, 16))


def test_other_networks_are_refused(tmp_path, resnet_run, dataset, capsys):
    assert export(resnet_run, tmp_path / "x", "diffusers") == 2
    assert "it is no diffusion model" in capsys.readouterr().err
    assert export(resnet_run, tmp_path / "x.pt", "adm") == 2
    assert "none of ADM's" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_state_dict_of_the_authors_comes_back(tmp_path, dataset):
    torch = pytest.importorskip("torch")
    tiny = {**TINY_DENOISER, "network": {**TINY_DENOISER["network"], "channels": 32, "groups": 32}}
    folder = write_run(tmp_path / "run", dataset, tiny)
    assert export(folder, tmp_path / "adm.pt", "adm") == 0
    state = torch.load(tmp_path / "adm.pt", weights_only=True)
    assert state["middle_block.1.qkv.weight"].shape == (96, 32, 1)
    assert state["output_blocks.0.0.skip_connection.weight"].shape == (32, 64, 1, 1)
    found = from_adm(torch_files.read_torch(tmp_path / "adm.pt"), num_heads=2, where="test")
    run = runs.open_run(folder)
    assert same(found.params, runs.load_parameters(run).params)
    assert found.config == run.config.network_for(len(run.classes))


def test_groups_that_the_authors_do_not_have_are_said(tmp_path, denoiser_run, capsys):
    assert export(denoiser_run, tmp_path / "adm.pt", "adm") == 2
    assert "8 groups, and there all have 32" in capsys.readouterr().err
    assert to_adm.why_not_adm(UNetConfig(stem_block=2)) and not to_adm.why_not_adm(UNetConfig())
