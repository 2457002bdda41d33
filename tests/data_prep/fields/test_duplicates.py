"""Exact and near duplicates: found through every small change, none among different places, at any number of images."""

import resource
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.fields import duplicates
from data_prep.fields.duplicates import Images
from tests.conftest import GLASS, PINK
from tests.data_prep.drawn_tissue import tissue

rng = np.random.default_rng(0)
TISSUE = tissue(rng, (1280, 1280))


def fields(size=128, count=60):
    """Places of one large drawing that do not overlap."""
    corners = [(y, x) for y in range(0, 1280 - size + 1, size) for x in range(0, 1280 - size + 1, size)]
    return [TISSUE[y : y + size, x : x + size] for y, x in corners[:count]]


def as_jpeg(quality):
    def change(image):
        return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)

    return change


def halve(image):
    return cv2.resize(cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA), (128, 128))


CHANGES = {
    "jpeg 80": as_jpeg(80),
    "jpeg 50": as_jpeg(50),
    "blur": lambda image: cv2.GaussianBlur(image, (0, 0), 1.0),
    "noise": lambda image: (image + rng.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8),
    "weaker stain": lambda image: (255 * (image / 255) ** 0.8).astype(np.uint8),
    "stronger stain": lambda image: (255 * (image / 255) ** 1.25).astype(np.uint8),
    "other colours": lambda image: (image * np.array([0.92, 1.0, 1.05])).clip(0, 255).astype(np.uint8),
    "reduced and enlarged": halve,
    "a pixel to the right": lambda image: np.roll(image, 1, axis=1),
}
SYMMETRIES = {
    f"{turns} turns{', mirrored' * mirrored}": (
        lambda image, turns=turns, mirrored=mirrored: np.ascontiguousarray(
            np.rot90(image[:, ::-1] if mirrored else image, turns)
        )
    )
    for turns in range(4)
    for mirrored in (False, True)
    if turns or mirrored
}


def described(images, *, slide=None, split=None, places=None):
    """Images, each far from the others unless told where it is."""
    prints = [duplicates.fingerprint(image) for image in images]
    none = "00" * (duplicates.BITS // 8)
    count = len(images)
    apart = np.array([(1e4 * i, 0, 100, 100) for i in range(count)], float).reshape(-1, 4)
    return Images(
        pixels=np.array([list(bytes.fromhex(p.pixels)) for p in prints], np.uint8).reshape(-1, 16),
        signs=np.array([list(bytes.fromhex(p.signs or none)) for p in prints], np.uint8).reshape(-1, 18),
        plain=np.array([not p.signs for p in prints], bool),
        slide=np.zeros(count, int) if slide is None else np.array(slide),
        split=np.zeros(count, int) if split is None else np.array(split),
        places=apart if places is None else np.array(places, float),
    )


def pairs_of(found):
    return sorted(zip(found.first.tolist(), found.second.tolist(), strict=True))


@pytest.mark.parametrize("name", [*CHANGES, *SYMMETRIES])
def test_a_changed_image_is_found(name):
    originals = fields()
    found = duplicates.find_pairs(described([*originals, *map({**CHANGES, **SYMMETRIES}[name], originals)]))
    expected = [(i, i + len(originals)) for i in range(len(originals))]
    # One pixel is at the edge of what counts as nearly the same.
    assert len(set(pairs_of(found)) & set(expected)) >= (0.9 if "pixel" in name else 1) * len(expected)
    assert set(pairs_of(found)) <= set(expected)
    assert not found.exact.any()
    assert found.turned.all() == (name in SYMMETRIES)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_different_places_are_not_near(size):
    assert pairs_of(duplicates.find_pairs(described(fields(size, count=1600)))) == []


def test_edges_of_tissue_and_plain_tissue_are_not_near():
    """Half glass and half tissue is alike on coarse view; plain colour with grain has nothing to be alike in."""
    edges = []
    for image in fields(count=100):
        edge = image.copy()
        edge[:, :64] = GLASS
        edges.append(edge)
    grain = [(np.array(PINK) + rng.normal(0, 12, (64, 64, 3))).clip(0, 255).astype(np.uint8) for _ in range(200)]
    smooth = [(np.array(PINK) + rng.normal(0, 1, (64, 64, 3))).clip(0, 255).astype(np.uint8) for _ in range(200)]
    assert duplicates.fingerprint(smooth[0]).signs == ""
    for images in (edges, grain, smooth):
        assert pairs_of(duplicates.find_pairs(described(images))) == []


def test_equal_pixels_are_found_even_without_any_contrast():
    image, glass = fields()[0], np.full((64, 64, 3), GLASS, np.uint8)
    found = duplicates.find_pairs(described([image, glass, glass, image, glass]))
    assert pairs_of(found) == [(0, 3), (1, 2), (1, 4)]
    assert found.exact.all() and not found.bits.any()


def test_where_a_pair_is():
    one, two, three = fields()[:3]
    near = CHANGES["jpeg 80"]
    images = [one, near(one), two, near(two), three, three]
    found = duplicates.find_pairs(described(images, slide=[0, 0, 0, 1, 0, 1], split=[0, 0, 0, 0, 0, 1]))
    names = {(i, j): duplicates.WHERE[w] for i, j, w in zip(found.first, found.second, found.where, strict=True)}
    assert names == {(0, 1): "within a slide", (2, 3): "within a split", (4, 5): "across splits"}


def test_an_image_is_told_its_first_original_in_each_place():
    image = fields()[0]
    found = duplicates.find_pairs(described([image] * 5, slide=[0, 0, 1, 1, 2], split=[0, 0, 0, 1, 1]))
    assert pairs_of(found) == [(0, 1), (0, 2), (0, 3), (0, 4)]
    near = [CHANGES[name](image) for name in ("jpeg 80", "jpeg 50", "noise", "other colours")]
    found = duplicates.find_pairs(described([image, *near], slide=[0, 0, 1, 1, 2], split=[0, 0, 0, 1, 1]))
    assert set(pairs_of(found)) >= {(0, 1), (0, 2), (0, 3), (0, 4)}
    assert {int(second) for second in found.second[found.where == 2]} == {3, 4}


def test_overlapping_fields_of_a_slide_are_alike_by_choice():
    """A grid with a step of two pixels shows the same tissue again and again; on another slide it is a duplicate."""
    images = [TISSUE[300:428, x : x + 128] for x in (300, 302)]
    places = [(300, 300, 128, 128), (302, 300, 128, 128)]
    assert pairs_of(duplicates.find_pairs(described(images, places=places))) == []
    assert pairs_of(duplicates.find_pairs(described(images[:1] * 2, places=places))) == [(0, 1)]
    near = [images[0], CHANGES["jpeg 80"](images[0])]
    assert pairs_of(duplicates.find_pairs(described(near, places=places))) == []
    assert pairs_of(duplicates.find_pairs(described(near, places=places, slide=[0, 1]))) == [(0, 1)]


def planted(count, copies, generator):
    """Random sign hashes with copies, each in one of eight symmetries and with up to ``MAX_BITS`` flipped bits."""
    square = generator.random((count, duplicates.SIDE, duplicates.SIDE)) < 0.5
    original = generator.integers(0, count // 2, copies)
    copy = generator.choice(np.arange(count // 2, count), copies, replace=False)
    flips = generator.integers(0, duplicates.MAX_BITS + 1, copies)
    odd = np.where(np.arange(duplicates.SIDE) % 2, -1, 1)
    for number, (i, j, flip) in enumerate(zip(original, copy, flips, strict=True)):
        # As coefficients, not as bits: a mirrored image has the opposite odd ones, a turned one is transposed too.
        signs = np.where(square[i], 1, -1)
        signs = signs.T if number & 4 else signs
        signs = signs * (odd if number & 2 else 1) * (odd[:, None] if number & 1 else 1)
        square[j] = signs > 0
        square[j].flat[generator.choice(np.arange(1, duplicates.BITS), flip, replace=False)] ^= True
    square[:, 0, 0] = False
    numbers = np.arange(count)
    images = Images(
        pixels=generator.integers(0, 256, (count, 16), dtype=np.uint8),
        signs=np.packbits(square.reshape(count, -1), axis=1),
        plain=np.zeros(count, bool),
        slide=numbers,
        split=numbers % 3,
        places=np.zeros((count, 4)),
    )
    return images, list(zip(original.tolist(), copy.tolist(), strict=True)), flips


def check_planted(count, copies):
    images, expected, flips = planted(count, copies, np.random.default_rng(7))
    found = pairs_of(duplicates.find_pairs(images))
    hit = np.isin([image for _, image in expected], [image for _, image in found])
    # With fewer flipped bits than bands one band is whole; beyond that most are found.
    assert hit[flips < duplicates.BANDS].all() and hit[flips < 12].mean() > 0.9 and hit.mean() > 0.85
    # Nothing else is found than images of one original.
    root = np.arange(count)
    for original, copy in expected:
        root[copy] = original
    assert all(root[one] == root[other] for one, other in found)
    return hit.mean()


def test_planted_copies_among_many_are_found():
    begin = time.monotonic()
    check_planted(30_000, 500)
    assert time.monotonic() - begin < 60


@pytest.mark.full
def test_a_million_images():
    begin = time.monotonic()
    # The other tests of this process hold memory too.
    held = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**30
    share = check_planted(1_000_000, 2_000)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 - held
    print(f"a million images in {time.monotonic() - begin:.0f} s, {peak:.2f} GiB, {share:.1%} of the copies found")
    assert peak < 1.5


def test_many_nearly_equal_images_cost_no_square():
    """Ten thousand near copies of one image: all are found, and the list stays as long as they are many."""
    images, *_ = planted(10_000, 1, np.random.default_rng(1))
    bits = np.unpackbits(np.repeat(images.signs[:1], 10_000, axis=0), axis=1)
    flipped = np.random.default_rng(2).integers(1, duplicates.BITS, (10_000, 3))
    np.put_along_axis(bits, flipped, 1 - np.take_along_axis(bits, flipped, axis=1), axis=1)
    same = Images(**{**vars(images), "signs": np.packbits(bits, axis=1)})
    found = duplicates.find_pairs(same)
    assert len(np.unique(found.second)) == 9_999
    assert len(found.second) <= 3 * 10_000
