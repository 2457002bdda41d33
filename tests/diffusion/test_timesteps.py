"""The distributions of log SNR that timesteps are drawn from, and schedules shifted by size: closed forms."""

import math

import jax
import numpy as np
import pytest

from diffpath_jax.config import sections
from diffpath_jax.config.noise import schedule
from diffpath_jax.diffusion.schedule import cosine_schedule, linear_schedule, respace, shift
from diffpath_jax.diffusion.timesteps import TIMESTEP_SAMPLERS, LogSnr, TimestepSampler, log_snr_probabilities

COSINE = cosine_schedule(1000)
LINEAR = linear_schedule(1000, beta_start=1e-4, beta_end=2e-2)
COARSE = respace(COSINE, np.array([5, 300, 500, 800]))


def log_snr(levels):
    return np.log(levels.alpha_bar / (1 - levels.alpha_bar))


def laplace_below(x, centre, width):
    """The probability of at most x, by hand."""
    tail = 0.5 * math.exp(-abs(x - centre) / width)
    return tail if x < centre else 1 - tail


def normal_below(x, centre, width):
    return 0.5 * math.erfc((centre - x) / (width * math.sqrt(2)))


BELOW = {"laplace": laplace_below, "logit_normal": normal_below}


def expected(name, levels, centre, width):
    """The probability of each cell, one after the other."""
    found, middles = [], (log_snr(levels)[1:] + log_snr(levels)[:-1]) / 2
    for t in range(levels.num_steps):
        high = 1.0 if t == 0 else BELOW[name](middles[t - 1], centre, width)
        low = 0.0 if t == levels.num_steps - 1 else BELOW[name](middles[t], centre, width)
        found.append(high - low)
    return np.array(found)


@pytest.mark.parametrize("name", BELOW)
@pytest.mark.parametrize("levels", [COSINE, LINEAR, COARSE], ids=["cosine", "linear", "coarse"])
@pytest.mark.parametrize(("centre", "width"), [(0.0, 0.5), (-1.5, 2.0), (20.0, 0.5)])
def test_a_timestep_has_the_probability_of_its_cell(name, levels, centre, width):
    """Of the sampler's own logits too, which its draws follow: the loss of each t under them is the objective."""
    distribution = {"laplace": laplace_below, "logit_normal": normal_below}[name]
    found = log_snr_probabilities(levels, lambda x: np.array([distribution(each, centre, width) for each in x]))
    assert found.sum() == pytest.approx(1, abs=1e-12) and (found >= 0).all()
    np.testing.assert_allclose(found, expected(name, levels, centre, width), atol=1e-15)
    np.testing.assert_allclose(drawn_with(name, levels, centre, width), found, atol=1e-6)


def drawn_with(name, levels, centre, width):
    """The probabilities behind a sampler's draws: those that it hands to ``jax.random.categorical``."""
    seen = []
    sampler: TimestepSampler = TIMESTEP_SAMPLERS[name](levels, LogSnr(centre, width))
    with pytest.MonkeyPatch.context() as patch:
        original = jax.random.categorical
        patch.setattr(
            jax.random, "categorical", lambda key, logits, **o: seen.append(logits) or original(key, logits, **o)
        )
        t, factor = sampler.draw(sampler.init(), jax.random.key(0), 4)
    assert t.shape == (4,) and np.all(factor == 1)
    return np.asarray(jax.nn.softmax(seen[0]), np.float64)


def test_laplace_on_fine_cells_is_its_density():
    """Inside the schedule the probability of a cell is its width times the density at it."""
    found = log_snr_probabilities(COSINE, lambda x: np.array([laplace_below(each, 0.0, 0.5) for each in x]))
    levels, inside = log_snr(COSINE), slice(200, 800)
    widths = -(np.roll(levels, -1) - np.roll(levels, 1))[inside] / 2
    np.testing.assert_allclose(found[inside], widths * np.exp(-np.abs(levels[inside]) / 0.5), rtol=2e-2)


@pytest.mark.parametrize("factor", [0.5, 0.25, 2.0])
@pytest.mark.parametrize("levels", [COSINE, LINEAR], ids=["cosine", "linear"])
def test_a_shifted_schedule_moves_log_snr_by_a_constant(levels, factor):
    moved = shift(levels, factor)
    np.testing.assert_allclose(log_snr(moved), log_snr(levels) + 2 * math.log(factor), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(moved.timesteps, levels.timesteps)


def test_a_config_shifts_its_schedule_and_one_by_1_is_left_alone():
    plain = schedule(sections.NoiseConfig("cosine"))
    np.testing.assert_array_equal(plain.betas, COSINE.betas)
    np.testing.assert_array_equal(
        schedule(sections.NoiseConfig("cosine", snr_factor=0.5)).betas, shift(COSINE, 0.5).betas
    )
