"""Which steps are visited."""

import numpy as np
import pytest

from diffpath_jax.diffusion import schedule as diffusion
from diffpath_jax.diffusion.samplers import spacing

T = 1000
SCHEDULES = {
    "linear": diffusion.linear_schedule(T, beta_start=1e-4, beta_end=2e-2),
    "cosine": diffusion.cosine_schedule(T),
}
LINEAR = SCHEDULES["linear"]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("count", [1, 2, 3, 10, 250, 333, 999, 1000])
@pytest.mark.parametrize("name", spacing.SPACINGS)
def test_any_number_of_distinct_steps(name, count, schedule):
    kept = spacing.SPACINGS[name].choose(SCHEDULES[schedule], count)
    assert len(kept) == count
    assert (np.diff(kept) > 0).all()
    assert kept[0] >= 0 and kept[-1] <= T - 1


def test_250_even_steps_are_those_of_adm():
    kept = spacing.even(LINEAR, 250)
    assert kept[:6].tolist() == [0, 4, 8, 12, 16, 20]
    assert kept[-4:].tolist() == [987, 991, 995, 999]


def test_grids_are_what_their_papers_say():
    assert spacing.leading(LINEAR, 10).tolist() == list(range(0, 1000, 100))
    assert spacing.leading(LINEAR, 300)[-1] == 897  # k = 3; 999 is left out
    assert spacing.trailing(LINEAR, 10).tolist() == list(range(99, 1000, 100))
    assert spacing.trailing(LINEAR, 3).tolist() == [332, 666, 999]
    assert spacing.quadratic(LINEAR, 5).tolist() == [0, 50, 200, 450, 800]


def test_even_levels_are_even():
    level = 0.5 * np.log(LINEAR.alpha_bar / (1 - LINEAR.alpha_bar))
    kept = spacing.log_snr(LINEAR, 8)
    gaps = np.diff(level[kept])
    np.testing.assert_allclose(gaps, gaps.mean(), rtol=0.08)  # the nearest of 1000 steps
    # From sigma / alpha = 80 (EDM's most) down to the least of the schedule.
    np.testing.assert_allclose(np.exp(-level[kept[-1]]), 80, rtol=0.01)
    assert kept[0] == 0
    noise = np.sqrt(1 / LINEAR.alpha_bar - 1) ** (1 / 7)
    gaps = np.diff(noise[spacing.karras(LINEAR, 8)])
    np.testing.assert_allclose(gaps, gaps.mean(), rtol=0.08)


def test_a_name_is_given_once():
    with pytest.raises(ValueError, match="a spacing 'even' already"):
        spacing.SPACINGS.register(spacing.EVEN)
    with pytest.raises(KeyError, match="'evn' is unknown; known are even, leading"):
        spacing.SPACINGS["evn"]


def test_the_authors_grid_is_theirs():
    """300 steps start at t = 898; 1000 run past the end, which their code finds out by an index error."""
    kept = spacing.author_code(LINEAR, 300)
    assert kept[0] == 1
    assert kept[-1] == 898
    with pytest.raises(ValueError, match="1000"):
        spacing.author_code(LINEAR, 1000)
