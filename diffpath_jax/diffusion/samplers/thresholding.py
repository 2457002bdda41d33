"""Bounds on the estimate of x_0: a pixel is never outside [-1, 1], an estimate can be."""

from typing import Protocol, runtime_checkable

import jax.numpy as jnp

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
