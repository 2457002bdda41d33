"""Array shapes, named once. Images are NHWC; floats in [-1, 1] inside the model, uint8 outside."""

from collections.abc import Callable, Mapping
from typing import Any

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
# A batch of the data pipeline: "image" (PixelImages) and "label" (Labels).
Batch = Mapping[str, jax.Array]
# (eps, learned variance as a fraction in [-1, 1] or none) as a function of (x_t, t); t is an index into the schedule
# that the denoiser was built for.
Denoiser = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array | None]]
