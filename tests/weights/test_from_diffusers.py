"""Networks of diffusers through ``diffpath convert``: what ours computes is what the library computes.

Outputs are compared with the library itself where it is installed; what is refused needs no library.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from diffpath_jax import cli
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.latents import first_stage
from diffpath_jax.networks.kinds import make_network
from diffpath_jax.weights import diffusers_names, from_diffusers, safetensors_file, torch_files

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((2, 16, 16, 3)).astype(np.float32)
# With FiLM the library leaves the norm of the attention in the middle out, unless its groups are stated.
FILM = {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 8}
NAME = "diffusion_pytorch_model.safetensors"


def randomised(network, torch):
    """Zeros at the end of residual blocks would hide everything before them."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def converted(folder, tmp_path):
    out = tmp_path / "ours.safetensors"
    assert cli.main(["convert", "--from", "diffusers", "--file", str(folder / NAME), "--out", str(out)]) == 0
    return out


def nchw(array, torch):
    return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2)))


def nhwc(tensor):
    return tensor.detach().numpy().transpose(0, 2, 3, 1)


SHAPE = {
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
}
PLAIN = {"down_block_types": ("DownEncoderBlock2D",) * 2}
ATTENDED = {
    "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
    "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
}


@pytest.mark.parametrize("blocks", [PLAIN, ATTENDED], ids=["plain", "attended"])
@pytest.mark.parametrize("kind", ["AutoencoderKL", "VQModel"])
def test_an_autoencoder_computes_what_the_library_does(tmp_path, kind, blocks):
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    torch.manual_seed(0)
    own = {"num_vq_embeddings": 16, "latent_channels": 3} if kind == "VQModel" else {"scaling_factor": 0.5}
    theirs = randomised(getattr(diffusers, kind)(**{**SHAPE, **blocks, **own}), torch)
    theirs.save_pretrained(tmp_path / "vae")
    stage = first_stage.open_first_stage(converted(tmp_path / "vae", tmp_path))
    assert stage.scale == (0.5 if kind == "AutoencoderKL" else 0.0) and stage.network.groups == 8
    network, params = make_network(stage.network, dtype=jnp.float32), jax.tree.map(jnp.asarray, stage.params)
    z = np.asarray(network.apply(params, {}, jnp.asarray(IMAGES), method="encode")[0])
    with torch.no_grad():
        if kind == "VQModel":
            expected = nhwc(theirs.encode(nchw(IMAGES, torch)).latents)
            back = nhwc(theirs.decode(nchw(expected, torch)).sample)
        else:
            expected = nhwc(theirs.encode(nchw(IMAGES, torch)).latent_dist.parameters)
            back = nhwc(theirs.decode(nchw(expected[..., :4], torch)).sample)
    # KL: log-variances are clamped by the library.
    np.testing.assert_allclose(z[..., :4], expected[..., :4], atol=1e-4, rtol=1e-4)
    latents = expected if kind == "VQModel" else expected[..., :4]
    ours = network.apply(params, {}, jnp.asarray(latents), method="decode")[0]
    np.testing.assert_allclose(ours, back, atol=1e-4, rtol=1e-4)


UNETS = {
    "conv": {"resnet_time_scale_shift": "default", "attention_head_dim": 8},
    "film": {**FILM, "attention_head_dim": 16, "num_class_embeds": 3},
    "one head": {"attention_head_dim": None, "layers_per_block": 2},
    "residual": {
        **FILM,
        "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("ResnetUpsampleBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (32, 32, 64),
        "downsample_type": "resnet",
        "upsample_type": "resnet",
    },
}
BLOCKS = {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "sample_size": 16,
}


@pytest.mark.parametrize("name", UNETS)
def test_a_unet_computes_what_the_library_does(tmp_path, name):
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = randomised(diffusers.UNet2DModel(**{**BLOCKS, **UNETS[name]}), torch)
    theirs.save_pretrained(tmp_path / "pipeline" / "unet")
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    scheduler.save_pretrained(tmp_path / "pipeline" / "scheduler")
    out = converted(tmp_path / "pipeline" / "unet", tmp_path)
    about = safetensors_file.read_about(out)
    assert about["noise"] == {"schedule": "cosine", "num_steps": 1000} and about["prediction"] == "v"
    path = tmp_path / "pipeline" / "unet" / NAME
    found = from_diffusers.from_diffusers(torch_files.read_torch(path), where=str(path))
    network, params = make_network(found.config, dtype=jnp.float32), jax.tree.map(jnp.asarray, found.params)
    t = np.array([3, 700])
    classes = {"num_class_embeds": 3} if "num_class_embeds" in UNETS[name] else {}
    labels = np.array([2, 0])
    with torch.no_grad():
        told = {"class_labels": torch.from_numpy(labels)} if classes else {}
        expected = nhwc(theirs(nchw(IMAGES, torch), torch.from_numpy(t), **told).sample)
    ours = network.apply(params, {}, jnp.asarray(IMAGES), jnp.asarray(t), {"label": jnp.asarray(labels)}, None)[0]
    np.testing.assert_allclose(ours, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (None, "no such file"),
        ({"_class_name": "UNet2DConditionModel"}, "it is of a UNet2DConditionModel"),
        ({"_class_name": "AutoencoderKL", "use_quant_conv": False}, "use_quant_conv is False"),
        ({"_class_name": "UNet2DModel", "freq_shift": 1}, "freq_shift is 1"),
        ({"_class_name": "UNet2DModel", "resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups is None"),
        ({"_class_name": "AutoencoderKL", "block_out_channels": [8], "layers_per_block": 1}, "no place for odd"),
        ({"_class_name": "AutoencoderKL"}, "block_out_channels is missing"),
    ],
)
def test_what_is_no_network_of_ours_is_refused(tmp_path, config, why):
    safetensors.numpy.save_file({"odd.weight": np.zeros(3, np.float32)}, tmp_path / NAME)
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DiffpathError, match=why) as raised:
        from_diffusers.from_diffusers({"odd.weight": np.zeros(3, np.float32)}, where=str(tmp_path / NAME))
    assert raised.value.code in (ExitCode.BAD_INPUT, ExitCode.DAMAGED)


def test_queries_keys_and_values_part_and_join():
    state = {f"a.to_{part}.{leaf}": RNG.random((4, 4) if leaf == "weight" else 4) for part in "qkv" for leaf in LEAVES}
    again = diffusers_names.parted(diffusers_names.joined(state))
    assert again.keys() == state.keys() and all(np.array_equal(again[name], state[name]) for name in state)
    old = {name.replace("a.to_q", "attentions.0.query"): value for name, value in state.items()}
    assert {"attentions.0.to_q.weight", "attentions.0.to_q.bias"} <= diffusers_names.modern(old).keys()


LEAVES = ("weight", "bias")
