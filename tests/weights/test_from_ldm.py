"""Checkpoints of latent diffusion: the UNet of the file, averaged or not, every name used once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.networks.pure import purify
from diffpath_jax.networks.unet_ldm import LatentUNet, LatentUNetConfig
from diffpath_jax.weights import from_ldm, safetensors_file
from tests.conftest import random_parameters
from tests.golden import weights
from tests.weights import published

GOLDEN = weights.load("ldm_unet.npz")


FIRST_STAGE = "first_stage_model.encoder.conv_in.weight"


def plain():
    """A checkpoint without a moving average."""
    unet = {from_ldm.UNET + name: value for name, value in weights.state_dict(GOLDEN["one/names"]).items()}
    return unet | weights.state_dict(GOLDEN["classes/names"])


@pytest.fixture
def checkpoint():
    """A checkpoint with a moving average, a first stage and the buffers that come with them."""
    unet = weights.state_dict(GOLDEN["one/names"])
    averages = {from_ldm.AVERAGE + name.replace(".", ""): value + 1 for name, value in unet.items()}
    decay = {"model_ema.decay": np.float32(0.9999), "model_ema.num_updates": np.float32(7)}
    other = {FIRST_STAGE: np.zeros((8, 3, 3, 3), np.float32), "betas": np.zeros(1000, np.float32)}
    return plain() | averages | decay | other


def test_the_average_is_taken_where_there_is_one(checkpoint):
    mean, raw = (from_ldm.from_ldm(checkpoint, raw_parameters=flag, where="test") for flag in (False, True))
    np.testing.assert_allclose(mean.params["out_conv"]["kernel"], raw.params["out_conv"]["kernel"] + 1, rtol=1e-6)
    # The class embedding is trained beside the UNet and has no average.
    np.testing.assert_array_equal(mean.params["classes"]["embedding"], raw.params["classes"]["embedding"])
    alone = from_ldm.from_ldm(plain(), where="test")
    np.testing.assert_array_equal(alone.params["out_conv"]["bias"], raw.params["out_conv"]["bias"])
    # All that is not used is counted.
    arrays, other = len(GOLDEN["one/names"]), {"first_stage_model": 1, "betas": 1}
    assert mean.unused == {"model": arrays, "model_ema": 2, **other}
    assert raw.unused == {"model_ema": arrays + 2, **other}
    assert alone.unused == {}


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (LatentUNetConfig(num_classes=1001, channel_mult=(1, 2, 3, 5)), 400_920_579),
        (
            LatentUNetConfig(
                num_classes=3, channels=32, channel_mult=(1, 2), attention_downsamples=(1,), image_channels=4,
                transformer_depth=2, context_width=24, num_res_blocks=1, learn_sigma=True,
            ),
            None,
        ),
    ],
    ids=["cin256-v2", "other"],
)  # fmt: skip
def test_shapes_are_read_off_the_arrays(config, parameters):
    """With the published number: the class embedding, a module of its own there, is not counted."""
    like = published.shapes(LatentUNet, config)
    state = published.empty(
        like, from_ldm.from_adm.adm_names(like, attention=from_ldm.transformer_table(config.transformer_depth))
    )
    assert from_ldm.ldm_config(state, num_heads=config.num_heads, head_channels=0) == config
    if parameters:
        assert sum(leaf.size for leaf in jax.tree.leaves(like)) - 512 * config.num_classes == parameters


TO_K = from_ldm.UNET + "input_blocks.3.1.transformer_blocks.0.attn2.to_k.weight"
AVERAGED = from_ldm.AVERAGE + "out2bias"


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda s: s.clear(), r"cond_stage_model.embedding.weight is missing"),
        (lambda s: s.pop(from_ldm.CLASSES), r"cond_stage_model.embedding.weight is missing"),
        (lambda s: s.pop(AVERAGED), f"{AVERAGED} is missing"),
        (lambda s: s.pop(TO_K), "is missing"),
        (lambda s: [s.pop(name) for name in list(s) if "attn2.to_k" in name], "no cross-attention"),
        (lambda s: s.update({from_ldm.UNET + "extra": np.zeros(3, np.float32)}), "not used: extra"),
        (
            lambda s: s.update({from_ldm.UNET + "out.0.weight": np.zeros(7, np.float32)}),
            r"out.0.weight \(7,\) does not fit",
        ),
        (lambda s: s.update({from_ldm.UNET + "out.2.bias": np.full(3, np.nan, np.float32)}), "not finite"),
    ],
)
def test_a_checkpoint_that_is_not_the_network_is_refused(checkpoint, spoil, why):
    state = checkpoint if "model_ema" in why else plain()
    spoil(state)
    with pytest.raises(DiffpathError, match=why) as caught:
        from_ldm.from_ldm(state, where="test")
    assert caught.value.code == ExitCode.DAMAGED


def test_the_command_writes_what_a_config_can_start_from(tmp_path, checkpoint, capsys):
    """Another number of classes starts from the mean class."""
    safetensors_file.write_parameters(tmp_path / "ldm.safetensors", checkpoint, {})
    words = ["convert", "--from", "ldm", "--file", tmp_path / "ldm.safetensors", "--out", tmp_path / "ours.safetensors"]
    assert cli.main([str(word) for word in (*words, "--num_heads", 2, "--raw_parameters")]) == 0
    assert "betas (1), first_stage_model (1), model_ema" in capsys.readouterr().err
    flat, about = safetensors_file.read_parameters(tmp_path / "ours.safetensors")
    network = about["network"]
    assert (network["kind"], network["context_width"], network["num_heads"]) == ("unet_ldm", 16, 2)
    config = LatentUNetConfig(
        num_classes=3, channels=32, channel_mult=(1, 2), num_res_blocks=1, context_width=16, attention_downsamples=(2,)
    )
    fresh, _ = random_parameters(purify(lambda rngs: LatentUNet(config, dtype=jnp.float32, rngs=rngs)).init)
    adapted = safetensors_file.adapt(flat, fresh, where="test")
    assert [note.split(":")[0] for note in adapted.notes] == ["classes.embedding"]
    rows = np.asarray(adapted.params["classes"]["embedding"])
    np.testing.assert_allclose(rows, np.tile(flat["classes.embedding"].mean(axis=0), (3, 1)), rtol=1e-6)
