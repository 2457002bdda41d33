"""Fields from windows: Gaussian images of which a window's denoiser is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax.diffusion.samplers import loop, thresholding
from diffpath_jax.diffusion.samplers.ddim import ddim
from diffpath_jax.diffusion.schedule import cosine_schedule, respace
from diffpath_jax.diffusion.windows import Windows, averaged, taper, with_windows
from diffpath_jax.shapes import DenoiserOutput

SCHEDULE = respace(cosine_schedule(1000), np.arange(0, 1000, 10))
# Correlation of neighbours, along both axes.
RHO = 0.6


def keys(count):
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(jnp.arange(count))


def of_gaussian(side):
    """The exact denoiser of square images of variance 1 whose correlation falls as RHO^(|dx| + |dy|).

    Their covariance is A x A, so in the eigenvectors of A each coordinate has the variance l_i l_j.
    """
    axis = RHO ** np.abs(np.subtract.outer(np.arange(side), np.arange(side)))
    values, vectors = np.linalg.eigh(axis)
    variance, u = jnp.asarray(np.outer(values, values), jnp.float32), jnp.asarray(vectors, jnp.float32)
    alpha_bar = jnp.asarray(SCHEDULE.alpha_bar, jnp.float32)

    def denoiser(x, t):
        a = alpha_bar[t].reshape(-1, 1, 1, 1)
        y = jnp.einsum("ji,bjkc,kl->bilc", u, x, u)
        eps = jnp.sqrt(1 - a) * y / (a * variance[..., None] + 1 - a)
        return DenoiserOutput(jnp.einsum("ij,bjkc,lk->bilc", u, eps, u))

    return denoiser


def drawn(denoiser, side, count):
    options = {"shape": (side, side, 1), "threshold": thresholding.unbounded}
    sampler = ddim(SCHEDULE, eta=1.0)
    return np.asarray(jax.jit(lambda k: loop.sample(denoiser, sampler, keys=k, **options)[0])(keys(count)))


@pytest.mark.parametrize(("size", "side", "stride"), [((40, 56), 16, 8), ((17, 16), 16, 5), ((16, 16), 16, 4)])
def test_windows_cover_the_field(size, side, stride):
    windows = Windows(size, side, stride, at_once=3)
    for axis in (0, 1):
        starts = windows.starts(axis)
        assert (starts[0], starts[-1]) == (0, size[axis] - side)
        assert (np.diff(starts) > 0).all() and (np.diff(starts) <= stride).all()
    # The mean of what windows leave as it is is the field, whatever their weights, and in any number at once.
    x = jax.random.normal(jax.random.key(0), (2, *size, 3))
    np.testing.assert_allclose(averaged(lambda x, which: x, x, windows, channels=3), x, atol=1e-6)
    larger = averaged(lambda x, which: x.repeat(2, axis=1).repeat(2, axis=2), x, windows, channels=3, factor=2)
    np.testing.assert_allclose(larger, x.repeat(2, axis=1).repeat(2, axis=2), atol=1e-6)


def test_weights_rise_to_the_middle():
    for side in (4, 5, 16):
        weights = taper(side)
        assert (weights > 0).all() and (np.diff(weights[: (side + 1) // 2]) > 0).all()
        np.testing.assert_allclose(weights, weights[::-1], rtol=1e-5)
    assert taper(5)[2] == 1


def test_each_window_has_its_conditions_its_time_and_all_parts_of_the_output():
    windows = Windows((4, 6), 4, 2, at_once=3)
    conditions = {"value": jnp.array([1.0, 2.0, 3.0, 4.0])}

    def denoiser_of(told):
        def denoiser(x, t):
            value = told["value"].reshape(-1, 1, 1, 1) + 10 * t.reshape(-1, 1, 1, 1) + 0 * x
            return DenoiserOutput(value, variance=2 * value)

        return denoiser

    output = with_windows(denoiser_of, conditions, windows)(jnp.zeros((2, 4, 6, 3)), jnp.array([0, 1]))
    assert output.score is None
    np.testing.assert_allclose(output.variance, 2 * output.eps)
    edge, middle = taper(4)[:2]
    share = edge / (edge + middle)
    np.testing.assert_allclose(output.eps[0, 0, :, 0], [1, 1, 1 + share, 2 - share, 2, 2], rtol=1e-6)
    np.testing.assert_allclose(output.eps[1, 0, (0, -1), 0], [13, 14], rtol=1e-6)


def seams(found, windows):
    """Mean variance of pixels, and of the difference to the next, beside borders of windows and elsewhere."""
    side = found.shape[1]
    borders = sorted({*windows.starts(1).tolist(), *(windows.starts(1) + windows.side).tolist()} - {0, side})
    difference = np.diff(found, axis=2)
    beside = np.isin(np.arange(side - 1), np.array(borders) - 1)
    # What lies at the edge of the field is left out: there is no seam.
    inner = (np.arange(side - 1) >= 4) & (np.arange(side - 1) < side - 5)
    measured = []
    for values in (found[:, :, :-1], difference):
        variance = np.square(values).mean(axis=(0, 1, 3))
        measured.append((variance[beside & inner].mean(), variance[~beside & inner].mean()))
    return measured


@pytest.mark.parametrize("count", [24, pytest.param(200, marks=pytest.mark.full)])
def test_seams_of_windows_are_as_variable_as_what_lies_between(count):
    """And both as what the denoiser of the whole field draws in as many steps."""
    windows = Windows((64, 64), 16, 8, at_once=49)
    denoiser, whole = of_gaussian(16), of_gaussian(64)
    measured = seams(drawn(with_windows(lambda told: denoiser, {}, windows), 64, count), windows)
    for (border, inside), truth in zip(measured, seams(drawn(whole, 64, count), windows), strict=True):
        assert border / inside == pytest.approx(1, abs=0.05)
        assert (border, inside) == pytest.approx(truth, rel=0.05)


def test_memory_beside_the_field_does_not_grow_with_it():
    def temporary(side):
        windows = Windows((side, side), 16, 8, at_once=16)
        denoiser = of_gaussian(16)
        step = jax.jit(lambda x, t: with_windows(lambda told: denoiser, {}, windows)(x, t).eps)
        compiled = step.lower(jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32), jnp.zeros(1, jnp.int32)).compile()
        # Beside the sum that becomes the result there is one array of the field's size.
        return compiled.memory_analysis().temp_size_in_bytes - 4 * 3 * side**2

    assert temporary(1024) <= 2 * temporary(128)
