"""The Inception network of FID against torch-fidelity's, layer by layer, and the quirks of its graph."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffpath_jax.evaluation.features.inception import SPATIAL_BLOCK, spatial, unbiased_logits
from diffpath_jax.evaluation.features.resize import resize
from diffpath_jax.networks import inception
from diffpath_jax.networks.pure import count_parameters, purify
from diffpath_jax.weights import from_inception as published
from tests.golden import weights

GOLDEN = weights.load("inception.npz")
STAGES = [name.removeprefix("stages/") for name in GOLDEN if name.startswith("stages/")]
NETWORK = purify(lambda rngs: inception.InceptionV3(rngs=rngs))


@functools.cache
def params():
    return published.from_inception(weights.state_dict(GOLDEN["names"]), where="golden").params


def pixels(name, height, width, batch):
    return jnp.asarray(weights.integers(name, 256, (batch, height, width, 3)).astype(np.uint8))


@functools.cache
def small():
    """Every stage on images that are small, not square, and not resized."""
    images = pixels("inception small", 107, 123, 2).astype(jnp.float32)
    return jax.jit(lambda params, x: NETWORK.apply(params, {}, x)[0])(params(), images)


def some(x):
    """The numbers of a stage that the golden file keeps."""
    count = len(GOLDEN["stages/Mixed_5b"])
    return np.asarray(x).reshape(-1)[:: max(1, x.size // count)][:count]


def test_the_golden_file_has_every_stage():
    assert [name.capitalize() for name in small().stages] == STAGES


@pytest.mark.parametrize("stage", STAGES)
def test_stage(stage):
    found = small().stages[stage[0].lower() + stage[1:]]
    assert weights.relative_error(some(found), GOLDEN[f"stages/{stage}"]) < 1e-5


@pytest.mark.parametrize("what", ["features", "logits"])
def test_features_and_logits(what):
    assert weights.relative_error(getattr(small(), what), GOLDEN[f"small/{what}"]) < 1e-5


def test_from_pixels_to_features():
    images = pixels("inception whole", 64, 64, 1)
    found = jax.jit(lambda params, x: NETWORK.apply(params, {}, resize(x, "tf_bilinear"))[0][1:])(params(), images)
    for ours, name in zip(found, ("features", "logits"), strict=True):
        assert weights.relative_error(ours, GOLDEN[f"whole/{name}"]) < 1e-5
    unbiased = unbiased_logits(params(), inception.Activations({}, *found))
    assert weights.relative_error(unbiased, GOLDEN["whole/logits_unbiased"]) < 1e-5


@pytest.mark.full
def test_spatial_features_are_the_first_seven_channels_of_17_by_17():
    """As guided diffusion's evaluator reads them: "mixed_6/conv", the graph's name of the block's first branch."""
    assert list(inception.BLOCKS).index(SPATIAL_BLOCK) == 6
    images = jax.ShapeDtypeStruct((2, 299, 299, 3), jnp.float32)
    whole = jax.eval_shape(lambda params, x: NETWORK.apply(params, {}, x)[0], params(), images)
    assert whole.stages[SPATIAL_BLOCK].shape == (2, 17, 17, 768)
    assert jax.eval_shape(lambda own: spatial({}, own), whole).shape == (2, 2023)


def test_spatial_features_are_of_the_first_branch():
    block, x = (
        inception.Mixed(8, inception.BLOCKS[SPATIAL_BLOCK], rngs=nnx.Rngs(0)),
        weights.normal("spatial", (1, 4, 5, 8)),
    )
    first = block.layers["branch1x1"](jnp.asarray(x))
    activations = inception.Activations(
        {SPATIAL_BLOCK: block(jnp.asarray(x))}, jnp.zeros((1, 2048)), jnp.zeros((1, 1008))
    )
    np.testing.assert_allclose(
        spatial({}, activations), np.asarray(first[..., :7]).reshape(1, -1), rtol=1e-5, atol=1e-6
    )


def test_parameters_are_those_of_the_original_with_two_numbers_a_norm_made_one():
    norms = sum(int(str(line).split()[1]) for line in GOLDEN["names"] if ".bn.weight" in str(line))
    assert count_parameters(NETWORK) == int(GOLDEN["parameters"]) - norms == 23_833_744


def neighbours(x, combine):
    """``combine`` over the 3x3 pixels around each pixel, as many as there are."""
    height, width = x.shape[1:3]
    out = np.empty_like(x)
    for i in range(height):
        for j in range(width):
            out[:, i, j] = combine(x[:, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2], axis=(1, 2))
    return out


@pytest.mark.parametrize("name", [name for name, block in inception.BLOCKS.items() if block.pool != "max_halved"])
def test_pool_of_a_block(name):
    """Means leave padding out; the last block, and no other, pools by maximum."""
    x = weights.normal("pooled", (2, 4, 5, 8))
    block = inception.Mixed(8, inception.BLOCKS[name], rngs=nnx.Rngs(0))
    layer = block.layers["branch_pool"]
    layer.kernel[...] = jnp.eye(8, layer.kernel.shape[-1])[None, None]
    found = block(jnp.asarray(x))[..., -layer.kernel.shape[-1] :][..., :8]
    expected = neighbours(x, np.max if name == "mixed_7c" else np.mean)
    np.testing.assert_allclose(found, expected.clip(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["mixed_6a", "mixed_7a"])
def test_a_block_that_halves_passes_on_the_maximum(name):
    x = weights.normal("halved", (2, 7, 9, 8))
    block = inception.Mixed(8, inception.BLOCKS[name], rngs=nnx.Rngs(0))
    found = block(jnp.asarray(x))
    assert found.shape == (2, 3, 4, block.num_outputs)
    np.testing.assert_array_equal(found[..., -8:], neighbours(x, np.max)[:, 1:-1:2, 1:-1:2])


@pytest.mark.parametrize(("kernel", "stride"), [((3, 3), 1), ((3, 3), 2)])
def test_convolution_without_padding(monkeypatch, kernel, stride):
    """The way round a slow path of the CPU changes nothing."""
    layer = inception.ConvNorm(3, 4, kernel, stride=stride, padded=False, rngs=nnx.Rngs(0))
    for side in (9, 10):
        x = jnp.asarray(weights.normal("unpadded", (2, side, 7, 3)))
        here = layer(x)
        with monkeypatch.context() as patch:
            patch.setattr(jax, "default_backend", lambda: "gpu")
            there = layer(x)
        np.testing.assert_allclose(here, there, rtol=1e-5, atol=1e-6)
