"""Nuclei that were drawn: their number, size and stain come back, however the image is turned or stained."""

import cv2
import numpy as np
import pytest
import scipy.stats

from diffpath_jax.metrics import nuclei
from diffpath_jax.metrics.bootstrap import Groups
from diffpath_jax.metrics.metric import Comparison
from tests.metrics.test_stain import coloured

SIDE, MPP = 128, 0.5


def discs(rng, *, count, radius_um, haematoxylin=0.9, background=0.15, mpp=MPP, gap_um=3.0, side=SIDE):
    """A field of discs that touch neither each other nor the edge, on fibrous eosin."""
    amount, radius, places = np.full((side, side), background), radius_um / mpp, []
    y, x = np.mgrid[:side, :side] + 0.5
    while len(places) < count:
        place = rng.uniform(radius + 1, side - radius - 1, 2)
        if all(np.hypot(*(place - other)) > 2 * radius + gap_um / mpp for other in places):
            places.append(place)
            amount[np.hypot(y - place[0], x - place[1]) <= radius] = haematoxylin
    eosin = 0.3 + 0.1 * cv2.GaussianBlur(rng.normal(size=(side, side)), (0, 0), 4)
    return coloured(amount, eosin.clip(0))


def measured(*images, mpp=MPP):
    threshold = nuclei.set_threshold(images, mpp=mpp)
    return nuclei.image_measures(np.stack(images), threshold=threshold, mpp=mpp)


@pytest.mark.parametrize(("count", "radius_um"), [(12, 3.0), (8, 5.0), (4, 8.0)])
def test_discs_come_back_with_their_number_size_and_stain(count, radius_um):
    image = discs(np.random.default_rng(count), count=count, radius_um=radius_um)
    density, area, amount = measured(image)[0]
    assert density == pytest.approx(count / (SIDE * MPP / 1000) ** 2)
    assert area == pytest.approx(np.pi * radius_um**2, rel=0.05)
    # The border of a disc is smoothed into its surroundings.
    assert amount == pytest.approx(0.9, rel=0.05)


@pytest.mark.parametrize("mpp", [0.25, 1.0])
def test_um_are_um_at_any_resolution(mpp):
    image = discs(np.random.default_rng(0), count=6, radius_um=5.0, mpp=mpp, side=round(64 / mpp))
    density, area, _ = measured(image, mpp=mpp)[0]
    assert density == pytest.approx(6 / 0.064**2)
    assert area == pytest.approx(np.pi * 25, rel=0.06)


def test_turning_and_mirroring_change_nothing():
    image = discs(np.random.default_rng(1), count=10, radius_um=4.0)
    turned = [np.ascontiguousarray(part) for part in (np.rot90(image), image[::-1], image.swapaxes(0, 1))]
    first, *others = (measured(part)[0] for part in (image, *turned))
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-6)


def test_a_darker_stain_of_everything_darkens_nuclei_and_leaves_their_number_and_size():
    options = {"count": 10, "radius_um": 4.0}
    pale = measured(discs(np.random.default_rng(2), haematoxylin=0.7, background=0.1, **options))[0]
    dark = measured(discs(np.random.default_rng(2), haematoxylin=0.9, background=0.3, **options))[0]
    np.testing.assert_allclose(dark[:2], pale[:2], rtol=0.02)
    assert dark[2] - pale[2] == pytest.approx(0.2, abs=0.01)


def test_two_discs_that_touch_are_two_nuclei():
    image = discs(np.random.default_rng(3), count=1, radius_um=0.1, haematoxylin=0.15)
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    pair = np.minimum(np.hypot(y - 64, x - 54), np.hypot(y - 64, x - 72)) <= 10
    image[pair] = coloured(np.full(pair.sum(), 0.9), np.full(pair.sum(), 0.2))
    density, area, _ = measured(image)[0]
    assert density == pytest.approx(2 / (SIDE * MPP / 1000) ** 2)
    assert area == pytest.approx(pair.sum() * MPP**2 / 2, rel=0.05)


def test_what_the_edge_cuts_counts_half_and_has_no_size():
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    amount = np.where(np.hypot(y, x - 64) <= 12, 0.9, 0.1)
    density, area, _ = measured(coloured(amount, np.full(amount.shape, 0.3)))[0]
    assert density == pytest.approx(0.5 / (SIDE * MPP / 1000) ** 2)
    assert area == 0


def test_ink_and_debris_are_no_nuclei():
    amount = np.full((SIDE, SIDE), 0.1)
    amount[10:90, 10:90] = 1.0  # 1600 um^2
    amount[100:105, 100:105] = 1.0  # 6 um^2
    assert measured(coloured(amount, np.full(amount.shape, 0.3)))[0][0] == 0


def test_otsu_parts_two_normal_distributions_where_they_are_as_likely():
    """Of two normal distributions of one width and size the best threshold is the middle of their means."""
    edges = np.linspace(-5, 10, 1501)
    counts = np.diff(scipy.stats.norm.cdf(edges, 0) + scipy.stats.norm.cdf(edges, 4))
    assert nuclei.otsu(counts, edges) == pytest.approx(2, abs=0.02)
    empty_between = np.where((edges[:-1] < 1) | (edges[:-1] >= 3), counts, 0)
    assert nuclei.otsu(empty_between, edges) == pytest.approx(2, abs=0.02)


def test_coarse_images_show_none():
    with pytest.raises(ValueError, match="too coarse"):
        measured(np.zeros((8, 8, 3), np.uint8), mpp=2.1)


def singly(count):
    return Groups(np.arange(count), count, "images")


def statistic(x, y, place=0):
    comparison = Comparison(x, y, singly(len(x)), singly(len(y)), 0)
    return nuclei.DISTANCES[place].statistic(comparison)


def ones(count):
    return np.ones(count, int)


def test_distance_of_a_shifted_distribution_is_the_shift_in_standard_deviations():
    x = np.random.default_rng(4).normal(100, 20, (500, 3))
    shifted = x + 1.5 * x.std(axis=0, ddof=1)
    for place in range(3):
        assert statistic(x, shifted, place)(ones(500), ones(500)) == pytest.approx(1.5)
        assert statistic(x, x, place)(ones(500), ones(500)) == 0


def test_distance_of_a_wider_distribution_is_that_of_its_quantiles():
    """Between N(0, 1) and N(0, 2): the mean of |z|, sqrt(2 / pi)."""
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(20_000, 3)), 2 * rng.normal(size=(20_000, 3))
    assert statistic(x, y)(ones(20_000), ones(20_000)) == pytest.approx(np.sqrt(2 / np.pi), abs=0.03)


def test_images_drawn_twice_weigh_twice_and_those_without_nuclei_have_no_size():
    x = np.array([[1.0] * 3, [2.0] * 3, [4.0] * 3, [0.0] * 3])
    y = np.array([[0.0] * 3, [3.0] * 3, [5.0] * 3])
    weights = np.array([2, 1, 0, 1]), np.array([1, 2, 0])
    expected = scipy.stats.wasserstein_distance([1, 1, 2], [3, 3]) / np.std([1, 2, 4], ddof=1)
    assert statistic(x, y, 1)(*weights) == statistic(x, y, 2)(*weights) == pytest.approx(expected)
    expected = scipy.stats.wasserstein_distance([1, 1, 2, 0], [0, 3, 3]) / np.std([1, 2, 4, 0], ddof=1)
    assert statistic(x, y, 0)(*weights) == pytest.approx(expected)


def test_too_few_images_with_nuclei_are_said():
    x = np.zeros((4, 3))
    with pytest.raises(ValueError, match="fewer than two images"):
        statistic(x, x, 1)
    with pytest.raises(ValueError, match="the same nuclei_density"):
        statistic(x, x, 0)
