"""The samplers against published check values, closed forms, diffusers, and each other."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax.diffusion import conditioning, eps_scaling
from diffpath_jax.diffusion.samplers import catalogue, ddim, ddpm, loop, spacing, thresholding
from diffpath_jax.diffusion.samplers.kinds import SamplerSettings
from diffpath_jax.diffusion.schedule import (
    cosine_schedule,
    eps_from_x0,
    linear_schedule,
    q_sample,
    respace,
    to_eps,
    x0_from_eps,
)
from diffpath_jax.shapes import DenoiserOutput
from tests.golden import weights

T = 1000
LINEAR = linear_schedule(T, beta_start=1e-4, beta_end=2e-2)
COSINE = cosine_schedule(T)


def made(name, **settings):
    """Schedule -> the sampler of a row."""
    return lambda schedule: catalogue.SAMPLERS[name].make(schedule, SamplerSettings(trained=LINEAR, **settings))


SAMPLERS = {
    "ddpm small": made("ddpm", variance="small"),
    "ddpm large": made("ddpm", variance="large"),
    "ddpm learned": made("ddpm", variance="learned"),
    "ddim": made("ddim"),
    "ddim eta 0.5": made("ddim", eta=0.5),
    "ddim eta 1": made("ddim", eta=1.0),
    "heun": made("heun"),
    "dpmpp": made("dpmpp"),
    "unipc": made("unipc"),
}
DETERMINISTIC = [name for name in SAMPLERS if name in catalogue.SAMPLERS]
# Of those that draw noise, which take many images, one; the others in ``make test-full``.
MANY = ("ddpm large", "ddpm learned", "ddim eta 0.5", "ddim eta 1")
# As other projects have them, for comparison with their numbers; they have tests of their own.
REPEATED = {"ddpm_author_code", "ddim_author_code", "ddim_guided_diffusion"}


def test_every_sampler_is_tested():
    assert {name.split()[0] for name in SAMPLERS} == set(catalogue.SAMPLERS) - REPEATED


def spaced(count, grid=spacing.even, schedule=LINEAR):
    return respace(schedule, grid(schedule, count))


def keys(count, seed=0):
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(count))


def draw(denoiser, sampler, *, keys, **options):
    """``loop.sample``, compiled."""
    return jax.jit(lambda keys: loop.sample(denoiser, sampler, keys=keys, **options))(keys)


def check_loop(schedule=LINEAR, *, kept=None, prediction="eps", eps_scale=1.0, noised=False, **options):
    """Sum |x| of the dummy model x t / (t + 1) from a fixed x_T, DDIM with eta 0 and x_0 clipped.

    The start is that of public scheduler tests, moved to NHWC, which does not change the sum. ``noised`` starts from
    that array as an image, noised by itself reversed.
    """
    respaced = respace(schedule, spacing.leading(schedule, 10) if kept is None else np.array(kept))
    flat = np.arange(768, dtype=np.float32) / 768

    def start(values):
        return jnp.asarray(values.reshape(3, 8, 8, 4).transpose(3, 1, 2, 0))

    def denoiser(x_t, t):
        time = jnp.asarray(respaced.timesteps)[t].reshape(-1, 1, 1, 1)
        return DenoiserOutput(to_eps(prediction, respaced, x_t, t, x_t * time / (time + 1)))

    x = start(flat)
    if noised:
        reversed_noise = start(flat[::-1].copy().reshape(3, 8, 8, 4).ravel())
        x = q_sample(respaced, x, jnp.full(4, respaced.num_steps - 1), reversed_noise)
    scaled = eps_scaling.scale_eps(denoiser, offset=eps_scale)
    found, _ = draw(scaled, ddim.ddim(respaced, eta=0.0, **options), keys=keys(4), shape=(8, 8, 3), x_T=x)
    return float(jnp.abs(found).sum())


STEEP = linear_schedule(T, beta_start=0.01, beta_end=2e-2)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 172.0067),
        ({"eps_scale": 1.004}, 176.694694),
        ({"eps_scale": 1.014}, 188.731237),
        ({"prediction": "v"}, 52.5302),
        ({"schedule": STEEP}, 149.8295),
        ({"schedule": STEEP, "final_alpha_bar": float(STEEP.alpha_bar[0])}, 149.0784),
        ({"kept": [0, 100], "noised": True}, 354.5418),
    ],
)
def test_published_check_values(options, expected):
    np.testing.assert_allclose(check_loop(**options), expected, rtol=1e-4)


def dummy(x, t):
    """The dummy model of the golden file."""
    return (0.5 + 0.5 * t / 1000) * jnp.tanh(x) + 0.1 * jnp.sin(3 * x)


GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "schedulers.npz")
CASES = {
    "ddim": ("ddim", {}),
    "ddim clipped": ("ddim", {"threshold": thresholding.clip}),
    "ddim thresholded": ("ddim", {"threshold": thresholding.dynamic_threshold(0.995)}),
    "ddim first level": (lambda s: ddim.ddim(s, eta=0.0, final_alpha_bar=LINEAR.alpha_bar[0]), {}),
    "ddim v": ("ddim", {"prediction": "v"}),
    "ddim x_0": ("ddim", {"prediction": "x0"}),
    "ddim eta 1": ("ddim eta 1", {}),
    "ddim eta 0.5": ("ddim eta 0.5", {}),
    "ddim trailing": ("ddim", {}),
    "ddpm small": ("ddpm small", {}),
    "ddpm small clipped": ("ddpm small", {"threshold": thresholding.clip}),
    "ddpm large": ("ddpm large", {}),
    "ddpm learned": ("ddpm learned", {}),
    "dpmpp 10": ("dpmpp", {}),
    "dpmpp 20": ("dpmpp", {}),
    "dpmpp 10 thresholded": ("dpmpp", {"threshold": thresholding.dynamic_threshold(0.995)}),
    "dpmpp 10 v": ("dpmpp", {"prediction": "v"}),
    "unipc 10": ("unipc", {}),
    "unipc 20": ("unipc", {}),
    "unipc 10 thresholded": ("unipc", {"threshold": thresholding.dynamic_threshold(0.995)}),
    "unipc 10 v": ("unipc", {"prediction": "v"}),
    "heun 10": ("heun", {}),
    "heun 20": ("heun", {}),
    "heun 10 v": ("heun", {"prediction": "v"}),
}


@pytest.mark.parametrize("name", CASES)
def test_diffusers_agrees(name, monkeypatch):
    """diffusers' own schedulers in double precision, value by value, with the same model, start and noise."""
    sampler_name, options = CASES[name]
    visited = GOLDEN[f"{name}/timesteps"]
    schedule = respace(LINEAR, np.unique(visited))
    sampler = SAMPLERS.get(sampler_name, sampler_name)(schedule)
    np.testing.assert_array_equal(schedule.timesteps[sampler.step_indices], visited)
    shape = (2, 4, 4, 3)
    # Number n of an image's noise belongs to the n-th call from the end.
    noise = np.stack([weights.normal(f"noise {t}", shape) for t in visited[::-1]])
    monkeypatch.setattr(loop, "image_noise", lambda keys, number, shape: jnp.asarray(noise)[number - 1])
    prediction = options.pop("prediction", "eps") if (options := dict(options)) else "eps"

    def denoiser(x, t):
        output = dummy(x, jnp.asarray(schedule.timesteps)[t].reshape(-1, 1, 1, 1))
        return DenoiserOutput(to_eps(prediction, schedule, x, t, output), jnp.cos(2 * x))

    start = jnp.asarray(weights.normal("x_T", shape))
    options = {"threshold": thresholding.unbounded, **options}
    with jax.enable_x64(False):
        found, _ = draw(denoiser, sampler, keys=keys(2), shape=shape[1:], x_T=start, **options)
    expected = GOLDEN[f"{name}/x"]
    # Without bounds the dummy model amplifies: float32 there keeps five digits of an x_0 of a few hundred.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5 * max(1, np.abs(expected).max() / 10))


def toy_denoiser(x_t, t):
    return DenoiserOutput(jnp.sin(x_t) * (t.reshape(-1, 1, 1, 1) + 1) / 1000, jnp.cos(x_t))


def test_ddim_with_eta_1_on_the_full_grid_is_ddpm():
    options = {"keys": keys(2), "shape": (4, 4, 3)}
    found, _ = draw(toy_denoiser, SAMPLERS["ddim eta 1"](LINEAR), **options)
    expected, _ = draw(toy_denoiser, SAMPLERS["ddpm small"](LINEAR), **options)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def step(sampler, x, x_0, t, noise, **other):
    """One step of a sampler."""
    parts = {"variance": None, "score": None, **other}
    inputs = loop.StepInput(x=x, x_0=x_0, t=t, call=jnp.asarray(0), noise=noise, **parts)
    return sampler.step(inputs, sampler.init(x))[0]


def test_ddim_variance():
    """sigma^2 for (t, t_prev), against published values."""
    for (now, before), expected in {
        (420, 400): 0.14771,
        (980, 960): 0.32460,
        (487, 486): 0.00979,
        (999, 998): 0.02,
    }.items():
        sampler = ddim.ddim(respace(LINEAR, np.array([before, now])), eta=1.0)
        zero, t = jnp.zeros((1, 1, 1, 1)), jnp.array([1])
        sigma = float((step(sampler, zero, zero, t, zero + 1) - step(sampler, zero, zero, t, zero)).ravel()[0])
        np.testing.assert_allclose(sigma**2, expected, atol=1e-5)  # published with five digits


def test_a_row_with_an_option_that_nobody_can_give_is_refused():
    with pytest.raises(ValueError, match="unknown option 'churn'; known are spacing, variance, eta"):
        dataclasses.replace(catalogue.SAMPLERS["heun"], options=("spacing", "churn"))


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_evaluation_a_step_but_two_of_heun(name):
    """Of Heun's second order the last step, to an image without noise, is Euler's."""
    assert SAMPLERS[name](spaced(6)).num_evaluations == (11 if name == "heun" else 6)


@pytest.mark.parametrize("name", catalogue.SAMPLERS)
def test_a_row_says_whether_its_sampler_draws_noise(name):
    sampler = made(name)(spaced(6))
    x, t = jnp.ones((1, 2, 2, 3)), jnp.array([3])
    steps = [step(sampler, x, 0.5 * x, t, noise) for noise in (0 * x, x)]
    assert bool((steps[0] == steps[1]).all()) != catalogue.SAMPLERS[name].stochastic


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_samplers_draw_no_noise(name):
    sampler = SAMPLERS[name](spaced(6))
    text = str(jax.make_jaxpr(lambda k: loop.sample(toy_denoiser, sampler, keys=k, shape=(2, 2, 3)))(keys(1)))
    compiled = jax.jit(lambda k: loop.sample(toy_denoiser, sampler, keys=k, shape=(2, 2, 3))).lower(keys(1)).compile()
    # x_T is drawn before the loop; inside it random bits would be dead code, which XLA removes.
    assert "random_bits" in text or "threefry" in text
    loops = [part for part in compiled.as_text().split("\n\n") if part.startswith("%region")]
    assert not any("shift-right-logical" in part for part in loops)


@pytest.mark.parametrize("name", SAMPLERS)
def test_exact_denoiser_of_one_image_gives_it_back(name):
    """If all data is one image, eps(x_t) is known exactly and every sampler must return that image."""
    image = jax.random.uniform(jax.random.key(3), (1, 8, 8, 3), minval=-1, maxval=1)
    schedule = spaced(25)

    def denoiser(x, t):
        return DenoiserOutput(eps_from_x0(schedule, x, t, jnp.broadcast_to(image, x.shape)), jnp.zeros_like(x))

    drawn, _ = draw(denoiser, SAMPLERS[name](schedule), keys=keys(3), shape=(8, 8, 3))
    np.testing.assert_allclose(drawn, jnp.broadcast_to(image, drawn.shape), atol=1e-4)


def test_the_authors_slip_is_what_it_is_said_to_be():
    """Their formula, straight, at every t; eps is over-scaled 1.449x at t = 1 and 1.067x at t = 10."""
    schedule = linear_schedule(T, beta_start=1e-4, beta_end=1e-2)  # theirs
    sampler, abar = ddpm.ddpm_author_code(schedule), schedule.alpha_bar
    x_t, eps = 0.7, -0.4
    for t in (0, 1, 10, 62, 999):
        before = abar[t - 1]  # at t = 0 Python, too, takes the last
        expected = (x_t - schedule.betas[t] / np.sqrt(1 - before) * eps) / np.sqrt(1 - schedule.betas[t])
        time, image = jnp.array([t]), jnp.full((1, 1, 1, 1), x_t)
        x_0 = x0_from_eps(schedule, image, time, jnp.full_like(image, eps))
        found = float(step(sampler, image, x_0, time, jnp.zeros_like(image)).squeeze())
        np.testing.assert_allclose(found, expected, rtol=2e-5)
    # Set beside the right formula, eps is over-scaled by the ratio of the two divisors.
    scale = np.sqrt((1 - abar[1:]) / (1 - abar[:-1]))
    np.testing.assert_allclose(scale[[0, 9]], [1.449, 1.067], atol=5e-4)
    assert (scale[:61] > 1.014).all()
    assert scale[62] < 1.014


@pytest.mark.parametrize(("fraction", "same_as"), [(-1.0, "ddpm small"), (1.0, "ddpm large")])
def test_learned_variance_spans_the_two_fixed_ones(fraction, same_as):
    schedule, options = spaced(10), {"keys": keys(2), "shape": (4, 4, 3)}

    def denoiser(x, t):
        return DenoiserOutput(toy_denoiser(x, t).eps, jnp.full_like(x, fraction))

    learned, _ = draw(denoiser, ddpm.ddpm_learned(schedule), **options)
    fixed, _ = draw(denoiser, SAMPLERS[same_as](schedule), **options)
    np.testing.assert_allclose(learned, fixed, atol=1e-5)


@pytest.mark.parametrize("name", ["ddpm small", "ddpm large", "ddpm learned"])
def test_a_score_moves_the_mean_by_the_variance_times_it(name):
    schedule = spaced(10)
    x, t = jax.random.normal(jax.random.key(0), (1, 2, 2, 3)), jnp.array([4])
    parts = {"x": x, "x_0": 0.5 * x, "t": t, "noise": jnp.zeros_like(x), "variance": jnp.full_like(x, -1.0)}
    sampler = SAMPLERS[name](schedule)
    moved = step(sampler, **parts, score=jnp.full_like(x, 3.0)) - step(sampler, **parts)
    variance = schedule.betas[4] if name == "ddpm large" else schedule.posterior_variance[4]
    np.testing.assert_allclose(moved, 3 * variance, rtol=1e-3)


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_ddim_is_guided_as_by_guided_diffusion(eta):
    """``condition_score`` and ``ddim_sample`` of its code, written out for one step, in double precision."""
    schedule, t = spaced(10), 4
    rng = np.random.default_rng(0)
    x, eps, gradient, noise = rng.standard_normal((4, 1, 4, 4, 3))
    abar, abar_prev = schedule.alpha_bar[t], schedule.alpha_bar_prev[t]
    pred_xstart = np.clip(np.sqrt(1 / abar) * x - np.sqrt(1 / abar - 1) * eps, -1, 1)
    assert (np.abs(pred_xstart) == 1).any() and (np.abs(pred_xstart) < 1).any()
    guided = (np.sqrt(1 / abar) * x - pred_xstart) / np.sqrt(1 / abar - 1) - np.sqrt(1 - abar) * 2 * gradient
    pred_xstart = np.sqrt(1 / abar) * x - np.sqrt(1 / abar - 1) * guided
    sigma = eta * np.sqrt((1 - abar_prev) / (1 - abar)) * np.sqrt(1 - abar / abar_prev)
    expected = pred_xstart * np.sqrt(abar_prev) + np.sqrt(1 - abar_prev - sigma**2) * guided + sigma * noise

    kind = catalogue.SAMPLERS["ddim_guided_diffusion"]
    denoiser = conditioning.with_classifier(
        lambda x_t, t: DenoiserOutput(jnp.asarray(eps, jnp.float32)),
        lambda x_t, t: (x_t * jnp.asarray(gradient, jnp.float32)).sum(axis=(1, 2, 3)),
        schedule,
        scale=2.0,
        as_score=kind.takes_score,
    )
    x_t, time = jnp.asarray(x, jnp.float32), jnp.array([t])
    output = denoiser(x_t, time)
    x_0 = thresholding.clip(x0_from_eps(schedule, x_t, time, output.eps))
    sampler = kind.make(schedule, SamplerSettings(trained=LINEAR, eta=eta))
    found = step(sampler, x_t, x_0, time, jnp.asarray(noise, jnp.float32), score=output.score)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_eps_scale_of_one_is_the_identity():
    x, t = jax.random.normal(jax.random.key(0), (2, 4, 4, 3)), jnp.array([3, 7])
    found, expected = eps_scaling.scale_eps(toy_denoiser)(x, t), toy_denoiser(x, t)
    np.testing.assert_array_equal(found.eps, expected.eps)
    np.testing.assert_array_equal(found.variance, expected.variance)


def test_eps_scale_follows_each_image_own_step():
    x, t = jnp.ones((2, 1, 1, 3)), jnp.array([0, 10])
    found = eps_scaling.scale_eps(lambda x, t: DenoiserOutput(x, x, x), slope=0.1, offset=1.0)(x, t)
    np.testing.assert_allclose(found.eps[:, 0, 0, 0], [1.0, 0.5])
    # What is not eps is left alone.
    np.testing.assert_array_equal(found.variance, x)
    np.testing.assert_array_equal(found.score, x)


@pytest.mark.parametrize("options", [{"offset": 0.0}, {"offset": -1.0}, {"slope": -0.1}])
def test_eps_scale_refuses_what_could_divide_by_zero(options):
    with pytest.raises(ValueError, match="positive"):
        eps_scaling.scale_eps(toy_denoiser, **options)


def test_dynamic_threshold_scales_only_what_is_too_bright():
    calm = jnp.linspace(-0.9, 0.9, 300).reshape(1, 10, 10, 3)
    loud = 4 * calm
    found = thresholding.dynamic_threshold(0.9)(jnp.concatenate([calm, loud]))
    np.testing.assert_array_equal(found[0], calm[0])
    np.testing.assert_allclose(jnp.abs(found[1]).max(), 1.0, rtol=1e-6)
    # Nine tenths of the values keep their proportions.
    bound = np.quantile(np.abs(loud), 0.9)
    kept = np.abs(loud[0]) < bound
    np.testing.assert_allclose(found[1][kept], loud[0][kept] / bound, rtol=1e-5)
    assert abs(kept.mean() - 0.9) < 0.01


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.full) if name in MANY else name for name in SAMPLERS]
)
def test_an_image_does_not_depend_on_its_batch(name):
    sampler, all_keys = SAMPLERS[name](spaced(5)), keys(6)
    whole, _ = draw(toy_denoiser, sampler, keys=all_keys, shape=(4, 4, 3))
    part, _ = draw(toy_denoiser, sampler, keys=all_keys[2:4], shape=(4, 4, 3))
    np.testing.assert_allclose(whole[2:4], part, atol=1e-6)


@pytest.mark.parametrize("name", ["ddim", "heun", "unipc"])
def test_trajectory_ends_with_the_image(name):
    drawn, trajectory = draw(
        toy_denoiser, SAMPLERS[name](spaced(8)), keys=keys(2), shape=(4, 4, 3), trajectory_frames=3
    )
    assert trajectory.shape == (3, 2, 4, 4, 3)
    np.testing.assert_allclose(trajectory[-1], drawn, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_goes_from_noise_to_the_estimate(name):
    schedule = spaced(1)
    assert list(schedule.timesteps) == [T - 1]
    drawn, trajectory = draw(toy_denoiser, SAMPLERS[name](schedule), keys=keys(2), shape=(4, 4, 3), trajectory_frames=1)
    np.testing.assert_allclose(drawn, trajectory[0], atol=1e-5)
