"""Starts from images and repair, against closed forms of Gaussian images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax.diffusion import starts
from diffpath_jax.diffusion.samplers import loop, thresholding
from diffpath_jax.diffusion.samplers.catalogue import SAMPLERS
from diffpath_jax.diffusion.samplers.ddim import ddim
from diffpath_jax.diffusion.samplers.kinds import SamplerSettings
from diffpath_jax.diffusion.samplers.repeats import repeated
from diffpath_jax.diffusion.schedule import cosine_schedule, respace
from diffpath_jax.shapes import DenoiserOutput

FULL = cosine_schedule(1000)
SCHEDULE = respace(FULL, np.arange(0, 1000, 20))
# Images of two pixels, side by side: mean 0, variance 1 / 4, correlation 0.8.
COVARIANCE = 0.25 * np.array([[1, 0.8], [0.8, 1]])


def keys(count):
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(3), i))(jnp.arange(count))


def gaussian(schedule, covariance=COVARIANCE):
    """The exact denoiser of such images: E[eps | x_t]."""
    gains = np.stack([np.linalg.inv(a * covariance + (1 - a) * np.eye(2)) for a in schedule.alpha_bar])
    gains = jnp.asarray(gains * np.sqrt(1 - schedule.alpha_bar)[:, None, None], jnp.float32)

    def denoiser(x, t):
        return DenoiserOutput(jnp.einsum("bij,bhjc->bhic", gains[t], x))

    return denoiser


def draw(denoiser, sampler, count, x_T=None):
    options = {"shape": (1, 2, 1), "threshold": thresholding.unbounded}
    return jax.jit(lambda k, x: loop.sample(denoiser, sampler, keys=k, x_T=x, **options))(keys(count), x_T)[0]


def test_steps_below_a_level():
    assert starts.below(SCHEDULE, 0.0, num_trained=1000).num_steps == 0
    np.testing.assert_array_equal(starts.below(SCHEDULE, 1.0, num_trained=1000).alpha_bar, SCHEDULE.alpha_bar)
    half = starts.below(SCHEDULE, 0.5, num_trained=1000)
    assert half.timesteps.tolist() == list(range(0, 500, 20))
    np.testing.assert_array_equal(half.alpha_bar, SCHEDULE.alpha_bar[:25])


def test_a_variation_at_level_0_is_the_image():
    nothing = starts.below(SCHEDULE, 0.0, num_trained=1000)
    x_0 = jax.random.normal(jax.random.key(0), (3, 4, 4, 3))
    noise = jax.random.normal(jax.random.key(1), x_0.shape)
    x, trajectory = loop.sample(
        lambda x, t: pytest.fail("it was asked"),
        loop.no_steps(nothing),
        keys=keys(3),
        shape=(4, 4, 3),
        x_T=starts.at_top(nothing, x_0, noise),
        trajectory_frames=2,
    )
    np.testing.assert_array_equal(x, x_0)
    np.testing.assert_array_equal(trajectory, np.stack([x_0, x_0]))


def test_a_variation_keeps_of_its_image_what_the_noise_leaves():
    """From x_t the exact denoiser draws from p(x_0 | x_t): mean and covariance of Gaussians are known."""
    cut = starts.below(FULL, 0.5, num_trained=1000)
    x_0 = jnp.broadcast_to(jnp.array([0.7, -0.2]).reshape(1, 1, 2, 1), (20000, 1, 2, 1))
    x_T = starts.at_top(cut, x_0, loop.image_noise(keys(20000), 0, (1, 2, 1)))
    found = np.asarray(draw(gaussian(cut), ddim(cut, eta=1.0), 20000, x_T))[:, 0, :, 0]
    a = cut.alpha_bar[-1]
    gain = np.sqrt(a) * COVARIANCE @ np.linalg.inv(a * COVARIANCE + (1 - a) * np.eye(2))
    posterior = COVARIANCE - np.sqrt(a) * gain @ COVARIANCE
    # x_t varies too, by 1 - abar around the noised image.
    expected = posterior + (1 - a) * gain @ gain.T
    np.testing.assert_allclose(found.mean(axis=0), np.sqrt(a) * gain @ [0.7, -0.2], atol=0.015)
    np.testing.assert_allclose(np.cov(found.T), expected, atol=0.01)


def test_blends():
    x, y = jnp.zeros((3, 2, 2, 1)), jnp.ones((3, 2, 2, 1))
    found = starts.blend(x, y, jnp.array([0.0, 0.25, 1.0]))
    assert found[:, 0, 0, 0].tolist() == [0.0, 0.25, 1.0]
    # The blend of two images with the same noise is the noised blend, up to what noise a blend loses: none.
    noise = jax.random.normal(jax.random.key(0), x.shape)
    weight = jnp.array([0.0, 0.25, 1.0])
    separately = starts.blend(starts.at_top(SCHEDULE, x, noise), starts.at_top(SCHEDULE, y, noise), weight)
    np.testing.assert_allclose(starts.at_top(SCHEDULE, found, noise), separately, atol=1e-6)


def test_a_cell_of_latents_is_known_where_all_its_pixels_are():
    known = np.ones((1, 8, 8, 1), bool)
    known[0, 5, 2] = False
    expected = np.ones((2, 2), bool)
    expected[1, 0] = False
    np.testing.assert_array_equal(starts.known_cells(jnp.asarray(known), (2, 2))[0, :, :, 0], expected)
    np.testing.assert_array_equal(starts.known_cells(jnp.asarray(known), (8, 8)), known)


def painted(sampler, schedule, count, value):
    """The right pixel of each image, where the left one is known."""
    x_0 = jnp.full((count, 1, 2, 1), value)
    known = jnp.broadcast_to(jnp.array([True, False]).reshape(1, 1, 2, 1), x_0.shape)
    noise = loop.image_noise(keys(count), 0, (1, 2, 1))
    x_T = jnp.where(known, starts.at_top(schedule, x_0, noise), noise)
    found = draw(starts.with_known(gaussian(schedule), schedule, x_0, known), sampler, count, x_T)
    return np.asarray(found)[:, 0, :, 0]


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpmpp", "unipc", "heun"])
def test_what_is_known_comes_back_with_every_sampler(name):
    sampler = SAMPLERS[name].make(SCHEDULE, SamplerSettings(trained=FULL))
    known = painted(sampler, SCHEDULE, 64, 0.5)[:, 0]
    np.testing.assert_allclose(known, 0.5, atol=1e-4 if name != "ddpm" else 2e-2)


def test_repeated_steps_paint_what_belongs_to_the_known_part():
    """The right pixel given the left one is normal: mean 0.8 x, variance 0.09. Without repeats it is too wide of it."""
    schedule = respace(FULL, np.arange(0, 1000, 10))
    sampler = ddim(schedule, eta=0.0)
    once = painted(sampler, schedule, 4000, 0.5)[:, 1]
    often = painted(repeated(sampler, 10), schedule, 4000, 0.5)[:, 1]
    assert repeated(sampler, 1) is sampler
    assert abs(often.mean() - 0.4) < 0.05 < 0.1 < abs(once.mean() - 0.4)
    np.testing.assert_allclose(often.std(), 0.3, rtol=0.05)
