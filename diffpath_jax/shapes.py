"""Array shapes, named once. Images are NHWC; floats in [-1, 1] inside the model, uint8 outside."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Float, Int, Key, UInt8

Images = Float[Array, "b h w c"]
PixelImages = UInt8[Array, "b h w 3"]
Timesteps = Int[Array, "b"]
Labels = Int[Array, "b"]
PRNGKey = Key[Array, ""]
PRNGKeys = Key[Array, "b"]
Scalar = Float[Array, ""]
# (sum, weight) of a logged number: sums over steps and devices stay exact means.
Weighted = Float[Array, "2"]
# Parameters and states are plain nested dicts of arrays.
Tree = Mapping[str, Any]
# What a denoiser is told of each image, by name: the class ("label", Labels), and whatever else was registered.
Conditions = Mapping[str, jax.Array]
# A batch of the data pipeline: "image" (PixelImages) or, where those are stored, "latent" (Images); and its conditions.
Batch = Mapping[str, jax.Array]


class DenoiserOutput(NamedTuple):
    """The output of a denoiser at x_t.

    Attributes:
        eps: the noise in it.
        variance: the learned variance of a step, as a fraction in [-1, 1]; none where none is learnt.
        score: gradient of a classifier, times its scale, that is left to the sampler's step; none where there is none,
            or where it is already in ``eps``.
    """

    eps: Images
    variance: Images | None = None
    score: Images | None = None


@runtime_checkable
class Denoiser(Protocol):
    """A network with everything that it is conditioned on and guided by."""

    def __call__(self, x_t: Images, t: Timesteps, /) -> DenoiserOutput:
        """Returns the noise in ``x_t``; t is an index into the schedule that the denoiser was built for."""
