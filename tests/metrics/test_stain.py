"""Stain amounts against colours that are made of known amounts."""

import numpy as np
import pytest

from diffpath_jax.metrics import stain

# Ruifrok and Johnston 2001, table 1, normalised: optical density of one unit of haematoxylin and of eosin.
UNIT = {"h": np.array([0.65, 0.70, 0.29]), "e": np.array([0.07, 0.99, 0.11])}
UNIT = {name: vector / np.linalg.norm(vector) for name, vector in UNIT.items()}


def coloured(h, e):
    """Pixels that hold these amounts of stain."""
    density = np.multiply.outer(h, UNIT["h"]) + np.multiply.outer(e, UNIT["e"])
    return np.round(256 * 10**-density - 1).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("h", "e"), [(0.0, 0.0), (0.8, 0.0), (0.0, 0.5), (0.4, 0.3)])
def test_amounts_come_back(h, e):
    found = stain.stain_amounts(coloured(np.full((4, 4), h), np.full((4, 4), e)))
    np.testing.assert_allclose(found.mean(axis=(0, 1)), [h, e], atol=0.01)  # 8-bit colours


def test_drift_is_zero_for_the_same_tissue_and_names_what_moved():
    rng = np.random.default_rng(0)
    h, e = rng.uniform(0.1, 0.6, (2, 8, 16, 16))
    real = stain.stain_statistics(coloured(h, e))
    same = stain.stain_drift(real, real)
    assert same == {
        "haematoxylin_shift": 0.0, "haematoxylin_spread_ratio": 1.0, "eosin_shift": 0.0, "eosin_spread_ratio": 1.0,
    }  # fmt: skip
    bluer = stain.stain_drift(stain.stain_statistics(coloured(h + real.spread[0], e)), real)
    np.testing.assert_allclose(bluer["haematoxylin_shift"], 1.0, atol=0.02)
    np.testing.assert_allclose(bluer["eosin_shift"], 0.0, atol=0.02)
    flatter = stain.stain_drift(stain.stain_statistics(coloured(h, e.mean() + (e - e.mean()) / 2)), real)
    np.testing.assert_allclose(flatter["eosin_spread_ratio"], 0.5, atol=0.02)
