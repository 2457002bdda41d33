"""AuthPct and C_T: worked by hand, and on honest and copying generators of Gaussians."""

import numpy as np
import pytest

from diffpath_jax.metrics.memorization.authenticity import auth_percent, copying_score


def column(*values):
    return np.array(values, np.float64)[:, None]


def test_auth_percent_by_hand():
    """Training images lie 1, 1 and 9 from their own neighbours, generated ones 0.5, 2, 0 and 1 from the nearest."""
    assert auth_percent(column(0, 1, 10), column(0.4, 3, 10, 11)) == 25


def test_copying_score_of_one_cell_by_hand():
    """The generated image is farther in 2 of 6 pairs: U = 2, Z = (2 - 3) / sqrt(3)."""
    found = copying_score(column(0), column(1, -2, 3), column(0.5, 2.5), cells=1, min_per_cell=1, seed=0)
    assert found == pytest.approx(-1 / np.sqrt(3))


def test_copying_score_weighs_cells_by_held_out_images():
    """A second cell, where one generated image lies nearer than one held-out one: Z = -0.5 / sqrt(1/4) = -1."""
    training, generated = column(0, 0, 1000, 1000), column(0.5, 2.5, 1001)
    found = copying_score(training, column(1, -2, 3, 1002), generated, cells=2, min_per_cell=1, seed=0)
    assert found == pytest.approx((3 * -1 / np.sqrt(3) + 1 * -1) / 4)
    alone = copying_score(training, column(1, -2, 3, 1002), generated, cells=2, min_per_cell=2, seed=0)
    assert alone == pytest.approx(-1 / np.sqrt(3))


def test_honest_and_copying_generators():
    rng = np.random.default_rng(0)
    training, held_out, honest = rng.normal(size=(3, 400, 8))
    copies = training + 0.05 * rng.normal(size=training.shape)
    keywords = {"cells": 3, "min_per_cell": 20, "seed": 0}
    assert abs(copying_score(training, held_out, honest, **keywords)) < 3
    assert copying_score(training, held_out, copies, **keywords) < -5
    assert auth_percent(training, honest) > 40
    assert auth_percent(training, copies) == 0


def test_too_few_images_in_every_cell():
    with pytest.raises(ValueError, match="no cell"):
        copying_score(column(0, 1), column(2), column(3), cells=1, min_per_cell=2, seed=0)
