"""Batches over devices: every image comes out once, in order, whatever its number and the number of devices."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax.devices.batched import BATCH, batched


@pytest.mark.parametrize("count", [1, BATCH, 8 * BATCH, 8 * BATCH + 3])
def test_batches_change_nothing(count):
    images = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), np.uint8)
    run = batched(lambda scale, x: (x.mean(axis=(1, 2)) * scale, x[:, 0, 0, 0].astype(jnp.int32)))
    means, corner = run(np.float32(0.5), images)
    np.testing.assert_allclose(means, images.mean(axis=(1, 2)) / 2, rtol=1e-5)
    np.testing.assert_array_equal(corner, images[:, 0, 0, 0])
