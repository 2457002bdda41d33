"""Tissue drawn by the law of light: dyes of published colours in known amounts, over glass of a known colour."""

from pathlib import Path

import cv2
import numpy as np
import tifffile

# Optical densities of red, green and blue (Ruifrok and Johnston 2001, table 1).
HAEMATOXYLIN, EOSIN = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])
DAB = np.array([0.27, 0.57, 0.78])
# Those of Landini's colour deconvolution for ImageJ; silver absorbs alike everywhere.
METHYL_BLUE, PONCEAU_FUCHSIN = np.array([0.80, 0.59, 0.11]), np.array([0.10, 0.74, 0.67])
ALCIAN_BLUE, SILVER = np.array([0.87, 0.46, 0.16]), np.array([0.58, 0.58, 0.58])
GLASS = (243, 243, 242)
INKS = {"blue": (45, 60, 150), "green": (30, 120, 75), "red": (195, 25, 40), "black": (30, 30, 34)}
MPP = 0.5


def cloud(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> np.ndarray:
    """A smooth random field from 0 to 1, half of it below 0.5."""
    field = cv2.GaussianBlur(rng.standard_normal(shape).astype(np.float32), (0, 0), sigma)
    return 1 / (1 + np.exp(-1.5 * (field - field.mean()) / field.std()))


def tissue(
    rng: np.random.Generator,
    shape: tuple[int, int],
    *,
    strength=1.0,
    glass=GLASS,
    finest=1.2,
    dyes=(EOSIN, HAEMATOXYLIN),
) -> np.ndarray:
    """One dye everywhere, another in grains; every amount times ``strength``."""
    fibres = 0.25 + 0.5 * cloud(rng, shape, 6) * cloud(rng, shape, finest)
    nuclei = 0.9 * (cloud(rng, shape, 4) > 0.75) * cloud(rng, shape, finest)
    density = strength * (fibres[..., None] * dyes[0] + nuclei[..., None] * dyes[1])
    light = np.array(glass) * 10**-density + rng.normal(0, 1, (*shape, 1))
    return light.clip(0, 255).astype(np.uint8)


def save(path: Path, image: np.ndarray, *, mpp: float = MPP) -> Path:
    """An Aperio-like slide of an image, without loss."""
    height, width = image.shape[:2]
    description = f"Aperio Image Library v0\r\n{width}x{height} (256x256)|AppMag = 20|MPP = {mpp}"
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", description=description, metadata=None)
    return path
