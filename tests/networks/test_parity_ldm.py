"""The UNet of latent diffusion against diffusers' implementation, kept in tests/golden, and its exact fast path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax.networks import layers, unet_ldm
from diffpath_jax.networks.pure import purify
from diffpath_jax.networks.unet_ldm import LatentUNet, LatentUNetConfig, SpatialTransformer, TransformerBlock
from diffpath_jax.weights import from_ldm, torch_files
from tests.conftest import random_parameters
from tests.golden import weights

GOLDEN = weights.load("ldm_unet.npz")
T, LABELS = jnp.array([3, 870]), jnp.array([1, 3])
COMMON = {"num_classes": 4, "channels": 32, "channel_mult": (1, 2), "context_width": 16}
ONE = LatentUNetConfig(num_res_blocks=1, attention_downsamples=(2,), num_heads=1, **COMMON)
TWO = LatentUNetConfig(num_res_blocks=2, attention_downsamples=(1, 2), num_heads=4, **COMMON)


def normal(name, shape):
    return jnp.asarray(weights.normal(name, shape))


def unet(config):
    return purify(lambda rngs: LatentUNet(config, dtype=jnp.float32, rngs=rngs))


def checkpoint(case):
    """The golden network's arrays as a checkpoint of latent diffusion names them."""
    classes = weights.state_dict(GOLDEN["classes/names"])
    return {
        **{from_ldm.UNET + name: value for name, value in weights.state_dict(GOLDEN[f"{case}/names"]).items()},
        **classes,
    }


@pytest.mark.parametrize(("case", "config", "shape"), [("one", ONE, (2, 8, 8, 3)), ("two", TWO, (2, 4, 6, 3))])
@pytest.mark.parametrize("told", ["class", pytest.param("tokens", marks=pytest.mark.full)])
def test_the_unet_is_diffusers(case, config, shape, told, monkeypatch):
    """With a class token, which takes the fast path, and with three tokens, which does not."""
    converted = from_ldm.from_ldm(checkpoint(case), num_heads=config.num_heads, where="golden")
    assert converted.config == config
    if told == "tokens":
        context = normal("ldm context", (2, 3, 16))
        monkeypatch.setattr(LatentUNet, "_condition", lambda self, time, classes: (time, context))
    x = normal("ldm x" if case == "one" else "ldm wide x", shape)
    out, _ = jax.jit(unet(config).apply)(converted.params, {}, x, T, {"label": LABELS})
    assert weights.relative_error(out, GOLDEN[f"{case}/{told}"]) < 1e-5


@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize("heads", [1, 4])
def test_transformer_blocks_are_diffusers(heads, tokens):
    config = LatentUNetConfig(num_classes=1, num_heads=heads, context_width=16, transformer_depth=2)
    context = normal(f"ldm context {tokens}", (2, tokens, 16))
    for module, name, table, x in (
        (TransformerBlock, "block", from_ldm.BLOCK, normal("ldm block x", (2, 6, 32))),
        (SpatialTransformer, "spatial", from_ldm.transformer_table(2), normal("ldm spatial x", (2, 2, 3, 32))),
    ):
        network = purify(lambda rngs, module=module: module(config, 32, dtype=jnp.float32, rngs=rngs))
        like, _ = jax.eval_shape(network.init, jax.random.key(0))
        state = weights.state_dict(GOLDEN[f"{name}_{heads}/names"])
        params = torch_files.fill(like, torch_files.layers(table), state)
        out, _ = network.apply(params, {}, x, context)
        assert weights.relative_error(out, GOLDEN[f"{name}_{heads}/{tokens}"]) < 1e-5


def test_one_token_is_exactly_what_softmax_makes_of_it():
    """The fast path against attention itself, values and gradients; queries and keys have none either way."""
    network = purify(lambda rngs: unet_ldm.Attention(8, 5, num_heads=2, dtype=jnp.float32, rngs=rngs))
    params, _ = random_parameters(network.init)
    x, token = normal("x", (2, 6, 8)), normal("token", (2, 1, 5))

    def in_full(params):
        q, k, v = (x @ params["q"]["kernel"], token @ params["k"]["kernel"], token @ params["v"]["kernel"])
        q, k, v = (part.reshape(*part.shape[:2], 2, 4) for part in (q, k, v))
        return layers.attention(q, k, v).reshape(x.shape) @ params["out"]["kernel"] + params["out"]["bias"]

    def fast(params):
        return network.apply(params, {}, x, token)[0]

    np.testing.assert_allclose(fast(params), in_full(params), atol=1e-6)
    found, expected = (jax.grad(lambda p, of=of: jnp.square(of(p)).sum())(params) for of in (fast, in_full))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    assert not np.any(found["q"]["kernel"]) and not np.any(found["k"]["kernel"])


@pytest.mark.full
def test_the_class_reaches_every_place_of_attention_and_the_time_all_blocks():
    """Fresh networks are zero at their ends, so parameters are drawn; then both must matter."""
    network = unet(ONE)
    params, _ = random_parameters(network.init)
    x = normal("ldm x", (2, 8, 8, 3))
    told = ((T, LABELS), (T, LABELS - 1), (T + 100, LABELS))
    outs = [network.apply(params, {}, x, t, {"label": y})[0] for t, y in told]
    assert all(float(jnp.abs(outs[0] - other).max()) > 1e-3 for other in outs[1:])


def test_any_multiple_of_the_stride_and_any_number_of_channels():
    config = LatentUNetConfig(
        num_classes=6, channels=32, num_res_blocks=1, attention_downsamples=(8,), image_channels=4
    )
    assert config.stride == 8
    network = unet(config)
    params, _ = jax.eval_shape(network.init, jax.random.key(0))
    number = jax.ShapeDtypeStruct((2,), jnp.int32)
    for height, width in ((16, 16), (56, 40)):
        x = jax.ShapeDtypeStruct((2, height, width, 4), jnp.float32)
        assert jax.eval_shape(network.apply, params, {}, x, number, {"label": number})[0].shape == x.shape
    with pytest.raises(ValueError, match="not a multiple of 8"):
        jax.eval_shape(
            network.apply, params, {}, jax.ShapeDtypeStruct((2, 12, 16, 4), jnp.float32), number, {"label": number}
        )
