"""Batch normalisation against its definition, on one device and on eight."""

import jax
import jax.numpy as jnp
import numpy as np

from diffpath_jax.devices import sharding
from diffpath_jax.networks.batch_norm import BatchNorm
from diffpath_jax.networks.pure import purify
from tests.golden import weights


def batch_norm(channels):
    return purify(lambda rngs: BatchNorm(channels, rngs=rngs))


def test_running_variance_is_unbiased():
    """Ioffe and Szegedy 2015, algorithm 2: of m values the variance times m / (m - 1)."""
    x = jnp.asarray([[0.0, 1.0], [4.0, 1.0]])
    params, state = batch_norm(2).init(jax.random.key(0))
    y, state = batch_norm(2).apply(params, state, x, train=True)
    np.testing.assert_allclose(y[:, 0], np.array([-1, 1]) * 2 / np.sqrt(4 + 1e-5), rtol=1e-6)
    np.testing.assert_allclose(state["mean"], [0.1 * 2, 0.1 * 1], rtol=1e-6)
    np.testing.assert_allclose(state["var"], [0.9 + 0.1 * 8, 0.9], rtol=1e-6)
    y, same = batch_norm(2).apply(params, state, x, train=False)
    np.testing.assert_allclose(y[:, 0], (np.array([0, 4]) - 0.2) / np.sqrt(1.7 + 1e-5), rtol=1e-6)
    np.testing.assert_array_equal(same["var"], state["var"])


def test_large_means_cost_no_digits():
    x = 1000 + jnp.asarray(weights.normal("norm", (64, 3)))
    params, state = batch_norm(3).init(jax.random.key(0))
    y, _ = batch_norm(3).apply(params, state, x, train=True)
    exact = np.asarray(x, np.float64)
    exact = (exact - exact.mean(axis=0)) / np.sqrt(exact.var(axis=0) + 1e-5)
    np.testing.assert_allclose(y, exact, atol=2e-4)


def test_the_batch_of_all_devices_is_one_batch():
    """Eight images on eight devices: statistics, output and gradients are those of one device."""
    x = 3 + 2 * jnp.asarray(weights.normal("global batch", (8, 5, 5, 4)))
    params, state = batch_norm(4).init(jax.random.key(0))

    def loss(params, state, x):
        y, state = batch_norm(4).apply(params, state, x, train=True)
        return jnp.square(y - jnp.roll(x, 1, axis=1)).mean(), (y, state)

    step = jax.jit(jax.grad(loss, argnums=(0, 2), has_aux=True))
    found = []
    for devices in (jax.devices()[:1], jax.devices()):
        mesh = sharding.make_mesh(devices)
        where = sharding.batch_sharding(mesh)
        found.append(jax.device_get(step(*sharding.replicate((params, state), mesh), jax.device_put(x, where))))
    assert len(jax.devices()) == 8
    for one, eight in zip(jax.tree.leaves(found[0]), jax.tree.leaves(found[1]), strict=True):
        np.testing.assert_allclose(one, eight, atol=1e-5, rtol=1e-5)
