"""Images that samples are to be like: each sample is told the features that an encoder sees in one of them.

Or it is told features of no image at all, drawn from the normal distribution of those of its class: ``mean + X^T z /
sqrt(n - 1)`` for the n centred features X and n standard normal numbers z has their mean and their covariance exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from diffpath_jax.data.manifest import Dataset
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.networks.conditions import FEATURES
from diffpath_jax.runs.run import Run
from diffpath_jax.sampling.references import Origin, References, refer

# Images of a class from which a distribution is told; what is drawn from that of a few would be like these few.
LEAST_FITTED = 20


@dataclass(frozen=True, eq=False)
class Likes:
    """Features that samples are told.

    Attributes:
        references: the images, with their features.
        drawn: features are drawn from the normal distribution of those of each class.
        seed: of that draw.
    """

    references: References
    drawn: bool = False
    seed: int = 0

    @property
    def origin(self) -> Origin | None:
        """Whether the model was trained on the images; none where no sample is like a single one."""
        return None if self.drawn else self.references.origin

    def as_json(self) -> dict[str, Any]:
        """Everything of it that decides pixels, but for the seed."""
        return {**self.references.as_json(), "drawn": self.drawn}

    def columns(self, indices: Int[np.ndarray, "n"]) -> dict[str, np.ndarray]:
        """Returns which image of the split each sample is like, as columns of a table."""
        return {} if self.drawn else {"like_image": self._images(indices)}

    def batch(self, indices: Int[np.ndarray, "n"]) -> dict[str, np.ndarray]:
        """Returns the features that some samples are told, as conditions by name."""
        if not self.drawn:
            return {FEATURES.name: self.references.fetch(FEATURES.name, self._images(indices))}
        labels, _ = self.references.places(indices)
        pairs = zip(labels.tolist(), indices.tolist(), strict=True)
        return {FEATURES.name: np.stack([self._draw(*pair) for pair in pairs])}

    def _images(self, indices: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        return self.references.numbers(*self.references.places(indices))

    @cached_property
    def _moments(self) -> dict[int, tuple[Float32[np.ndarray, "d"], Float32[np.ndarray, "n d"]]]:
        """Mean of the features of each class that has several images, and ``X / sqrt(n - 1)``."""
        found = {}
        for label, own in enumerate(self.references.order):
            if len(own) > 1:
                features = self.references.fetch(FEATURES.name, own)
                mean = features.mean(axis=0)
                found[label] = mean, (features - mean) / np.sqrt(np.float32(len(own) - 1))
        return found

    def _draw(self, label: int, index: int) -> Float32[np.ndarray, "d"]:
        mean, factor = self._moments[label]
        z = np.random.default_rng([self.seed, index]).standard_normal(len(factor), np.float32)
        return mean + z @ factor


def open_likes(
    dataset: Dataset,
    split: str,
    run: Run,
    *,
    counts: Sequence[int],
    seed: int,
    drawn: bool = False,
    allow_training: bool = False,
) -> Likes:
    """Returns what samples are to be like.

    Args:
        dataset: images with features beside them.
        split: of it.
        run: the model.
        counts: samples of each class of the model.
        seed: of the order of the images of each class, or of what is drawn.
        drawn: see :class:`Likes`.
        allow_training: samples may be like images that the model was trained on.

    Raises:
        DiffpathError: the model is not told features, the images have none, or those of another encoder; too few images
            of a class; or the model was trained on them (exit code 4).
    """
    _check_encoder(dataset, run)
    references = refer(
        dataset,
        split,
        run,
        option="like",
        counts=counts,
        least=LEAST_FITTED if drawn else 1,
        seed=seed,
        read={FEATURES.name: FEATURES.read},
        allow_training=allow_training or drawn,
    )
    return Likes(references, drawn, seed)


def _check_encoder(dataset: Dataset, run: Run) -> None:
    """Refuse features that the model does not understand.

    Raises:
        DiffpathError: it is not told any, or learnt those of another encoder.
    """
    if FEATURES.name not in run.config.network.conditions:
        fix = f"train one with {FEATURES.name!r} in network.conditions"
        raise DiffpathError("like", where=run.workdir, why="the model is not told features", fix=fix)
    encoder, width = dataset.details.encoder, run.config.network.feature_width
    if not encoder:
        fix = "name a data set of `diffpath encode --features`"
        raise DiffpathError("like", where=dataset.directory, why="no features lie beside its images", fix=fix)
    if dataset.schema.feature_width != width or run.features not in (None, encoder):
        why = f"its {dataset.schema.feature_width} features are of the encoder {encoder[:16]}"
        why += f", the model learnt {width} of {(run.features or 'another')[:16]}"
        raise DiffpathError("like", where=dataset.directory, why=why, fix="encode it with the encoder of training")
