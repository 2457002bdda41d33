"""How near images come back: closed forms, and SSIM window by window."""

import numpy as np
import pytest

from diffpath_jax.metrics.reconstruction import codebook_usage, count_codes, psnr, reduced_and_enlarged, ssim

RNG = np.random.default_rng(0)
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def flat(*levels):
    return np.stack([np.full((16, 16, 3), level, np.uint8) for level in levels])


def test_psnr_of_a_constant_error():
    """20 log10(255 / error); no error is infinitely near."""
    found = psnr(flat(100, 100, 100), flat(116, 101, 100))
    np.testing.assert_allclose(found[:2], [20 * np.log10(255 / 16), 20 * np.log10(255)], rtol=1e-12)
    assert np.isinf(found[2])


def test_ssim_of_flat_images_is_the_likeness_of_their_means():
    found = ssim(flat(100, 50), flat(120, 50))
    np.testing.assert_allclose(found, [(2 * 100 * 120 + C1) / (100**2 + 120**2 + C1), 1.0], rtol=1e-12)


def test_ssim_is_its_definition_in_every_window():
    """Wang et al. 2004: an 11 px Gaussian of 1.5 px around each place that has a whole window, the colours apart."""
    one = RNG.integers(0, 256, (1, 14, 13, 3), np.uint8)
    other = np.clip(one + RNG.normal(0, 30, one.shape), 0, 255).astype(np.uint8)
    kernel = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(kernel, kernel) / kernel.sum() ** 2
    values = []
    for y in range(14 - 10):
        for x in range(13 - 10):
            for colour in range(3):
                a, b = (i[0, y : y + 11, x : x + 11, colour].astype(float) for i in (one, other))
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
                cov = (window * (a - mean_a) * (b - mean_b)).sum()
                values.append(
                    (2 * mean_a * mean_b + C1) * (2 * cov + C2) / ((mean_a**2 + mean_b**2 + C1) * (var_a + var_b + C2))
                )
    np.testing.assert_allclose(ssim(one, other), np.mean(values), rtol=1e-6)


def test_codes_in_use():
    """Codes 0 and 3 of four, three times and once: half are used, exp(-(.75 ln .75 + .25 ln .25)) = 1.7548 evenly."""
    counts = count_codes(np.array([[0, 0], [3, 0]]), 4)
    np.testing.assert_array_equal(counts, [3, 0, 0, 1])
    found = codebook_usage(counts)
    assert found["codes_used"] == 0.5
    assert found["codes_perplexity"] == pytest.approx(4 / 3**0.75, rel=1e-12)


def test_the_baseline_keeps_means_and_nothing_finer():
    """A flat image comes back; stripes as fine as the reduction vanish, and their mean stays."""
    np.testing.assert_array_equal(reduced_and_enlarged(flat(77), 4), flat(77))
    stripes = flat(0)
    stripes[:, :, ::2] = 200
    np.testing.assert_array_equal(reduced_and_enlarged(stripes, 4), flat(100))
