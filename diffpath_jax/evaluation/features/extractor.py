"""Feature extractors: what Frechet and kernel distances are measured in.

An extractor is a name, a digest and a function. The name decides what a distance may be called: only the published
FID Inception network gives "FID" and "KID"; every other extractor gives "FD-<name>" and "KD-<name>".
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FeatureExtractor:
    """A way to see images as vectors.

    Attributes:
        name: short name for tables.
        description: network, training data and size of the features, in words.
        digest: SHA-256 of its parameters.
        resize: how images are brought to the network's size.
        image_px: (height, width) of the images it takes; none where it resizes images of any size.
        published: the network of published FID and KID, with the published parameters.
        extract: (n, h, w, 3) uint8 images, any n -> (n, d) float32 features.
    """

    name: str
    description: str
    digest: str
    resize: str
    extract: Callable[[np.ndarray], np.ndarray]
    image_px: tuple[int, int] | None = None
    published: bool = False

    @property
    def frechet_name(self) -> str:
        """What the Frechet distance in these features is called."""
        return "FID" if self.published else f"FD-{self.name}"

    @property
    def kernel_name(self) -> str:
        """What the kernel distance in these features is called."""
        return "KID" if self.published else f"KD-{self.name}"
