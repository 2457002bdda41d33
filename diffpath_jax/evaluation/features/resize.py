"""The two ways to bring images to Inception's 299 x 299 pixels. They change the distance: every result names its own.

- ``tf_bilinear``: as in the TensorFlow graph that published FIDs were measured with (``resize_bilinear`` without
  aligned corners). Pixel i of the output is read at ``i * in / out``, with no half-pixel shift and no antialiasing.
- ``clean``: Parmar et al. 2022 ("On aliased resizing and surprising subtleties in GAN evaluation"): bicubic, the filter
  widened when shrinking, in floats, clipped to [0, 255] and not rounded; what Pillow does to a float image.

Both are linear and separable: a matrix for the rows and one for the columns.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.shapes import PixelImages

SIDE = 299
Resize = Literal["tf_bilinear", "clean"]
# Half the width of the bicubic kernel, in pixels of the coarser image, and its parameter (Keys 1981).
_BICUBIC_REACH, _BICUBIC_A = 2.0, -0.5


def check_resize(kind: str) -> Resize:
    """Checks the name of a resize.

    Raises:
        DiffpathError: it is not.
    """
    for known in get_args(Resize):
        if kind == known:
            return known
    fix = "use one of " + ", ".join(get_args(Resize))
    raise DiffpathError("resize", where="the command line", why=f"{kind!r} is unknown", fix=fix)


def resize(images: PixelImages, kind: Resize) -> Float[Array, "b 299 299 3"]:
    """Returns images of any size at 299 x 299; values stay within 0 and 255 and are not rounded."""
    make = {"tf_bilinear": bilinear_matrix, "clean": bicubic_matrix}[kind]
    rows, columns = (jnp.asarray(make(side, SIDE), jnp.float32) for side in images.shape[1:3])
    # Full float32 also where products default to less (TPUs, GPUs).
    high = jax.lax.Precision.HIGHEST
    resized = jnp.einsum("ih,bhwc->biwc", rows, images.astype(jnp.float32), precision=high)
    resized = jnp.einsum("jw,biwc->bijc", columns, resized, precision=high)
    return resized.clip(0, 255) if kind == "clean" else resized


def bilinear_matrix(inputs: int, outputs: int) -> Float[np.ndarray, "{outputs} {inputs}"]:
    """Returns the weights of TensorFlow 1's ``resize_bilinear``; places are computed in float32, as there."""
    place = np.arange(outputs, dtype=np.float32) * np.float32(inputs / outputs)
    lower = place.astype(int)
    share = (place - lower.astype(np.float32)).astype(np.float64)
    matrix, row = np.zeros((outputs, inputs)), np.arange(outputs)
    matrix[row, lower] += 1 - share
    matrix[row, np.minimum(lower + 1, inputs - 1)] += share
    return matrix


def bicubic_matrix(inputs: int, outputs: int) -> Float[np.ndarray, "{outputs} {inputs}"]:
    """Returns the weights of Pillow's bicubic: of pixels whose centre is within its reach, of sum one."""
    scale = inputs / outputs
    width = max(scale, 1.0)
    centre = ((np.arange(outputs) + 0.5) * scale)[:, None]
    reach = _BICUBIC_REACH * width
    pixel = np.arange(inputs)
    # Its bounds are rounded to whole pixels by truncation.
    first, last = np.trunc(centre - reach + 0.5), np.trunc(centre + reach + 0.5)
    matrix = np.where((pixel >= first) & (pixel < last), _bicubic((pixel + 0.5 - centre) / width), 0)
    return matrix / matrix.sum(axis=1, keepdims=True)


def _bicubic(x: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Returns the cubic convolution kernel (Keys 1981, equation 15 with a = -1/2)."""
    x, a = np.abs(x), _BICUBIC_A
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x < 1, near, np.where(x < _BICUBIC_REACH, far, 0))
