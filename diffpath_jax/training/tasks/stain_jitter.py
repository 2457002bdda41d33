"""Other amounts of stain in the same tissue, as another laboratory would have used (Tellez et al. 2018).

"Whole-slide mitosis detection in H&E breast histology using PHH3 as a reference", section II-D: the amount a of each
stain becomes ``alpha a + beta``. Light that stains absorb adds up in optical density, where each has a direction
(Ruifrok and Johnston 2001, table 1); what the two stains do not explain stays as it is.
"""

import jax
import jax.numpy as jnp
import numpy as np

from diffpath_jax.metrics.stain import DIRECTIONS, UNMIX
from diffpath_jax.shapes import Images, PixelImages, PRNGKey


def jitter_stains(images: PixelImages, key: PRNGKey, *, strength: float) -> Images:
    """Images in [-1, 1] with other amounts of stain; those of an image change alike at all of its pixels.

    Args:
        images: pixels.
        key: of alpha and beta, which each image has of its own for each stain.
        strength: alpha lies within 1 +- strength, beta within +- strength in optical density (published: 0.05, "light",
            and 0.2, "strong", in Tellez et al. 2019).
    """
    density = -jnp.log10((images.astype(jnp.float32) + 1) / 256)
    amounts = jnp.matmul(density, UNMIX.astype(np.float32), precision="highest")
    shape = (2, images.shape[0], 1, 1, len(DIRECTIONS))
    more, shift = jax.random.uniform(key, shape, minval=-strength, maxval=strength)
    moved = density + jnp.matmul(more * amounts + shift, DIRECTIONS.astype(np.float32), precision="highest")
    pixels = jnp.clip(256 * 10**-moved - 1, 0, 255)
    return pixels / 127.5 - 1
