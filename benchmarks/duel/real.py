"""Real images that drawn ones are compared with."""

from pathlib import Path

import numpy as np

from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.data.pipeline import read_arrays


def read_evenly(dataset: Path, split: str, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images of a split and their labels, as many of each class as are drawn, evenly spread."""
    data = read_arrays(open_dataset(dataset), split)
    images, labels = data["image"], data["label"]
    chosen = np.concatenate(
        [
            own[np.linspace(0, len(own) - 1, min(per_class, len(own))).astype(int)]
            for own in (np.flatnonzero(labels == label) for label in np.unique(labels))
        ]
    )
    return images[chosen], labels[chosen]
