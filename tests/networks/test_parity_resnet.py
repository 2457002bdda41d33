"""ResNet-50 against PyTorch, with random weights; see tests/golden/make_resnet.py."""

import functools

import jax
import jax.numpy as jnp
import pytest

from diffpath_jax.networks.pure import count_parameters, purify
from diffpath_jax.networks.resnet import BottleneckBlock, ResNet, ResNetConfig
from diffpath_jax.weights.from_resnet import BRANCHES, from_resnet, resnet_names
from diffpath_jax.weights.torch_files import LEAVES
from tests.golden import weights

GOLDEN = weights.load("resnet.npz")
CONFIG = ResNetConfig(num_classes=1000)
TOLERANCE = 1e-4


@functools.cache
def converted():
    return from_resnet(weights.state_dict(GOLDEN["names"]), where="test")


@functools.cache
def network():
    return purify(lambda rngs: ResNet(CONFIG, dtype=jnp.float32, rngs=rngs))


@functools.cache
def images():
    return jnp.asarray(weights.normal("resnet images", (3, 75, 75, 3)))


def named(tree):
    """Our arrays by their published names."""
    names = resnet_names(CONFIG)
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    paths = [([key.key for key in path], leaf) for path, leaf in leaves]
    return {f"{names[tuple(path[:-1])]}.{LEAVES[path[-1]]}": leaf for path, leaf in paths}


def test_as_many_parameters():
    assert count_parameters(network()) == int(GOLDEN["parameters"]) == 25_557_032


def test_inference_is_that_of_pytorch():
    apply = jax.jit(functools.partial(network().apply, train=False))
    (logits, features), state = apply(converted().params, converted().model_state, images())
    assert weights.relative_error(features, GOLDEN["eval/features"]) < TOLERANCE
    assert weights.relative_error(logits, GOLDEN["eval/logits"]) < TOLERANCE
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), state, converted().model_state))


@pytest.fixture(scope="module")
def trained():
    """Output in training, and the running statistics afterwards."""
    apply = jax.jit(functools.partial(network().apply, train=True))
    out, state = apply(converted().params, converted().model_state, images())
    return out, named(state)


def test_training_is_that_of_pytorch(trained):
    (logits, features), _ = trained
    assert weights.relative_error(features, GOLDEN["train/features"]) < TOLERANCE
    assert weights.relative_error(logits, GOLDEN["train/logits"]) < TOLERANCE


def test_running_statistics_move_as_those_of_pytorch(trained):
    _, state = trained
    kept = {name.removeprefix("running/"): array for name, array in GOLDEN.items() if name.startswith("running/")}
    assert len(kept) == 10
    for name, array in kept.items():
        assert weights.relative_error(state[name], array) < TOLERANCE, name


def test_a_block_has_the_gradients_of_pytorch():
    """The first of the second stage: stride 2, and a convolution on its residual branch."""
    own = converted().params["blocks"][3], converted().model_state["blocks"][3]
    block = purify(lambda rngs: BottleneckBlock(256, 128, stride=2, dtype=jnp.float32, rngs=rngs))
    x, cotangent = (
        jnp.asarray(weights.normal(f"resnet {name}", shape))
        for name, shape in (("block", (2, 6, 6, 256)), ("cotangent", (2, 3, 3, 512)))
    )
    out, backward = jax.vjp(lambda params, x: block.apply(params, own[1], x, train=True)[0], own[0], x)
    assert weights.relative_error(out[..., ::8], GOLDEN["block"]) < TOLERANCE
    gradients, of_x = backward(cotangent)
    assert weights.relative_error(of_x[..., ::8], GOLDEN["gradient/x"]) < TOLERANCE
    for ours, (_, norm) in BRANCHES.items():
        for kind in ("scale", "bias"):
            expected = GOLDEN[f"gradient/{norm}.{LEAVES[kind]}"]
            assert weights.relative_error(gradients[ours]["norm"][kind], expected) < TOLERANCE, (ours, kind)
