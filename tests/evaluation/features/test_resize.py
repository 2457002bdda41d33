"""Resizing to 299 x 299 against the tools that published numbers come from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax.evaluation.features import resize
from diffpath_jax.io.errors import DiffpathError
from tests.golden import weights

GOLDEN = weights.load("inception.npz")
CASES = [name.split("/")[1:] for name in GOLDEN if name.startswith("resize/")]


@pytest.mark.parametrize(("kind", "size"), CASES)
def test_resize(kind, size):
    """Within 1e-6 of the range of pixels, both ways and at the borders."""
    height, width = map(int, size.split("x"))
    pixels = weights.integers(f"resize {height} {width}", 256, (1, height, width, 3)).astype(np.uint8)
    out = np.asarray(jax.jit(resize.resize, static_argnums=1)(jnp.asarray(pixels), kind))
    assert out.shape == (1, 299, 299, 3)
    kept = GOLDEN["kept"]
    np.testing.assert_allclose(out[0][np.ix_(kept, kept)], GOLDEN[f"resize/{kind}/{size}"], rtol=0, atol=255e-6)


@pytest.mark.parametrize("make", [resize.bilinear_matrix, resize.bicubic_matrix])
@pytest.mark.parametrize("side", [1, 2, 3, 64, 299, 1000])
def test_one_colour_stays(make, side):
    np.testing.assert_allclose(make(side, 299).sum(axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize("make", [resize.bilinear_matrix, resize.bicubic_matrix])
def test_the_same_size_stays(make):
    np.testing.assert_allclose(make(299, 299), np.eye(299), atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (40, 700)])
def test_clean_against_pillow(size):
    """Sizes beyond the golden ones, where Pillow is here to ask."""
    image = pytest.importorskip("PIL.Image")
    pixels = weights.integers(f"pillow {size}", 256, (*size, 3)).astype(np.uint8)
    bands = [image.fromarray(pixels[..., i].astype(np.float32)).resize((299, 299), image.BICUBIC) for i in range(3)]
    found = resize.resize(jnp.asarray(pixels)[None], "clean")[0]
    np.testing.assert_allclose(found, np.stack(bands, axis=-1).clip(0, 255), rtol=0, atol=255e-6)


def test_an_unknown_resize_is_refused():
    with pytest.raises(DiffpathError, match="use one of tf_bilinear, clean"):
        resize.check_resize("bilinear")
