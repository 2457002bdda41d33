"""Samplers of Gaussians, whose exact denoiser and flow are known in closed form."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax.diffusion import conditioning
from diffpath_jax.diffusion.samplers import catalogue, spacing, thresholding
from diffpath_jax.diffusion.schedule import (
    linear_schedule,
)
from diffpath_jax.shapes import DenoiserOutput
from tests.diffusion.samplers.test_samplers import COSINE, DETERMINISTIC, LINEAR, SAMPLERS, draw, keys, spaced

SHAPE = (2, 2, 3)


SIZE = int(np.prod(SHAPE))


def gaussian():
    """Mean and covariance of images of 12 values, with a spread of 0.2 to 1 along 12 random directions."""
    rng = np.random.default_rng(5)
    axes = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))[0]
    return rng.uniform(-0.5, 0.5, SIZE), axes @ np.diag(np.linspace(0.2, 1.0, SIZE) ** 2) @ axes.T


MEAN, COVARIANCE = gaussian()


def exact_eps(schedule, covariance=COVARIANCE):
    """E[eps | x_t] of the Gaussian: sqrt(1 - abar) (abar C + (1 - abar) I)^-1 (x - sqrt(abar) m)."""
    abar = schedule.alpha_bar[:, None, None]
    table = np.sqrt(1 - abar) * np.linalg.inv(abar * covariance + (1 - abar) * np.eye(SIZE))
    matrices, shifts = jnp.asarray(table, jnp.float32), jnp.asarray(np.sqrt(abar[:, 0]) * MEAN, jnp.float32)

    def denoiser(x, t):
        flat = x.reshape(-1, SIZE) - shifts[t]
        return DenoiserOutput(jnp.einsum("bij,bj->bi", matrices[t], flat).reshape(x.shape), jnp.full_like(x, -1.0))

    return denoiser


# Samplers that draw noise take many images, to be sure of their spread: all of them in ``make test-full``.
FEW, MANY = 5_000, 20_000
COUNTS = [pytest.param(name, MANY, marks=pytest.mark.full) for name in SAMPLERS]
COUNTS += [(name, FEW) for name in SAMPLERS if name == "ddpm small" or name in DETERMINISTIC]


@pytest.mark.parametrize(("name", "count"), COUNTS)
def test_exact_gaussian_denoiser_gives_the_gaussian_back(name, count):
    """Mean and covariance within Monte-Carlo error, and what the steps themselves leave."""
    schedule = spaced(40, spacing.log_snr) if name in ("heun", "dpmpp", "unipc") else spaced(500)
    options = {"keys": keys(count), "shape": SHAPE, "threshold": thresholding.unbounded}
    flat = np.asarray(draw(exact_eps(schedule), SAMPLERS[name](schedule), **options)[0], np.float64).reshape(count, -1)
    spread = np.sqrt(np.diag(COVARIANCE))
    # Five standard errors; and 1 % of the spread, as neither variance of DDPM is the exact one of a finite step.
    assert (np.abs(flat.mean(axis=0) - MEAN) < (5 / np.sqrt(count) + 0.01) * spread).all()
    error = np.abs(np.cov(flat, rowvar=False) - COVARIANCE) / np.outer(spread, spread)
    assert error.max() < 5 * np.sqrt(2 / count) + 0.02


def flow(name, respaced, covariance=COVARIANCE):
    """Matrix and shift that take x_T to the image: a deterministic sampler is affine where the denoiser is."""
    sampler, denoiser = SAMPLERS[name](respaced), exact_eps(respaced, covariance)
    probes = np.concatenate([np.zeros((1, SIZE)), np.eye(SIZE)]).reshape(-1, *SHAPE).astype(np.float32)
    options = {"keys": keys(SIZE + 1), "shape": SHAPE, "threshold": thresholding.unbounded}
    ends = np.asarray(draw(denoiser, sampler, x_T=jnp.asarray(probes), **options)[0], np.float64).reshape(-1, SIZE)
    return (ends[1:] - ends[0]).T, ends[0]


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def solver_error(name, steps, schedule):
    """Relative error of :func:`flow` against the exact flow of the Gaussian.

    The flow takes x at level t to m sqrt(a) + S_t^(1/2) z with S_t = a C + (1 - a) I and z constant; the last step of
    every sampler, from the lowest level, is E[x_0 | x], which is done exactly here too.
    """
    respaced = spaced(steps, spacing.log_snr, schedule)
    found, _ = flow(name, respaced)
    values, axes = np.linalg.eigh(COVARIANCE)
    low, high = respaced.alpha_bar[0], respaced.alpha_bar[-1]

    def spread(a):
        return np.sqrt(a * values + 1 - a)

    last = np.sqrt(low) * values / spread(low) ** 2
    expected = axes @ np.diag(last * spread(low) / spread(high)) @ axes.T
    return relative(found, expected)


@pytest.mark.parametrize("name", ["unipc", *(pytest.param(name, marks=pytest.mark.full) for name in ("heun", "dpmpp"))])
def test_a_few_step_solver_has_a_spacing_that_suits_it(name):
    """20 calls, wide and narrow Gaussians, two schedules: its worst error is less than half of any even grid's."""

    def error(chosen, schedule, scale):
        respaced = spaced(10 if name == "heun" else 20, getattr(spacing, chosen), schedule)
        values, axes = np.linalg.eigh(scale**2 * COVARIANCE)
        exact = axes @ np.diag(np.sqrt(values)) @ axes.T  # from pure noise to the image
        found, mean = flow(name, respaced, scale**2 * COVARIANCE)
        return max(relative(found, exact), relative(mean, MEAN))

    def worst(chosen):
        return max(error(chosen, *case) for case in itertools.product((LINEAR, COSINE), (1.0, 0.05)))

    own = catalogue.SAMPLERS[name].spacing.name
    found = {chosen: worst(chosen) for chosen in ("even", "leading", "trailing", own)}
    print(name, {chosen: round(float(value), 3) for chosen, value in found.items()})
    assert found.pop(own) < 0.5 * min(found.values())


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_order_of_convergence(name):
    """Four times the steps, even in lambda: the error falls 4^order-fold, on a schedule fine enough to hold still."""
    fine = linear_schedule(20_000, beta_start=1e-4 / 20, beta_end=2e-2 / 20)
    errors = [solver_error(name, steps, fine) for steps in (16, 64)]
    measured, order = np.log(errors[0] / errors[1]) / np.log(4), catalogue.SAMPLERS[name].order
    print(f"{name}: error {errors[0]:.2e} with 16 steps, {errors[1]:.2e} with 64: order {measured:.2f}")
    assert abs(measured - order) < 0.5


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.5])
def test_autoguided_gaussians_flow_as_the_closed_form_says(weight):
    """Of exact denoisers of N(0, s^2) and, as the guide, of the wider N(0, r^2).

    With z = x / sqrt(abar) and sigma^2 = (1 - abar) / abar the flow is dz / dsigma = eps = sigma z ((1 + w) / (s^2 +
    sigma^2) - w / (r^2 + sigma^2)), so z_0 / z_T =
    (s^2 / (s^2 + sigma^2))^((1 + w) / 2) ((r^2 + sigma^2) / r^2)^(w / 2).
    """
    s, r = 0.4, 0.7
    levels = spaced(200, spacing.log_snr)

    def gaussian(scale):
        def predict(x_t, t, conditions):
            abar = jnp.asarray(levels.alpha_bar, jnp.float32)[t].reshape(-1, 1, 1, 1)
            return jnp.sqrt(1 - abar) * x_t / (abar * scale**2 + 1 - abar), None

        return predict

    guided = conditioning.with_autoguidance(gaussian(s), gaussian(r), weight=weight)
    sampler, x_T = SAMPLERS["dpmpp"](levels), jax.random.normal(jax.random.key(0), (2, 2, 2, 3))
    found, _ = draw(
        lambda x, t: DenoiserOutput(*guided(x, t, {})),
        sampler,
        keys=keys(2),
        shape=(2, 2, 3),
        x_T=x_T,
        threshold=lambda x: x,
    )
    top = float(levels.alpha_bar[-1])
    sigma2 = (1 - top) / top
    shrunk = (s**2 / (s**2 + sigma2)) ** ((1 + weight) / 2) * ((r**2 + sigma2) / r**2) ** (weight / 2)
    np.testing.assert_allclose(found, shrunk * x_T / np.sqrt(top), rtol=1e-3)
