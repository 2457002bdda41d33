"""Which steps are visited."""

from dataclasses import replace

import numpy as np
import pytest

from diffpath_jax.diffusion.samplers import spacing
from diffpath_jax.diffusion.schedule import cosine_schedule, linear_schedule

T = 1000
SCHEDULES = {
    "linear": linear_schedule(T, beta_start=1e-4, beta_end=2e-2),
    "cosine": cosine_schedule(T),
}
LINEAR = SCHEDULES["linear"]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("count", [1, 2, 3, 10, 250, 333, 999, 1000])
@pytest.mark.parametrize("name", sorted({*spacing.SPACINGS} - {"strided"}))
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


def published_stride(num_steps, count):
    """``space_timesteps`` of guided-diffusion for "ddimN"; none where it raises."""
    for i in range(1, num_steps):
        if len(range(0, num_steps, i)) == count:
            return list(range(0, num_steps, i))
    return None


def published_sections(num_steps, counts):
    """``space_timesteps`` of guided-diffusion for "N,N,..."."""
    size_per, extra = divmod(num_steps, len(counts))
    start, steps = 0, []
    for i, count in enumerate(counts):
        size = size_per + (1 if i < extra else 0)
        fraction = 1 if count <= 1 else (size - 1) / (count - 1)
        current = 0.0
        for _ in range(count):
            steps.append(start + round(current))
            current += fraction
        start += size
    return steps


@pytest.mark.parametrize("num_steps", [1000, 50, 37])
def test_strides_are_those_of_guided_diffusion(num_steps):
    schedule = cosine_schedule(num_steps)
    for count in range(1, num_steps + 1):
        expected = published_stride(num_steps, count)
        if expected is None:
            with pytest.raises(ValueError, match=f"exactly {count} steps"):
                spacing.strided(schedule, count)
        else:
            assert spacing.strided(schedule, count).tolist() == expected


@pytest.mark.parametrize("num_steps", [1000, 50, 37])
def test_ddim_starts_near_the_top(num_steps):
    """Its own stride where that leaves less than another one over; else the published, else one up to T - 1."""
    schedule = cosine_schedule(num_steps)
    for count in range(1, num_steps + 1):
        steps, own = spacing.ddim(schedule, count).tolist(), num_steps // count
        assert len(steps) == count
        assert num_steps - 1 - steps[-1] < 2 * own
        published = published_stride(num_steps, count)
        if num_steps % count == 0 and count > 1:
            assert steps == published == list(range(0, num_steps, own))
        elif count > 1 and num_steps // own == count:
            assert steps == [own * step for step in range(count)]
        else:
            assert steps == published or steps[-1] == num_steps - 1


@pytest.mark.parametrize(("count", "top"), [(1, 999), (334, 999), (501, 999), (750, 999), (10, 900), (500, 998)])
def test_where_ddim_starts(count, top):
    assert spacing.ddim(LINEAR, count)[-1] == top


@pytest.mark.parametrize("text", ["100,50,10", "10,10,10,10", "1,2,3", "334,333,333", "90,60,60,20,20", "7,1"])
def test_sections_are_those_of_guided_diffusion(text):
    counts = [int(count) for count in text.split(",")]
    found = spacing.find(text).choose(LINEAR, sum(counts))
    assert found.tolist() == published_sections(T, counts)


def test_sections_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="the sections 100,50,10 have 160"):
        spacing.find("100,50,10").choose(LINEAR, 250)
    with pytest.raises(ValueError, match="a section of 333 cannot have 400"):
        spacing.find("10,400,10").choose(LINEAR, 420)
    assert spacing.find("10,0") is None
    assert spacing.find("10,") is None


def test_a_name_is_given_once():
    with pytest.raises(ValueError, match="a spacing 'even' already"):
        spacing.SPACINGS.register(replace(spacing.LEADING, name="even"))
    with pytest.raises(KeyError, match="'evn' is unknown; known are even, leading"):
        spacing.SPACINGS["evn"]


def test_the_authors_grid_is_theirs():
    """300 steps start at t = 898; 1000 run past the end, which their code finds out by an index error."""
    kept = spacing.author_code(LINEAR, 300)
    assert kept[0] == 1
    assert kept[-1] == 898
    with pytest.raises(ValueError, match="1000"):
        spacing.author_code(LINEAR, 1000)
