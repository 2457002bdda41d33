"""Bounds on the estimate of x_0: a pixel is never outside [-1, 1], an estimate can be."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax.numpy as jnp

from diffpath_jax.io.registry import Registry
from diffpath_jax.shapes import Images


@runtime_checkable
class Threshold(Protocol):
    """Keeps estimates within bounds."""

    def __call__(self, x_0: Images, /) -> Images:
        """Returns the estimates, thresholded."""


def clip(x_0: Images) -> Images:
    """Cut at -1 and 1."""
    return jnp.clip(x_0, -1, 1)


def unbounded(x_0: Images) -> Images:
    """No bounds: for latents, and for the authors' code."""
    return x_0


def dynamic_threshold(percentile: float) -> Threshold:
    """Dynamic thresholding (Saharia et al. 2022, "Imagen", section 2.3).

    Each image is cut at the given share of its own absolute values, but not below 1, and divided by that bound: strong
    guidance then does not saturate.

    Args:
        percentile: share of values left uncut, 0 to 1; 0.995 in the paper.
    """

    def threshold(x_0: Images) -> Images:
        bound = jnp.quantile(jnp.abs(x_0).reshape(x_0.shape[0], -1), percentile, axis=1)
        bound = jnp.maximum(bound, 1).reshape(-1, 1, 1, 1)
        return jnp.clip(x_0, -bound, bound) / bound

    return threshold


@runtime_checkable
class MakeThresholdFn(Protocol):
    """Makes a threshold."""

    def __call__(self, percentile: float, /) -> Threshold:
        """Returns the threshold; what does not cut at a percentile leaves it unused."""


@dataclass(frozen=True)
class ThresholdingKind:
    """A thresholding that users can choose.

    Attributes:
        name: the word that they choose it by.
        summary: a few words, for help.
        make: makes it.
        bounds: it bounds estimates, as pixels are bounded and latents are not.
    """

    name: str
    summary: str
    make: MakeThresholdFn
    bounds: bool = True


CLIP = ThresholdingKind("clip", "cut at -1 and 1", lambda percentile: clip)
DYNAMIC = ThresholdingKind("dynamic", "each image divided by a percentile of its own", dynamic_threshold)
NONE = ThresholdingKind("none", "left as they are", lambda percentile: unbounded, bounds=False)

THRESHOLDINGS: Registry[ThresholdingKind] = Registry("thresholding", (CLIP, DYNAMIC, NONE))
