"""Feature extractors: what Frechet and kernel distances are measured in.

An extractor is a name, a digest and a function. The name decides what a distance may be called: only the published
FID Inception network gives "FID" and "KID"; every other extractor gives "FD-<name>" and "KD-<name>". The kinds of
extractors are rows beside their code, and :mod:`diffpath_jax.evaluation.features.open` lists them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.metrics import fid, kid
from diffpath_jax.metrics.metric import Metric, Source


@runtime_checkable
class Extract(Protocol):
    """Computes features."""

    def __call__(self, images: UInt8[ndarray, "n h w 3"]) -> Float[ndarray, "n d"]:
        """Returns the float32 features of any number of images."""
        ...


@dataclass(frozen=True)
class FeatureExtractor:
    """A way to see images as vectors.

    Attributes:
        name: short name for tables.
        description: network, training data and size of the features, in words.
        digest: SHA-256 of its parameters.
        resize: how images are brought to the network's size.
        extract: images -> features.
        image_px: (height, width) of the images it takes; none where it resizes images of any size.
        published: whether it is the network of published FID and KID, with the published parameters.
        views: other outputs of the network, by what metrics are measured of them; computed where those are asked for.
    """

    name: str
    description: str
    digest: str
    resize: str
    extract: Extract
    image_px: tuple[int, int] | None = None
    published: bool = False
    views: Mapping[Source, "FeatureExtractor"] = field(default_factory=dict)

    def check_size(self, image_px: tuple[int, int], *, where: Path) -> None:
        """Refuses images that it does not take: they have another size, and it resizes nothing.

        Raises:
            DiffpathError: naming both sizes.
        """
        if self.image_px:
            fix = "use images of its size, or features that resize, such as Inception's"
            network = f"{self.name}, which resizes nothing,"
            check_size(image_px, self.image_px, network=network, where=where, fix=fix)

    def finite(self, images: UInt8[ndarray, "n h w 3"], *, first: int, where: Path) -> Float[ndarray, "n d"]:
        """Returns the features of some images, in which no number is missing.

        Args:
            images: some of a set.
            first: number of the first of them in it.
            where: the set lies.

        Raises:
            DiffpathError: a feature is infinite or no number.
        """
        features = np.asarray(self.extract(images), np.float32)
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(bad):
            of = f"{len(bad)} of {len(features)} images"
            why = f"{of} have features that are not finite, the first is image {first + bad[0]}"
            fix = f"check the parameters of {self.name}, and this image"
            raise DiffpathError("features", where=where, why=why, fix=fix)
        return features

    def name_of(self, metric: Metric) -> str:
        """Returns what a metric is called in these features."""
        return metric.name_in(self.name, published=self.published)

    @property
    def frechet_name(self) -> str:
        """Name of the Frechet distance in these features."""
        return self.name_of(fid.FRECHET)

    @property
    def kernel_name(self) -> str:
        """Name of the kernel distance in these features."""
        return self.name_of(kid.KERNEL)


@runtime_checkable
class Recognise(Protocol):
    """Tells whether something on disk is an extractor of a kind."""

    def __call__(self, path: Path) -> bool:
        """Returns whether it is, by its name."""
        ...


@runtime_checkable
class OpenExtractor(Protocol):
    """Opens an extractor."""

    def __call__(self, path: Path, *, resize: str) -> FeatureExtractor:
        """Returns the extractor.

        Args:
            path: directory or file.
            resize: how images are brought to its size, where that can be chosen.

        Raises:
            DiffpathError: it is something else, or damaged.
        """
        ...


@dataclass(frozen=True)
class ExtractorKind:
    """A kind of feature extractor.

    Attributes:
        name: unique name.
        source: what a user names, in a few words.
        recognise: whether a path is one.
        open: opens it.
    """

    name: str
    source: str
    recognise: Recognise
    open: OpenExtractor


def check_size(image_px: tuple[int, int], expected: tuple[int, int], *, network: str, where: Path, fix: str) -> None:
    """Refuses images of another size, (height, width), than a network was trained with.

    Raises:
        DiffpathError: naming both sizes.
    """
    if image_px != expected:
        own, theirs = (f"{width} x {height} px" for height, width in (image_px, expected))
        why = f"they have {own}, and {network} was trained with {theirs}"
        raise DiffpathError("images", where=where, why=why, fix=fix)
