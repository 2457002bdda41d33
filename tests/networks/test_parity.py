"""Networks against their PyTorch originals: outputs and gradients kept in tests/golden, beside what made them.

The two sides share no code: weights and inputs are drawn from the parameters' published names on both.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffpath_jax.networks import adm, layers
from diffpath_jax.networks.classifier_adm import AttentionPool, NoisyClassifier, NoisyClassifierConfig
from diffpath_jax.networks.pure import purify
from diffpath_jax.networks.unet_adm import UNet, UNetConfig
from diffpath_jax.networks.unet_authors import AuthorsUNet, AuthorsUNetConfig
from diffpath_jax.weights import from_adm as published_adm
from diffpath_jax.weights import torch_files
from tests.golden import weights

BLOCKS, LAYERS, NETWORKS = (weights.load(f"adm_{name}.npz") for name in ("blocks", "layers", "networks"))
GRADIENTS, AUTHORS = weights.load("adm_gradients.npz"), weights.load("authors.npz")

FILM = UNetConfig(
    num_classes=4,
    channels=32,
    channel_mult=(1, 2, 2),
    num_res_blocks=1,
    attention_downsamples=(2, 4),
    num_heads=4,
    learn_sigma=True,
)
PLAIN = UNetConfig(
    num_classes=0,
    channels=32,
    channel_mult=(1, 2),
    num_res_blocks=2,
    attention_downsamples=(1, 2),
    head_channels=16,
    film=False,
    resample="conv",
)
CLASSIFIER = NoisyClassifierConfig(
    num_classes=5,
    channels=32,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_downsamples=(2,),
    head_channels=16,
    pool_side=8,
)
# What the golden networks were given.
T, LABELS = jnp.array([3, 870]), jnp.array([1, 3])


def normal(name, shape):
    return jnp.asarray(weights.normal(name, shape))


@functools.cache
def network(kind, config):
    return purify(lambda rngs: kind(config, dtype=jnp.float32, rngs=rngs))


def on_device(params):
    return jax.tree.map(jnp.asarray, params)


@functools.cache
def tree(pure):
    return jax.eval_shape(pure.init, jax.random.key(0))[0]


def published(pure, names):
    return on_device(published_adm.adm_params(weights.state_dict(names), tree(pure)))


def predict(pure, names, *inputs):
    return jax.jit(lambda params: pure.apply(params, {}, *inputs)[0])(published(pure, names))


def call(make, table, names, *inputs):
    """Output of one layer with published weights."""
    pure = purify(make)
    params = on_device(torch_files.fill(tree(pure), torch_files.layers(table), weights.state_dict(names)))
    return jax.jit(lambda params: pure.apply(params, {}, *inputs)[0])(params)


def check(ours, reference, limit=1e-5):
    assert weights.relative_error(ours, reference) <= limit


def published_layout(kernel):
    """The inverse of what :func:`checkpoints.fill` does."""
    return kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T


def gradient_norms(like, names, gradients, order):
    """Norm of the gradient of each published parameter, in the order of a listing."""
    # Filling our tree with each parameter's number tells where it went.
    numbers = {name: np.full(value.shape, i) for i, (name, value) in enumerate(weights.state_dict(order).items())}
    where = jax.tree.leaves(jax.tree.map(lambda a: int(a.flat[0]), torch_files.fill(like, names, numbers)))
    norms = np.zeros(len(numbers))
    norms[where] = [np.linalg.norm(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(gradients)]
    return norms


def check_norms(norms, reference, limit=1e-5):
    """Each norm within ``limit`` of itself or of a hundredth of the largest: some are zero but for rounding."""
    np.testing.assert_allclose(norms, reference, rtol=limit, atol=0.01 * limit * reference.max())


def test_timestep_embedding():
    # Angles up to 999 in single precision on both sides: one unit in the last place is 6e-5.
    check(layers.fourier_features(jnp.array([0, 1, 17, 500, 999]), 32), LAYERS["timesteps/out"], 1e-4)


@pytest.mark.parametrize(
    ("case", "width", "film", "resampling"),
    [
        ("same", 64, True, "none"),
        ("wide", 96, True, "none"),
        ("up", 64, True, "up"),
        ("down", 64, True, "down"),
        ("added", 96, False, "none"),
        ("added_down", 64, False, "down"),
    ],
)
def test_residual_block(case, width, film, resampling):
    config = adm.AdmConfig(num_classes=0, channels=8, film=film)

    def block(rngs):
        return adm.ResBlock(config, 64, width, resampling=resampling, dtype=jnp.float32, rngs=rngs)

    x = normal(f"{case} x", (2, 2 if case == "up" else 4, 4, 64))
    embedding = normal(f"{case} embedding", (2, 32))
    check(call(block, published_adm.BLOCK, BLOCKS[f"{case}/names"], x, embedding, None), BLOCKS[f"{case}/out"])


@pytest.mark.parametrize(
    ("case", "heads", "shape"),
    [("attention_1", 1, (2, 4, 6, 64)), ("attention_4", 4, (2, 4, 6, 64)), ("attention_of_16", 4, (2, 3, 2, 64))],
)
def test_attention(case, heads, shape):
    def attention(rngs):
        return layers.SelfAttention(64, num_heads=heads, groups=32, dtype=jnp.float32, rngs=rngs)

    out = call(attention, published_adm.ATTENTION, LAYERS[f"{case}/names"], normal(f"{case} x", shape))
    check(out, LAYERS[f"{case}/out"])


@pytest.mark.parametrize(
    ("resampling", "table", "shape"),
    [("down", published_adm.DOWN, (2, 4, 6, 32)), ("up", published_adm.UP, (2, 2, 3, 32))],
)
def test_resampling_by_convolution(resampling, table, shape):
    def resample(rngs):
        return adm.ConvResample(32, resampling=resampling, dtype=jnp.float32, rngs=rngs)

    inputs = (normal(f"conv_{resampling} x", shape), jnp.zeros((2, 1)), None)
    out = call(resample, table, LAYERS[f"conv_{resampling}/names"], *inputs)
    check(out, LAYERS[f"conv_{resampling}/out"])


def attention_pool(rngs):
    return AttentionPool(64, 5, side=4, head_channels=16, dtype=jnp.float32, rngs=rngs)


def test_attention_pool():
    out = call(attention_pool, published_adm.POOL, LAYERS["pool/names"], normal("pool x", (2, 4, 4, 64)))
    check(out, LAYERS["pool/out"])


def test_attention_pool_at_another_size():
    """No original exists: equal positions stay equal, so equal features give the same logits at every size."""
    pool = attention_pool(nnx.Rngs(0))
    pool.positions[...] = jnp.broadcast_to(pool.positions[0], (17, 64))
    x = jnp.broadcast_to(normal("pool colour", (2, 1, 1, 64)), (2, 6, 10, 64))
    np.testing.assert_allclose(pool(x), pool(x[:, :4, :4]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "config", "x"),
    [
        ("film", FILM, ("film x", (2, 16, 16, 3))),
        ("film_other", FILM, ("film other x", (2, 8, 20, 3))),
        ("plain", PLAIN, ("plain x", (2, 8, 8, 3))),
    ],
)
def test_unet(case, config, x):
    names = NETWORKS[f"{case.removesuffix('_other')}/names"]
    conditions = {"label": LABELS} if config.num_classes else {}
    check(predict(network(UNet, config), names, normal(*x), T, conditions), NETWORKS[f"{case}/out"])


def test_noisy_classifier():
    pure = network(NoisyClassifier, CLASSIFIER)
    x = normal("classifier x", (2, 16, 16, 3))
    check(predict(pure, NETWORKS["classifier/names"], x, T), NETWORKS["classifier/out"])


def test_noisy_classifier_at_another_size():
    pure = network(NoisyClassifier, CLASSIFIER)
    x = normal("classifier other x", (2, 12, 20, 3))
    out = predict(pure, NETWORKS["classifier/names"], x, T)
    assert out.shape == (2, 5)
    assert bool(jnp.isfinite(out).all())


def test_gradients_of_the_unet():
    pure = network(UNet, FILM)
    params = published(pure, NETWORKS["film/names"])
    cotangent = normal("film cotangent", (2, 16, 16, 6))

    @functools.partial(jax.grad, argnums=(0, 1))
    def gradient(params, x):
        return (pure.apply(params, {}, x, T, {"label": LABELS})[0] * cotangent).mean()

    of, of_x = jax.jit(gradient)(params, normal("film x", (2, 16, 16, 3)))
    check(of_x, GRADIENTS["x"])
    check(published_layout(of["encoder"]["stem"]["kernel"]), GRADIENTS["input_blocks.0.0.weight"])
    check(published_layout(of["out_conv"]["kernel"]), GRADIENTS["out.2.weight"])
    condition = published_layout(of["encoder"]["down"][0]["block"]["condition"]["kernel"])
    check(condition[::8], GRADIENTS["input_blocks.1.0.emb_layers.1.weight"])
    qkv = published_layout(of["encoder"]["middle"][0]["attention"]["qkv"]["kernel"])
    check(qkv[::8, :, None], GRADIENTS["middle_block.1.qkv.weight"])
    norms = gradient_norms(params, published_adm.adm_names(params), of, NETWORKS["film/names"])
    check_norms(norms, GRADIENTS["norms"])


@pytest.mark.parametrize("case", [pytest.param("no_row", marks=pytest.mark.full), "null_row"])
def test_authors_unet(case):
    config = AuthorsUNetConfig(
        num_classes=4, channels=16, channel_mult=(1, 2), attention_levels=(1,), groups=8, null_row=case == "null_row"
    )
    pure = network(AuthorsUNet, config)
    like, listing = tree(pure), AUTHORS[f"{case}/names"]
    paths = [tuple(key.key for key in path[:-1]) for path, _ in jax.tree_util.tree_leaves_with_path(like)]
    names = {path: ".".join(map(str, path)) for path in paths}
    params = on_device(torch_files.fill(like, names, weights.state_dict(listing)))
    x, cotangent = (normal(f"authors {case} {name}", (2, 16, 8, 3)) for name in ("x", "cotangent"))

    def value(params):
        out, _ = pure.apply(params, {}, x, jnp.array([5, 640]), {"label": jnp.array([1, 3])})
        return (out * cotangent).mean(), out

    if case == "null_row":
        check(jax.jit(value)(params)[1], AUTHORS[f"{case}/out"])
        return
    gradients, out = jax.jit(jax.grad(value, has_aux=True))(params)
    check(out, AUTHORS[f"{case}/out"])
    check_norms(gradient_norms(like, names, gradients, listing), AUTHORS[f"{case}/norms"])


def change(names, old, new):
    return np.array([line.replace(old, new) for line in names])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda names: names[1:], "missing"),
        (lambda names: np.append(names, "output_blocks.9.0.weight 3"), "not used"),
        (lambda names: change(names, "out.2.weight 6x32", "out.2.weight 6x16"), "does not fit"),
    ],
)
def test_weights_must_fit_exactly(wrong, message):
    with pytest.raises(ValueError, match=message):
        published(network(UNet, FILM), wrong(NETWORKS["film/names"]))
