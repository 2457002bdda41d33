"""First stages of latent diffusion: alone or in a whole checkpoint, averaged or not, and what can be done with them."""

import jax
import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.config import checks
from diffpath_jax.config import files as config_files
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.latents import first_stage
from diffpath_jax.networks.autoencoder import KLAutoencoder, KLConfig, VQAutoencoder, VQConfig
from diffpath_jax.runs import warm_start
from diffpath_jax.training.tasks.task import NETWORK
from diffpath_jax.weights import from_vqgan, safetensors_file
from tests.golden import weights
from tests.weights import published

GOLDEN = weights.load("first_stage.npz")
UNET = weights.load("ldm_unet.npz")["one/names"]
CONV_IN = "encoder.conv_in.weight"


def alone(case="vq"):
    return weights.state_dict(GOLDEN[f"{case}/names"])


def zeros(*names):
    return {name: np.zeros(3, np.float32) for name in names}


def whole():
    """A checkpoint of latent diffusion: the UNet and its average, the first stage, tables, and a scale of latents."""
    unet = weights.state_dict(UNET)
    return {
        **{f"model.diffusion_model.{name}": value for name, value in unet.items()},
        **{"model_ema.diffusion_model" + name.replace(".", ""): value for name, value in unet.items()},
        **{from_vqgan.FIRST_STAGE + name: value for name, value in alone().items()},
        **zeros("cond_stage_model.embedding.weight", "betas", "model_ema.decay"),
        "scale_factor": np.array(0.5, np.float32),
    }


def same(a, b):
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.mark.parametrize(
    "shape",
    [
        VQConfig(channels=64, channel_mult=(1, 1, 2, 2), num_res_blocks=1, attention_downsamples=(4, 8)),
        KLConfig(channels=32, channel_mult=(1, 2, 4, 4), latent_channels=4),
    ],
    ids=["VQ", "KL-f8"],
)
def test_shapes_are_read_off_the_arrays(shape):
    like = published.shapes(VQAutoencoder if isinstance(shape, VQConfig) else KLAutoencoder, shape)
    assert from_vqgan.vqgan_config(published.empty(like, from_vqgan.vqgan_names(like))) == shape


def test_a_whole_checkpoint_holds_the_same_autoencoder_and_its_scale():
    found, plain = from_vqgan.from_vqgan(whole(), where="test"), from_vqgan.from_vqgan(alone(), where="test")
    assert same(found.params, plain.params) and found.config == plain.config
    assert (found.about()["scale"], "scale" in plain.about()) == (0.5, False)
    others = {"model": len(UNET), "model_ema": len(UNET) + 1, "cond_stage_model": 1, "betas": 1}
    assert (found.unused, plain.unused) == (others, {})


@pytest.mark.parametrize("prefix", ["", from_vqgan.FIRST_STAGE])
def test_the_average_is_taken_where_there_is_one(prefix):
    state = {prefix + name: value for name, value in alone().items()}
    state |= {f"{prefix}model_ema.{name.replace('.', '')}": value + 1 for name, value in alone().items()}
    state |= zeros(f"{prefix}loss.discriminator.main.0.bias", f"{prefix}model_ema.lossdiscriminatormain0bias")
    mean, raw = (from_vqgan.from_vqgan(state, raw_parameters=flag, where="test") for flag in (False, True))
    assert same(raw.params, from_vqgan.from_vqgan(alone(), where="test").params)
    assert same(mean.params, jax.tree.map(lambda value: value + 1, raw.params))
    assert sum(mean.unused.values()) == sum(raw.unused.values()) == len(alone()) + 2


def test_teachers_are_left_out_and_counted():
    teachers = zeros("loss.discriminator.main.0.bias", "loss.perceptual_loss.lin0.model.1.weight", "loss.logvar")
    assert from_vqgan.from_vqgan(alone("kl") | teachers, where="test").unused == {"loss": 3}


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda s: s.clear(), f"{CONV_IN} is missing"),
        (lambda s: (s.clear(), s.update(weights.state_dict(UNET))), f"{CONV_IN} is missing"),
        (lambda s: s.pop("decoder.up.1.upsample.conv.bias"), "decoder.up.1.upsample.conv.bias .* is missing"),
        (lambda s: s.pop("encoder.mid.attn_1.k.weight"), "encoder.mid.attn_1.k.weight is missing"),
        (lambda s: s.pop("quantize.embedding.weight"), "quantize.embedding.weight is missing"),
        (lambda s: s.update(zeros("quantize.proj.weight")), "not used: quantize.proj.weight"),
        (lambda s: s.update(zeros(*map("extra.{}".format, range(7)))), "not used: extra.0, .* and 2 more"),
        (lambda s: s.update({CONV_IN: np.zeros((32, 4, 3, 3), np.float32)}), "does not fit"),
        (lambda s: s.update({"quant_conv.bias": np.full(3, np.inf, np.float32)}), "not finite"),
    ],
)
def test_another_network_is_refused(spoil, why):
    state = alone()
    spoil(state)
    with pytest.raises(DiffpathError, match=f"not a first stage of latent diffusion .*{why}") as caught:
        from_vqgan.from_vqgan(state, where="spoiled")
    assert caught.value.code == ExitCode.DAMAGED


@pytest.mark.parametrize("scale", [0.0, np.nan, -1.0])
def test_a_scale_that_cannot_be_is_refused(scale):
    with pytest.raises(DiffpathError, match="scale_factor is"):
        from_vqgan.from_vqgan(whole() | {"scale_factor": np.float32(scale).reshape(1)}, where="test")


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The file that the command makes of a whole checkpoint."""
    folder = tmp_path_factory.mktemp("vqgan")
    safetensors_file.write_parameters(folder / "ldm.safetensors", whole(), {})
    words = ["--file", folder / "ldm.safetensors", "--out", folder / "vqgan.safetensors"]
    assert cli.main(["convert", "--from", "vqgan", *map(str, words)]) == 0
    return folder / "vqgan.safetensors"


def settings(name, **keys):
    """The debug variant of a config, with other keys."""
    words = [f"--config.{key}={value}" for key, value in keys.items()]
    path = f"configs/{name}.py:debug"
    return checks.run_config(config_files.load(path, words, checks.with_defaults), where=path)


def test_images_go_through_a_converted_file(converted, dataset, tmp_path):
    words = ["--first_stage", converted, "--data", dataset, "--out", tmp_path / "out"]
    assert cli.main(["reconstruct", *map(str, words)]) == 0
    assert open_dataset(tmp_path / "out").schema == open_dataset(dataset).schema


def test_stored_latents_have_the_scale_of_the_checkpoint(converted, dataset, tmp_path):
    words = ["--first_stage", converted, "--data", dataset, "--out", tmp_path / "out", "--augment", "none"]
    assert cli.main(["encode", *map(str, words)]) == 0
    assert open_dataset(tmp_path / "out").details.latents["scale"] == 0.5


def test_an_autoencoders_run_begins_with_a_converted_file(converted):
    network = {"channels": 32, "channel_mult": "(1,2,2)", "groups": 32, "codebook_size": 24}
    keys = {f"network.{name}": value for name, value in network.items()}
    start = warm_start.starting_point(
        settings("vqgan_f4_pkgh", **keys, **{"train.init_from": converted}), num_classes=2
    )
    assert same(start.params[NETWORK], from_vqgan.from_vqgan(alone(), where="test").params)


def test_a_latent_model_works_at_the_scale_of_the_checkpoint(converted, dataset, tmp_path):
    """Unless its config says another."""
    for keys, scale in (({}, 0.5), ({"codec.scale": 2.0}, 2.0)):
        latent = settings("ldm_pkgh224", **keys, **{"codec.first_stage": converted})
        stage = first_stage.prepare(latent, [open_dataset(dataset)], workdir=tmp_path / "new", where="test")
        assert stage.scale == scale
    assert same(stage.params, from_vqgan.from_vqgan(alone(), where="test").params)
