"""First stages, their discriminator and LPIPS against diffusers and published code, kept in tests/golden."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax.config.network import read_network
from diffpath_jax.networks import autoencoder, codecs, layers, patchgan
from diffpath_jax.networks.autoencoder import KLConfig, VQConfig
from diffpath_jax.networks.kinds import make_network
from diffpath_jax.networks.lpips import Lpips
from diffpath_jax.networks.pure import count_parameters, purify
from diffpath_jax.training.tasks import losses
from diffpath_jax.weights import from_lpips, from_vqgan, torch_files
from tests.golden import weights

GOLDEN = weights.load("first_stage.npz")
SMALL = {"channels": 32, "channel_mult": (1, 2)}
CASES = {
    "vq": VQConfig(channels=32, channel_mult=(1, 2, 2), num_res_blocks=1, codebook_size=24),
    "vq_attention": VQConfig(num_res_blocks=2, attention_downsamples=(2,), codebook_size=24, **SMALL),
    "kl": KLConfig(num_res_blocks=1, **SMALL),
}
# All comparisons are of float32 with double precision.
TOLERANCE = 1e-5


def normal(name, shape):
    return jnp.asarray(weights.normal(name, shape))


def pixels(name, shape):
    return codecs.to_unit(jnp.asarray(weights.integers(name, 256, shape), jnp.uint8))


def close(found, name):
    return weights.relative_error(found, GOLDEN[name]) < TOLERANCE


def filled(make, names, state):
    """A module, and its parameters from arrays by published names."""
    network = purify(make)
    like, _ = jax.eval_shape(network.init, jax.random.key(0))
    return network, torch_files.fill(like, names, state)


BLOCKS = {
    "resnet": (from_vqgan.BLOCK, lambda rngs: autoencoder.ResBlock(CASES["kl"], 32, 32, dtype=jnp.float32, rngs=rngs)),
    "resnet_skip": (
        from_vqgan.BLOCK,
        lambda rngs: autoencoder.ResBlock(CASES["kl"], 32, 64, dtype=jnp.float32, rngs=rngs),
    ),
    "attention": (
        from_vqgan.ATTENTION,
        lambda rngs: layers.SelfAttention(
            32, num_heads=1, groups=32, eps=autoencoder.EPS, dtype=jnp.float32, rngs=rngs
        ),
    ),
    "down": (
        {"": "conv"},
        lambda rngs: layers.conv3x3(
            32, 32, stride=2, padding=autoencoder.BELOW_AND_RIGHT, dtype=jnp.float32, rngs=rngs
        ),
    ),
    "up": ({"": "conv"}, lambda rngs: layers.conv3x3(32, 32, dtype=jnp.float32, rngs=rngs)),
}


@pytest.mark.parametrize("case", BLOCKS)
def test_blocks_are_diffusers(case):
    table, make = BLOCKS[case]
    state = {f"block.{name}": value for name, value in weights.state_dict(GOLDEN[f"{case}/names"]).items()}
    network, params = filled(make, torch_files.layers(table, prefix="block"), from_vqgan.join_qkv(state))
    x = normal(f"block {case}", (2, 4, 6, 32))
    out, _ = jax.jit(network.apply)(params, {}, layers.upsample2x(x) if case == "up" else x)
    assert close(out, f"{case}/out")


@functools.cache
def converted(case):
    """The golden autoencoder, read as its checkpoint would be: a function of (method, array)."""
    found = from_vqgan.from_vqgan(weights.state_dict(GOLDEN[f"{case}/names"]), where="golden")
    assert found.config == CASES[case]
    network = make_network(
        read_network(found.about()["network"], task="autoencoding", where="golden"), dtype=jnp.float32
    )
    apply = jax.jit(network.apply, static_argnames="method")
    return lambda method, x: apply(found.params, {}, x, method=method)[0]


@pytest.mark.parametrize("case", CASES)
def test_the_encoder_is_diffusers(case):
    assert close(converted(case)("encode", normal(f"{case} x", (2, 16, 24, 3))), f"{case}/code")


@pytest.mark.parametrize("case", CASES)
def test_the_decoder_is_diffusers(case):
    """Of the codebook's, quantisation included."""
    assert close(converted(case)("decode", normal(f"{case} z", (2, 4, 6, 3))), f"{case}/decoded")


@pytest.mark.parametrize("case", CASES)
def test_round_trips_are_diffusers(case):
    assert close(converted(case)("__call__", normal(f"{case} x", (2, 16, 24, 3))), f"{case}/round_trip")


@pytest.mark.parametrize("case", ["vq", "vq_attention"])
def test_codes_are_those_diffusers_takes(case):
    z_q, indices = converted(case)("quantise", normal(f"{case} z", (2, 4, 6, 3)))
    np.testing.assert_array_equal(indices, GOLDEN[f"{case}/indices"])
    assert len(np.unique(indices)) > 8
    assert close(z_q, f"{case}/z_q")


def test_the_divergence_is_diffusers():
    mean, variance = codecs.gaussian_moments(jnp.asarray(GOLDEN["kl/code"]))
    nats = losses.normal_kl(mean, jnp.log(variance), jnp.zeros_like(mean), jnp.zeros_like(mean)).sum(axis=(1, 2, 3))
    assert close(nats, "kl/nats")


def test_the_discriminator_is_the_published_one():
    """With the batch's own statistics, as in training; in the sequence of layers a norm and a ReLU follow each."""
    table = {"stem": "main.0", "out": "main.11"}
    table |= {f"convs.{i}": f"main.{2 + 3 * i}" for i in range(3)} | {
        f"norms.{i}": f"main.{3 + 3 * i}" for i in range(3)
    }
    config = patchgan.PatchGanConfig(width=16, num_layers=3)
    state = weights.state_dict(GOLDEN["critic/names"])
    make = lambda rngs: patchgan.PatchDiscriminator(config, dtype=jnp.float32, rngs=rngs)  # noqa: E731
    network, params = filled(make, torch_files.layers(table), state)
    _, statistics = network.init(jax.random.key(0))
    logits, _ = jax.jit(lambda *args: network.apply(*args, train=True))(
        params, statistics, pixels("critic x", (3, 40, 32, 3))
    )
    assert close(logits, "critic/logits")


@pytest.mark.full
def test_lpips_and_its_gradient_are_the_published_ones():
    params = from_lpips.from_lpips(weights.state_dict(GOLDEN["lpips/names"]), where="golden").params
    network = purify(lambda rngs: Lpips(rngs=rngs))
    a, b = (pixels(f"lpips {name}", (2, 32, 40, 3)) for name in "ab")
    distance = jax.jit(lambda b: network.apply(params, {}, a, b)[0])
    assert close(distance(b), "lpips/distance")
    assert close(jax.grad(lambda b: distance(b).sum())(b), "lpips/gradient")


def test_parameters_of_the_published_networks():
    """VQ-f4 part by part, and the discriminator."""
    network = purify(lambda rngs: autoencoder.VQAutoencoder(VQConfig(), dtype=jnp.float32, rngs=rngs))
    params, _ = jax.eval_shape(network.init, jax.random.key(0))
    parts = {name: sum(leaf.size for leaf in jax.tree.leaves(part)) for name, part in params.items()}
    expected = {"encoder": 22_337_411, "decoder": 32_960_771, "quant": 12, "post_quant": 12, "codebook": 24_576}
    assert parts == expected and sum(parts.values()) == 55_322_782
    critic = patchgan.PatchGanConfig()
    judge = purify(lambda rngs: patchgan.PatchDiscriminator(critic, dtype=jnp.float32, rngs=rngs))
    assert count_parameters(judge) == 2_765_633


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        # VQ-f4 without its codebook; the encoder's last convolution gives 3 channels more, of 9 x 512 weights and a
        # bias each, and the first 1x1 convolution is 6 x 6 + 6 instead of 3 x 3 + 3.
        (KLConfig(), 55_322_782 - 24_576 + 3 * (9 * 512 + 1) + 30),
        # KL-f8, the first stage of Stable Diffusion, as its model card and diffusers have it.
        (KLConfig(channel_mult=(1, 2, 4, 4), latent_channels=4), 83_653_863),
    ],
    ids=["KL-f4", "KL-f8"],
)
def test_parameters_of_published_kl_autoencoders(config, parameters):
    network = purify(lambda rngs: autoencoder.KLAutoencoder(config, dtype=jnp.float32, rngs=rngs))
    assert count_parameters(network) == parameters
