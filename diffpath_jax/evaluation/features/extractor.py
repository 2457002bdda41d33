"""Feature extractors: what Frechet and kernel distances are measured in.

An extractor is a name, a digest and a function. The name decides what a distance may be called: only the published
FID Inception network gives "FID" and "KID"; every other extractor gives "FD-<name>" and "KD-<name>". The kinds of
extractors are rows beside their code, and :mod:`diffpath_jax.evaluation.features.open` lists them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import Float, UInt8
from numpy import ndarray

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
