"""Images that are there twice: with the same pixels, or nearly the same, also turned or mirrored.

Each image gets a fingerprint while it is read: a digest of its pixels, and a *sign hash*, the signs of the lowest
``SIDE`` x ``SIDE`` coefficients of its discrete cosine transform (the perceptual hash of Zauner 2010, "Implementation
and benchmarking of perceptual image hash functions", with a threshold of 0: a weaker or stronger stain changes no
sign). Compression, light blur, noise and another stain flip few signs. Those of two different places are independent,
so that the number of bits in which they differ is binomial: 71 of 143 on average, and at most ``MAX_BITS`` in one of
1e20 pairs. Mirroring an image changes the signs of its odd coefficients and turning it swaps rows and columns, so all
eight symmetries of a square are compared without the pixels.

Near duplicates are found by bands: two hashes with fewer differing bits than bands agree in one band at least. Images
that agree in a band lie side by side once sorted by it, and only neighbours are compared (the sorted neighbourhood
method of Hernandez and Stolfo 1995), so that a million images take minutes.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, Int32, UInt8

SIDE, BANDS, MAX_BITS = 12, 8, 16
BITS = SIDE**2
# Grey levels of contrast (root mean square) below which signs are those of noise: plain colour resembles nothing.
MIN_CONTRAST = 2.0
# Of images that agree in a band, each is compared with so many that come before it.
_NEIGHBOURS = 32
# Pairs that are gathered before most of them are forgotten again.
_MANY_PAIRS = 2**20
_REDUCED_PX = 32
# Swap rows and columns, mirror left to right, mirror top to bottom: the symmetries of a square, the first none.
_SYMMETRIES = tuple((bool(i & 4), bool(i & 2), bool(i & 1)) for i in range(8))
# In place of the split of an image that is left out because it repeats another.
DROPPED = "duplicate"
# Where the two images of a pair are, the worst last.
WHERE = ("within a slide", "within a split", "across splits")


@dataclass(frozen=True)
class Fingerprint:
    """Fingerprint of an image, as hexadecimal digits.

    Attributes:
        pixels: 128 bits of the SHA-256 of its pixels.
        signs: sign hash; empty where the image shows no more than noise.
    """

    pixels: str
    signs: str


@dataclass(frozen=True)
class Images:
    """Fingerprints and places of images, in the order in which the first of several equal ones counts as original.

    Attributes:
        pixels: 16 bytes of digest.
        signs: sign hashes, packed.
        plain: those without a sign hash.
        slide: number of the slide; a number of its own for an image that no slide is known of.
        split: number of the split.
        places: left, top, width and height in level-0 pixels of the slide.
    """

    pixels: UInt8[np.ndarray, "n 16"]
    signs: UInt8[np.ndarray, "n 18"]
    plain: Bool[np.ndarray, "n"]
    slide: Int[np.ndarray, "n"]
    split: Int[np.ndarray, "n"]
    places: Float[np.ndarray, "n 4"]


@dataclass(frozen=True)
class Pairs:
    """Images and an earlier one that each repeats: the first such within its slide, its split and other splits.

    Attributes:
        first: index of the earlier image.
        second: index of the later image.
        bits: in how many bits the sign hashes differ.
        exact: whether the pixels are the same.
        turned: whether one is the other turned or mirrored.
        where: index into ``WHERE``.
    """

    first: Int[np.ndarray, "p"]
    second: Int[np.ndarray, "p"]
    bits: Int[np.ndarray, "p"]
    exact: Bool[np.ndarray, "p"]
    turned: Bool[np.ndarray, "p"]
    where: Int[np.ndarray, "p"]


def fingerprint(image: UInt8[np.ndarray, "h w 3"]) -> Fingerprint:
    """Fingerprint of an image."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    reduced = cv2.resize(grey, (_REDUCED_PX, _REDUCED_PX), interpolation=cv2.INTER_AREA)
    lowest = cv2.dct(reduced)[:SIDE, :SIDE].copy()
    lowest[0, 0] = 0  # brightness
    # The transform is orthonormal: it keeps the sum of squares.
    plain = np.square(lowest).sum() < (MIN_CONTRAST * _REDUCED_PX) ** 2
    return Fingerprint(
        pixels=hashlib.sha256(image.tobytes()).hexdigest()[:32],
        signs="" if plain else np.packbits(lowest > 0).tobytes().hex(),
    )


def find_pairs(images: Images) -> Pairs:
    """Every image that repeats an earlier one, exactly or nearly.

    Fields of one slide that overlap share pixels by the user's choice of stride: they are not near duplicates.
    """
    _, original, group = np.unique(images.pixels, axis=0, return_index=True, return_inverse=True)
    original = original[group.ravel()]
    repeats = np.flatnonzero(original != np.arange(len(original)))
    no = np.zeros(len(repeats), np.int64)
    exact = _first_of_each(images, Pairs(original[repeats], repeats, no, no == 0, no == 1, no))
    # An exact copy is near to whatever its original is near to.
    distinct = np.flatnonzero((original == np.arange(len(original))) & ~images.plain)
    near = [_no_pairs()]
    for pairs in _near_pairs(images.signs[distinct]):
        named = replace(pairs, first=distinct[pairs.first], second=distinct[pairs.second])
        near.append(_without_overlaps(images, named))
        if sum(len(pairs.first) for pairs in near[1:]) > _MANY_PAIRS:
            near = [_first_of_each(images, _join(near))]
    return _join([exact, _first_of_each(images, _join(near))])


def _near_pairs(signs: UInt8[np.ndarray, "m 18"]) -> Iterator[Pairs]:
    """Pairs of near hashes that agree in a band, for one symmetry and band at a time; a pair may come again."""
    bits = np.unpackbits(signs, axis=1).astype(bool)
    words, keys = _words(bits), _band_keys(bits)
    for symmetry in _SYMMETRIES:
        turned = _turn(bits, symmetry)
        turned_words, turned_keys = _words(turned), _band_keys(turned)
        for band in range(BANDS):
            for i, j in _agreeing(keys[:, band], turned_keys[:, band]):
                apart = np.bitwise_count(words[i] ^ turned_words[j]).sum(axis=1, dtype=np.int64)
                near = apart <= MAX_BITS
                if not near.any():
                    continue
                first, second = np.minimum(i, j)[near], np.maximum(i, j)[near]
                same = np.full(len(first), any(symmetry))
                yield Pairs(first, second, apart[near], np.zeros_like(same), same, np.zeros_like(first))


def _agreeing(
    keys: Int32[np.ndarray, "m"], others: Int32[np.ndarray, "m"]
) -> Iterator[tuple[Int[np.ndarray, "p"], Int[np.ndarray, "p"]]]:
    """Indices of equal keys of two different images, among neighbours of the sorted list of both.

    Equal keys stay in the order of the images, so that every image meets the one before it.
    """
    both = np.stack([keys, others], axis=1).ravel()
    order = np.argsort(both, kind="stable")
    ranked, at = both[order], np.arange(len(both))
    for offset in range(1, 2 * _NEIGHBOURS):
        at = at[at + offset < len(both)]
        at = at[ranked[at] == ranked[at + offset]]
        if not len(at):
            return
        one, other = order[at], order[at + offset]
        mixed = (one % 2 != other % 2) & (one // 2 != other // 2)
        one, other = one[mixed], other[mixed]
        turned = one % 2 == 1
        yield np.where(turned, other, one) // 2, np.where(turned, one, other) // 2


def _turn(bits: Bool[np.ndarray, "m b"], symmetry: tuple[bool, bool, bool]) -> Bool[np.ndarray, "m b"]:
    """Sign hashes of the images turned or mirrored."""
    swapped, mirrored, upended = symmetry
    odd = np.arange(SIDE) % 2 == 1
    square = bits.reshape(-1, SIDE, SIDE)
    square = (square.swapaxes(1, 2) if swapped else square) ^ ((odd & mirrored) ^ (odd & upended)[:, None])
    # The sign of brightness is none.
    square[:, 0, 0] = False
    return square.reshape(len(bits), BITS)


def _words(bits: Bool[np.ndarray, "m b"]) -> np.ndarray:
    """Bits as 64-bit numbers."""
    packed = np.packbits(bits, axis=1)
    return np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8))).view(np.uint64)


def _band_keys(bits: Bool[np.ndarray, "m b"]) -> Int32[np.ndarray, "m bands"]:
    """Bits as one number a band; every band has coarse and fine coefficients."""
    keys = np.zeros((len(bits), BANDS), np.int32)
    for place in range(BITS // BANDS):
        keys |= bits[:, place * BANDS : (place + 1) * BANDS].astype(np.int32) << place
    return keys


def _without_overlaps(images: Images, pairs: Pairs) -> Pairs:
    one, other = images.places[pairs.first], images.places[pairs.second]
    overlapping = (np.abs(one[:, :2] - other[:, :2]) < one[:, 2:]).all(axis=1)
    return _choose(pairs, ~(overlapping & (images.slide[pairs.first] == images.slide[pairs.second])))


def _first_of_each(images: Images, pairs: Pairs) -> Pairs:
    """Of the pairs of each later image the one with the first earlier image in each place, so that they stay few."""
    first, second = pairs.first, pairs.second
    apart = (images.slide[first] != images.slide[second]).astype(int)
    where = np.where(images.split[first] != images.split[second], 2, apart)
    order = np.lexsort((pairs.bits, first, where, second))
    _, kept = np.unique((second * len(WHERE) + where)[order], return_index=True)
    chosen = Pairs(first, second, pairs.bits, pairs.exact, pairs.turned, where)
    return _choose(chosen, order[kept])


def _choose(pairs: Pairs, chosen: np.ndarray) -> Pairs:
    return Pairs(**{name: values[chosen] for name, values in vars(pairs).items()})


def _join(parts: Sequence[Pairs]) -> Pairs:
    return Pairs(**{name: np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])})


def _no_pairs() -> Pairs:
    numbers, flags = np.zeros(0, np.int64), np.zeros(0, bool)
    return Pairs(numbers, numbers, numbers, flags, flags, numbers)
