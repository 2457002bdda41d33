"""Samplers against published check values, closed forms, and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax import diffusion, samplers

T = 1000
LINEAR = diffusion.linear_schedule(T, beta_start=1e-4, beta_end=2e-2)


def check_loop(schedule, *, count=10, prediction="eps", eps_scale=1.0):
    """The dummy model x t / (t + 1) from a fixed x_T, DDIM with eta 0, x_0 clipped: NHWC here, sums are the same."""
    respaced = diffusion.respace(schedule, diffusion.strided_steps(T, count))
    x = (jnp.arange(768).reshape(3, 8, 8, 4) / 768).transpose(3, 1, 2, 0).astype(jnp.float32)

    def denoiser(x_t, t):
        time = jnp.asarray(respaced.timesteps)[t].reshape(-1, 1, 1, 1)
        return diffusion.to_eps(prediction, respaced, x_t, t, x_t * time / (time + 1)), None

    scaled = samplers.scale_eps(denoiser, offset=eps_scale)
    rule = samplers.ddim_rule(respaced, eta=0.0)
    for step in range(count - 1, -1, -1):
        t = jnp.full(4, step)
        eps, variance = scaled(x, t)
        x_0 = jnp.clip(diffusion.x0_from_eps(respaced, x, t, eps), -1, 1)
        x = rule(x, x_0, variance, t, jnp.zeros_like(x))
    return float(jnp.abs(x).sum())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 172.0067),
        ({"eps_scale": 1.004}, 176.694694),
        ({"eps_scale": 1.014}, 188.731237),
        ({"prediction": "v"}, 52.5302),
        ({"schedule": diffusion.linear_schedule(T, beta_start=0.01, beta_end=2e-2)}, 149.8295),
    ],
)
def test_published_check_values(options, expected):
    found = check_loop(**{"schedule": LINEAR, **options})
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def keys(count, seed=0):
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(count))


def draw(denoiser, schedule, rule, **options):
    """``samplers.sample``, compiled."""
    return jax.jit(lambda keys: samplers.sample(denoiser, schedule, rule, **options, keys=keys))(options.pop("keys"))


def toy_denoiser(x_t, t):
    return jnp.sin(x_t) * (t.reshape(-1, 1, 1, 1) + 1) / 1000, jnp.cos(x_t)


def test_ddim_with_eta_1_on_the_full_grid_is_ddpm():
    schedule = diffusion.respace(LINEAR, diffusion.even_steps(T, 50))
    options = {"keys": keys(2), "shape": (4, 4, 3), "clip_x0": True}
    ddim, _ = draw(toy_denoiser, schedule, samplers.ddim_rule(schedule, eta=1.0), **options)
    rule = samplers.ddpm_rule(schedule, variance=schedule.posterior_variance)
    ddpm, _ = draw(toy_denoiser, schedule, rule, **options)
    np.testing.assert_allclose(ddim, ddpm, atol=1e-5)


def test_ddim_with_eta_0_draws_no_noise():
    schedule = diffusion.respace(LINEAR, diffusion.even_steps(T, 20))
    rule = samplers.ddim_rule(schedule, eta=0.0)
    x, x_0, t = jnp.ones((1, 2, 2, 3)), jnp.zeros((1, 2, 2, 3)), jnp.array([10])
    noise = jax.random.normal(jax.random.key(0), x.shape)
    np.testing.assert_array_equal(rule(x, x_0, None, t, noise), rule(x, x_0, None, t, 0 * noise))


def test_ddim_variance():
    """sigma^2 for (t, t_prev), against published values."""
    for (now, before), expected in {
        (420, 400): 0.14771,
        (980, 960): 0.32460,
        (487, 486): 0.00979,
        (999, 998): 0.02,
    }.items():
        schedule = diffusion.respace(LINEAR, np.array([before, now]))
        rule = samplers.ddim_rule(schedule, eta=1.0)
        zero, t = jnp.zeros((1, 1, 1, 1)), jnp.array([1])
        sigma = float((rule(zero, zero, None, t, zero + 1) - rule(zero, zero, None, t, zero)).ravel()[0])
        np.testing.assert_allclose(sigma**2, expected, atol=1e-5)  # published with five digits


@pytest.mark.parametrize("method", ["ddpm", "ddim"])
def test_exact_denoiser_of_one_image_gives_it_back(method):
    """If all data is one image, eps(x_t) is known exactly and every sampler must return that image."""
    image = jax.random.uniform(jax.random.key(3), (1, 8, 8, 3), minval=-1, maxval=1)
    schedule = diffusion.respace(LINEAR, diffusion.even_steps(T, 25))
    rule = {
        "ddpm": samplers.ddpm_rule(schedule, variance=schedule.posterior_variance),
        "ddim": samplers.ddim_rule(schedule, eta=0.0),
    }[method]
    drawn, _ = draw(
        lambda x, t: (diffusion.eps_from_x0(schedule, x, t, jnp.broadcast_to(image, x.shape)), None),
        schedule,
        rule,
        keys=keys(3),
        shape=(8, 8, 3),
    )
    np.testing.assert_allclose(drawn, jnp.broadcast_to(image, drawn.shape), atol=1e-4)


@pytest.mark.parametrize("method", ["ddpm", "ddim"])
def test_exact_gaussian_denoiser_gives_the_gaussian_back(method):
    """Data N(m, s^2): E[eps | x_t] is linear in x_t. Mean and variance must come back within Monte-Carlo error."""
    mean, std = 0.4, 0.5
    schedule = diffusion.respace(LINEAR, diffusion.even_steps(T, 500))
    abar = jnp.asarray(schedule.alpha_bar, jnp.float32)

    def denoiser(x, t):
        a = abar[t].reshape(-1, 1, 1, 1)
        return jnp.sqrt(1 - a) * (x - jnp.sqrt(a) * mean) / (a * std**2 + 1 - a), None

    rule = {
        "ddpm": samplers.ddpm_rule(schedule, variance=schedule.posterior_variance),
        "ddim": samplers.ddim_rule(schedule, eta=0.0),
    }[method]
    options = {"keys": keys(64), "shape": (16, 16, 3), "clip_x0": False}
    drawn, _ = draw(denoiser, schedule, rule, **options)
    error = 5 / np.sqrt(drawn.size)  # five standard errors
    assert abs(float(drawn.mean()) - mean) < error * std
    # The posterior variance is the smaller of two bounds: 500 steps lose up to half a percent of the spread.
    assert abs(float(drawn.std()) / std - 1) < error + 0.01


def test_the_authors_slip_is_what_it_is_said_to_be():
    """Their formula, straight, at every t; eps is over-scaled 1.449x at t = 1 and 1.067x at t = 10."""
    schedule = diffusion.linear_schedule(T, beta_start=1e-4, beta_end=1e-2)  # theirs
    rule, abar = samplers.ddpm_author_code_rule(schedule), schedule.alpha_bar
    x_t, eps = 0.7, -0.4
    for t in (0, 1, 10, 62, 999):
        before = abar[t - 1]  # at t = 0 Python, too, takes the last
        expected = (x_t - schedule.betas[t] / np.sqrt(1 - before) * eps) / np.sqrt(1 - schedule.betas[t])
        time, image = jnp.array([t]), jnp.full((1, 1, 1, 1), x_t)
        x_0 = diffusion.x0_from_eps(schedule, image, time, jnp.full_like(image, eps))
        found = float(rule(image, x_0, None, time, jnp.zeros_like(image)).squeeze())
        np.testing.assert_allclose(found, expected, rtol=2e-5)
    # Set beside the right formula, eps is over-scaled by the ratio of the two divisors.
    scale = np.sqrt((1 - abar[1:]) / (1 - abar[:-1]))
    np.testing.assert_allclose(scale[[0, 9]], [1.449, 1.067], atol=5e-4)
    assert (scale[:61] > 1.014).all()
    assert scale[62] < 1.014


@pytest.mark.parametrize(("fraction", "same_as"), [(-1.0, "posterior"), (1.0, "betas")])
def test_learned_variance_spans_the_two_fixed_ones(fraction, same_as):
    schedule = diffusion.respace(LINEAR, diffusion.even_steps(T, 10))
    # beta~ at t = 0 is 0; the learned range takes beta~_1 there, where no noise is added anyway.
    variance = {"posterior": schedule.posterior_variance, "betas": schedule.betas}[same_as]
    options = {"keys": keys(2), "shape": (4, 4, 3)}

    def denoiser(x, t):
        return toy_denoiser(x, t)[0], jnp.full_like(x, fraction)

    learned, _ = draw(denoiser, schedule, samplers.ddpm_learned_rule(schedule), **options)
    fixed, _ = draw(denoiser, schedule, samplers.ddpm_rule(schedule, variance=variance), **options)
    np.testing.assert_allclose(learned, fixed, atol=1e-5)


def test_eps_scale_of_one_is_the_identity():
    x, t = jax.random.normal(jax.random.key(0), (2, 4, 4, 3)), jnp.array([3, 7])
    for found, expected in zip(samplers.scale_eps(toy_denoiser)(x, t), toy_denoiser(x, t), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_eps_scale_follows_each_image_own_step():
    x, t = jnp.ones((2, 1, 1, 3)), jnp.array([0, 10])
    scaled, variance = samplers.scale_eps(lambda x, t: (x, x), slope=0.1, offset=1.0)(x, t)
    np.testing.assert_allclose(scaled[:, 0, 0, 0], [1.0, 0.5])
    np.testing.assert_array_equal(variance, x)  # a learned variance is left alone


@pytest.mark.parametrize("options", [{"offset": 0.0}, {"offset": -1.0}, {"slope": -0.1}])
def test_eps_scale_refuses_what_could_divide_by_zero(options):
    with pytest.raises(ValueError, match="positive"):
        samplers.scale_eps(toy_denoiser, **options)


def test_an_image_does_not_depend_on_its_batch():
    schedule = diffusion.respace(LINEAR, diffusion.even_steps(T, 5))
    rule = samplers.ddpm_rule(schedule, variance=schedule.posterior_variance)
    all_keys = keys(6)
    whole, _ = draw(toy_denoiser, schedule, rule, keys=all_keys, shape=(4, 4, 3))
    part, _ = draw(toy_denoiser, schedule, rule, keys=all_keys[2:4], shape=(4, 4, 3))
    np.testing.assert_allclose(whole[2:4], part, atol=1e-6)


def test_film_ends_with_the_image():
    schedule = diffusion.respace(LINEAR, diffusion.even_steps(T, 8))
    rule = samplers.ddim_rule(schedule, eta=0.0)
    drawn, film = draw(toy_denoiser, schedule, rule, keys=keys(2), shape=(4, 4, 3), film_frames=3)
    assert film.shape == (3, 2, 4, 4, 3)
    np.testing.assert_allclose(film[-1], drawn, atol=1e-6)
