"""The duel's other side is guided-diffusion, and its measures see what they are made for."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks.duel import contestants, encoders, guided_diffusion, one, summary
from benchmarks.duel.contestants import NETWORK_CALLS, Theirs
from benchmarks.shapes import BETA_END, BETA_START
from diffpath_jax.config import checks, files
from diffpath_jax.diffusion.schedule import cosine_schedule, linear_schedule


def test_both_sides_train_on_one_schedule():
    ours = {"linear": linear_schedule(1000, beta_start=BETA_START, beta_end=BETA_END), "cosine": cosine_schedule(1000)}
    for name, schedule in ours.items():
        np.testing.assert_allclose(guided_diffusion.alpha_bars(name).numpy(), schedule.alpha_bar, rtol=1e-6)


@pytest.mark.parametrize(("prediction", "eta"), [("eps", 1.0), ("x0", 1.0), ("x0", 0.0)])
def test_their_sampler_is_ddpm_and_without_noise_ddim(prediction, eta):
    """Every pixel is normal with mean .2 and standard deviation .1: the ideal network and its steps are linear."""
    levels = guided_diffusion.alpha_bars("cosine").float()

    def gain(level):
        return level.sqrt() * 0.1**2 / (level * 0.1**2 + 1 - level)

    def ideal(x, t, labels):
        level = levels[t].reshape(-1, 1, 1, 1)
        x_0 = 0.2 + gain(level) * (x - level.sqrt() * 0.2)
        return x_0 if prediction == "x0" else (x - level.sqrt() * x_0) / (1 - level).sqrt()

    images = guided_diffusion.draw(ideal, np.zeros(20, int), Theirs(prediction, "cosine"), px=16, seed=0, eta=eta)
    values = images / 127.5 - 1
    # Around its mean x shrinks by the same factor in each step, from unit variance on, and noise is added (Song et al.
    # 2021, equations 12 and 16).
    times = np.round(np.linspace(999, 0, NETWORK_CALLS)).astype(int)
    variance = 1.0
    for level, after in zip(levels[times], [*levels[times[1:]], 1 + 0 * levels[0]], strict=True):
        share, noise = gain(level), eta**2 * (1 - after) / (1 - level) * (1 - level / after)
        factor = after.sqrt() * share + ((1 - after - noise) / (1 - level)).sqrt() * (1 - level.sqrt() * share)
        variance = float(factor**2 * variance + noise)
    spread = np.sqrt(variance)
    assert values.mean() == pytest.approx(0.2, abs=0.005)
    # In so few steps DDPM's smaller variance falls short of that of the images by a fifth, DDIM by a tenth.
    assert values.std() == pytest.approx(spread, rel=0.02) and spread == pytest.approx(0.1, rel=0.25 if eta else 0.15)


def test_a_lattice_of_two_pixels_is_seen():
    rng = np.random.default_rng(0)
    smooth = rng.integers(100, 110, (8, 32, 32, 3)).astype(np.uint8)
    lattice = smooth.copy()
    lattice[:, ::2, ::2] += 20
    assert encoders.nyquist_power(lattice) > 20 * encoders.nyquist_power(smooth)


def test_a_space_counts_if_it_orders_the_ladder():
    distances = {"real": 1.0, "JPEG 50": 2.0, "blurred": 5.0, "shuffled blocks": 4.0, "coloured noise": 9.0}
    assert encoders.counts(distances)
    assert not encoders.counts({**distances, "coloured noise": 4.5})
    assert not encoders.counts({**distances, "JPEG 50": 4.5})


def test_the_ladder_keeps_colours_and_loses_structure():
    rng = np.random.default_rng(1)
    images = np.clip(rng.normal(150, 15, (4, 32, 32, 3)) + 20 * np.arange(3), 0, 255).astype(np.uint8)
    rungs = dict(encoders.ladder(images, seed=0))
    assert list(rungs) == ["real", "JPEG 50", "blurred", "shuffled blocks", "coloured noise"]
    shuffled = rungs["shuffled blocks"]
    assert all(
        np.array_equal(np.sort(one.reshape(-1, 3), axis=0), np.sort(other.reshape(-1, 3), axis=0))
        for one, other in zip(images, shuffled, strict=True)
    )
    assert rungs["coloured noise"].mean() == pytest.approx(images.mean(), abs=2)
    assert all(each.shape == images.shape and each.dtype == np.uint8 for each in rungs.values())


def test_everybody_has_a_name_of_his_own_and_as_many_network_calls():
    names = one.contestants()
    assert len(names) == 48 + 22
    ours = [each for each in names.values() if not isinstance(each, Theirs)]
    assert all(str(NETWORK_CALLS) in each.drawing(Path("run"), Path("out"), per_class=1, seed=0) for each in ours)


@pytest.mark.parametrize("recipe", contestants.our_recipes(), ids=lambda recipe: recipe.name)
def test_a_recipe_is_a_config_and_changes_something(recipe):
    demo, changed = (
        checks.run_config(files.load("diffpath:demo_ddpm", words, checks.with_defaults), where="test")
        for words in ([], [f"--config.{word}" for word in recipe.train])
    )
    assert (demo != changed) == (recipe != contestants.RECIPE)


def test_distances_are_compared_with_the_best_of_theirs():
    """By hand: 2 and 4 over the floor are sqrt(8) in the geometric mean, the best of theirs 4 and 8, twice that."""
    distances = {"ours-a 0": 3.0, "ours-a 1": 5.0, "theirs-b 0": 5.0, "theirs-b 1": 9.0, "theirs-c 0": 20.0}
    space = {"floor": 1.0, "counts": True, "distances": distances}
    found = summary.compared(space)
    assert found["best_of_theirs"] == "theirs-b"
    own = found["ratios"]["ours-a"]
    assert own["ratio"] == pytest.approx(0.5) and own["low"] < 0.5 < own["high"]
    # Welch: both logarithms spread by log(2) / sqrt(2): 2 degrees of freedom, a standard error of log(2) / sqrt(2).
    assert np.log(own["high"] / 0.5) == pytest.approx(4.302653 * np.log(2) / np.sqrt(2), rel=1e-6)
    assert summary.half_width([2.0, 4.0]) == pytest.approx(12.7062, rel=1e-5) and summary.half_width([2.0]) is None
    assert summary.compared({**space, "floor": 3.0})["ratios"]["ours-a"]["ratio"] is None
    assert summary.rows({"one": space})[0] == {"contestant": "ours-a", "one": "3 ± 13"}
