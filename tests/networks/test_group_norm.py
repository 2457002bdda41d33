"""The fused group norm against its definition, values and gradients, and the choices made for each kind of device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax.networks import layers, target
from diffpath_jax.networks.group_norm import Normalisation, group_norm

GROUPS, EPS = 4, 1e-5


def plain(parts, gamma, beta, *, silu):
    """The definition, in float64."""
    x = jnp.concatenate(parts, axis=-1)
    grouped = x.reshape(len(x), -1, GROUPS, x.shape[-1] // GROUPS)
    mean = grouped.mean(axis=(1, 3), keepdims=True)
    variance = jnp.square(grouped - mean).mean(axis=(1, 3), keepdims=True)
    inner = (len(x), *(1 for _ in x.shape[1:-1]), -1)
    y = ((grouped - mean) / jnp.sqrt(variance + EPS)).reshape(x.shape) * gamma.reshape(inner) + beta.reshape(inner)
    return y * jax.nn.sigmoid(y) if silu else y


def inputs(space, offset, dtype=jnp.float64):
    """Two arrays of features far from zero, gamma and beta, and weights that make a number of the result."""
    keys = jax.random.split(jax.random.key(0), 5)
    # The groups of six channels straddle the border between the arrays.
    parts = (jax.random.normal(keys[0], (2, *space, 8)) + offset, 3 * jax.random.normal(keys[1], (2, *space, 16)))
    gamma, beta = jax.random.normal(keys[2], (2, 24)), jax.random.normal(keys[3], (2, 24))
    weights = jax.random.normal(keys[4], (2, *space, 24))
    return jax.tree.map(lambda x: x.astype(dtype), (parts, gamma, beta, weights))


@pytest.mark.parametrize("device", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize(("space", "offset"), [((5, 6), 0.0), ((5, 6), 30.0), ((7,), 0.0), ((), 0.0)])
def test_values_and_gradients_are_those_of_the_definition(monkeypatch, device, silu, space, offset):
    monkeypatch.setattr(target, "platform", lambda: device)
    norm = Normalisation(GROUPS, EPS, silu)
    *given, weights = inputs(space, offset, jnp.float32)
    found = jax.value_and_grad(lambda *x: (group_norm(*x, norm) * weights).sum(), argnums=(0, 1, 2))(*given)
    with jax.enable_x64(True):
        *exact, weights = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), (*given, weights))
        expected = jax.value_and_grad(lambda *x: (plain(*x, silu=silu) * weights).sum(), argnums=(0, 1, 2))(*exact)
    for own, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        scale = max(np.abs(other).max(), 1.0)
        np.testing.assert_allclose(own / scale, other / scale, atol=1e-4 if offset else 1e-5)


def test_half_precision_is_of_the_result_alone():
    parts, gamma, beta, _ = inputs((5, 6), 0.0, jnp.float32)
    exact = group_norm(parts, gamma, beta, Normalisation(GROUPS, EPS, True))
    halves = tuple(part.astype(jnp.bfloat16) for part in parts)
    rounded = tuple(half.astype(jnp.float32) for half in halves)
    half = group_norm(halves, gamma, beta, Normalisation(GROUPS, EPS, True))
    assert half.dtype == jnp.bfloat16
    wide = group_norm(halves, gamma, beta, Normalisation(GROUPS, EPS, True, jnp.float32))
    assert wide.dtype == jnp.float32
    np.testing.assert_array_equal(wide, group_norm(rounded, gamma, beta, Normalisation(GROUPS, EPS, True)))
    np.testing.assert_allclose(half.astype(jnp.float32), exact, atol=0.05)


def test_a_constant_image_has_no_variance():
    x = jnp.full((1, 4, 4, 8), 1e4)
    ones, zeros = jnp.ones((1, 8)), jnp.zeros((1, 8))
    gradient = jax.grad(lambda x: group_norm((x,), ones, zeros, Normalisation(GROUPS, EPS)).sum())(x)
    np.testing.assert_array_equal(group_norm((x,), ones, zeros, Normalisation(GROUPS, EPS)), jnp.zeros(x.shape))
    np.testing.assert_allclose(gradient, jnp.zeros(x.shape), atol=1e-3)


@pytest.mark.parametrize(
    ("device", "capability", "dtype", "head", "length", "expected"),
    [
        ("gpu", 9.0, jnp.bfloat16, 64, 1024, True),
        ("gpu", 9.0, jnp.bfloat16, 256, 64, True),
        ("gpu", 8.0, jnp.bfloat16, 256, 64, False),
        ("gpu", 8.0, jnp.bfloat16, 128, 64, True),
        ("gpu", 9.0, jnp.bfloat16, 384, 64, False),
        ("gpu", 9.0, jnp.bfloat16, 60, 64, False),
        ("gpu", 9.0, jnp.bfloat16, 64, 49, False),
        ("gpu", 0.0, jnp.bfloat16, 64, 64, False),
        ("gpu", 9.0, jnp.float32, 64, 1024, False),
        ("tpu", 0.0, jnp.bfloat16, 64, 1024, False),
        ("cpu", 0.0, jnp.bfloat16, 64, 1024, False),
    ],
)
def test_which_attention_is_left_to_cudnn(monkeypatch, device, capability, dtype, head, length, expected):
    monkeypatch.setattr(target, "platform", lambda: device)
    monkeypatch.setattr(target, "compute_capability", lambda: capability)
    q = jnp.zeros((2, length, 4, head), dtype)
    assert layers._fused_attention_takes(q, q) is expected
