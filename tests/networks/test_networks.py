"""Networks against closed forms, invariants, and exact parameter counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffpath_jax.networks import layers
from diffpath_jax.networks.classifier_adm import NoisyClassifier, NoisyClassifierConfig
from diffpath_jax.networks.pure import count_parameters, purify
from diffpath_jax.networks.resnet import ResNet, ResNetConfig
from diffpath_jax.networks.unet_adm import UNet, UNetConfig
from diffpath_jax.networks.unet_authors import AuthorsUNet, AuthorsUNetConfig
from tests.conftest import random_parameters

TINY = UNetConfig(
    num_classes=3, channels=16, channel_mult=(1, 2), num_res_blocks=1, attention_downsamples=(2,), groups=8
)


def unet(config):
    return purify(lambda rngs: UNet(config, dtype=jnp.float32, rngs=rngs))


def resnet(config):
    return purify(lambda rngs: ResNet(config, dtype=jnp.float32, rngs=rngs))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (UNetConfig(num_classes=1000, learn_sigma=True), 421_529_606),
        (UNetConfig(num_classes=6, learn_sigma=True), 420_511_750),
        (UNetConfig(num_classes=6), 420_504_835),
        (UNetConfig(num_classes=6, channels=128, learn_sigma=True), 105_201_670),
    ],
)
def test_parameters_of_the_published_unet(config, expected):
    assert count_parameters(unet(config)) == expected


@pytest.mark.parametrize(("classes", "expected"), [(1000, 42_568_040), (5, 42_057_605)])
def test_parameters_of_the_published_noisy_classifier(classes, expected):
    config = NoisyClassifierConfig(num_classes=classes)
    assert count_parameters(purify(lambda rngs: NoisyClassifier(config, dtype=jnp.float32, rngs=rngs))) == expected


def test_parameters_of_the_authors_unet():
    """Five classes; the null class adds no row, as in the authors' code."""
    config = AuthorsUNetConfig(num_classes=6)
    assert count_parameters(purify(lambda rngs: AuthorsUNet(config, dtype=jnp.float32, rngs=rngs))) == 58_663_683


@pytest.mark.parametrize(("classes", "expected"), [(1000, 25_557_032), (5, 23_518_277)])
def test_parameters_of_resnet_50(classes, expected):
    assert count_parameters(resnet(ResNetConfig(num_classes=classes))) == expected


def test_published_unet_keeps_the_image_size():
    network = unet(UNetConfig(num_classes=6, learn_sigma=True))
    params, state = jax.eval_shape(network.init, jax.random.key(0))
    for side in (64, 224):
        x = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
        number = jax.ShapeDtypeStruct((2,), jnp.int32)
        out, _ = jax.eval_shape(network.apply, params, state, x, number, {"label": number})
        assert out.shape == (2, side, side, 6)


def jitted(network, **options):
    return jax.jit(functools.partial(network.apply, **options))


@pytest.mark.full
def test_unet_uses_label_and_time_and_sees_the_whole_image():
    network = unet(TINY)
    params, state = random_parameters(network.init)
    x = jax.random.normal(jax.random.key(2), (1, 16, 16, 3))

    apply = jitted(network)

    def call(x, t, y):
        return apply(params, state, x, jnp.array([t]), {"label": jnp.array([y])})[0]

    out = call(x, 5, 0)
    assert float(jnp.abs(call(x, 5, 1) - out).max()) > 1e-4
    assert float(jnp.abs(call(x, 50, 0) - out).max()) > 1e-4
    # One corner is felt everywhere: convolutions reach some of the way, attention the rest.
    changed = jnp.abs(call(x.at[0, 0, 0].add(1.0), 5, 0) - out).max(axis=-1)
    assert bool((changed > 0).all())


@pytest.mark.parametrize(
    "network",
    [unet(TINY), resnet(ResNetConfig(num_classes=2, width=4, stage_sizes=(1,)))],
    ids=["parameters", "and state"],
)
def test_shapes_are_those_of_fresh_parameters(network):
    assert network.shapes == jax.eval_shape(network.init, jax.random.key(0))


def test_unet_starts_at_zero():
    network = unet(TINY)
    params, state = jax.jit(network.init)(jax.random.key(0))
    out, _ = jitted(network)(params, state, jnp.ones((1, 16, 16, 3)), jnp.array([3]), {"label": jnp.array([0])})
    assert float(jnp.abs(out).max()) == 0


def test_unet_refuses_a_size_off_its_stride():
    network = unet(TINY)
    params, state = jax.eval_shape(network.init, jax.random.key(0))
    with pytest.raises(ValueError, match="multiple of 2"):
        jax.eval_shape(
            network.apply, params, state, jnp.ones((1, 15, 16, 3)), jnp.array([3]), {"label": jnp.array([0])}
        )


def test_unet_dropout_needs_a_key():
    network = unet(UNetConfig(**{**TINY.__dict__, "dropout": 0.5}))
    params, state = random_parameters(network.init)
    inputs = (jnp.ones((1, 16, 16, 3)), jnp.array([3]), {"label": jnp.array([0])})
    apply = jitted(network)
    first, _ = apply(params, state, *inputs)
    again, _ = apply(params, state, *inputs)
    dropped, _ = apply(params, state, *inputs, jax.random.key(0))
    np.testing.assert_array_equal(first, again)
    assert float(jnp.abs(dropped - first).max()) > 0


@pytest.mark.parametrize(
    "options", [pytest.param({"remat": True}, marks=pytest.mark.full), {"stem_block": 2, "learn_sigma": True}]
)
def test_unet_options_keep_shapes_and_gradients(options):
    """Rematerialisation changes nothing but memory; a learned variance doubles the channels at any stem."""
    plain, other = unet(TINY), unet(UNetConfig(**{**TINY.__dict__, **options}))
    x, t, y = jnp.ones((1, 16, 16, 3)), jnp.array([3]), {"label": jnp.array([0])}

    def gradient(network):
        params, state = random_parameters(network.init)
        return jax.jit(jax.grad(lambda p: jnp.square(network.apply(p, state, x, t, y)[0]).mean()))(params)

    if "remat" in options:
        for a, b in zip(jax.tree.leaves(gradient(plain)), jax.tree.leaves(gradient(other)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4)
    else:
        params, state = jax.eval_shape(other.init, jax.random.key(0))
        assert jax.eval_shape(other.apply, params, state, x, t, y)[0].shape == (1, 16, 16, 6)


@pytest.mark.full
@pytest.mark.parametrize(
    ("kind", "config", "inputs"),
    [
        (UNet, UNetConfig(**{**TINY.__dict__, "channels": 32, "groups": 32}), 3),
        (NoisyClassifier, NoisyClassifierConfig(3, channels=32, channel_mult=(1, 2), num_res_blocks=1,
         pool_side=8, attention_downsamples=(2,), head_channels=16), 2),
        (AuthorsUNet, AuthorsUNetConfig(3, channels=32, channel_mult=(1, 2), attention_levels=(1,)), 3),
    ],
)  # fmt: skip
def test_half_precision_is_of_activations_alone(kind, config, inputs):
    """Parameters stay float32, the result is float32 and close, and neighbouring timesteps stay apart."""
    networks = {d: purify(lambda rngs, d=d: kind(config, dtype=d, rngs=rngs)) for d in (jnp.float32, jnp.bfloat16)}
    params, state = random_parameters(networks[jnp.float32].init)
    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(networks[jnp.bfloat16].init, jax.random.key(0)))} == {
        jnp.dtype(jnp.float32)
    }
    x = jax.random.normal(jax.random.key(2), (2, 16, 16, 3))
    rest = (jnp.array([998, 999]), {"label": jnp.array([0, 1])})[: inputs - 1]
    exact, half = (jitted(network)(params, state, x, *rest)[0] for network in networks.values())
    assert half.dtype == jnp.float32
    assert float(jnp.abs(half - exact).max() / jnp.abs(exact).max()) < 0.03


@pytest.mark.parametrize("shape", [(2, 5, 7, 12), (3, 12)])
def test_group_norm_is_its_definition(shape):
    x = np.random.default_rng(0).normal(3, 2, shape).astype(np.float32)
    norm = layers.GroupNorm(12, groups=4)
    grouped = x.astype(np.float64).reshape(shape[0], -1, 4, 3)
    expected = (grouped - grouped.mean((1, 3), keepdims=True)) / np.sqrt(grouped.var((1, 3), keepdims=True) + 1e-5)
    np.testing.assert_allclose(norm(jnp.asarray(x)), expected.reshape(shape), atol=1e-5)


def test_attention_is_its_definition():
    """Heads split before q, k, v; each of q and k scaled by d^-1/4; numpy, one query at a time."""
    layer = layers.SelfAttention(8, num_heads=2, groups=4, dtype=jnp.float32, rngs=nnx.Rngs(0))
    layer.out.kernel[...] = jax.random.normal(jax.random.key(1), (8, 8))
    x = jax.random.normal(jax.random.key(2), (1, 2, 3, 8))
    qkv = np.asarray(layer.qkv(layer.norm(x))).reshape(6, 24)
    heads = []
    for head in range(2):
        q, k, v = (qkv[:, head * 12 + 4 * i : head * 12 + 4 * (i + 1)] for i in range(3))
        scores = np.exp(q @ k.T / np.sqrt(4))
        heads.append(scores / scores.sum(axis=1, keepdims=True) @ v)
    expected = np.concatenate(heads, axis=1) @ np.asarray(layer.out.kernel[...]) + np.asarray(x).reshape(6, 8)
    np.testing.assert_allclose(np.asarray(layer(x)).reshape(6, 8), expected, atol=1e-4)


def test_space_to_depth_round_trip():
    x = jnp.arange(2 * 8 * 12 * 3, dtype=jnp.float32).reshape(2, 8, 12, 3)
    packed = layers.space_to_depth(x, 4)
    assert packed.shape == (2, 2, 3, 48)
    np.testing.assert_array_equal(packed[0, 0, 0].reshape(4, 4, 3), x[0, :4, :4])
    np.testing.assert_array_equal(layers.depth_to_space(packed, 4), x)


def test_resampling():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(layers.downsample2x(x)[0, :, :, 0], [[2.5, 4.5], [10.5, 12.5]])
    np.testing.assert_array_equal(layers.downsample2x(layers.upsample2x(x)), x)


def test_resnet_remembers_statistics_only_in_training():
    network = resnet(ResNetConfig(num_classes=2, width=4, stage_sizes=(1, 1), small_images=True))
    params, state = jax.jit(network.init)(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (8, 16, 16, 3)) + 2
    (_, features), kept = jitted(network, train=False)(params, state, x)
    assert features.shape == (8, 32)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), state, kept))
    _, moved = jitted(network, train=True)(params, state, x)
    assert not jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), state, moved))
