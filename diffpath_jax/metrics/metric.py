"""A metric as one row: how it is measured, what it is called, and how its number is to be read.

The rows stand beside the code that measures them, and :mod:`diffpath_jax.metrics.table` lists them. Files, tables,
pages, figures and help texts derive from the rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from diffpath_jax.metrics.bootstrap import Groups, Statistic
from diffpath_jax.metrics.influence import Influence

# What images are compared by: vectors of a feature extractor, its spatial features or its logits (of those that have
# them), :func:`stain.image_moments` or :func:`nuclei.image_measures`.
Source = Literal["features", "spatial", "logits", "stain", "nuclei"]
Better = Literal["lower", "higher", "nearer 0", "nearer 1"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two sets of images as arrays, with the groups that a replicate draws whole. Equal only to itself.

    Attributes:
        x: an array for each image of the reference.
        y: the same for the other set.
        x_groups: groups of the reference.
        y_groups: groups of the other set.
        seed: random seed of subsets.
    """

    x: Float[np.ndarray, "m *d"]
    y: Float[np.ndarray, "n *d"]
    x_groups: Groups
    y_groups: Groups
    seed: int


@runtime_checkable
class MakeStatistic(Protocol):
    """Prepares a metric of two sets as a function of how often each of their groups was drawn."""

    def __call__(self, comparison: Comparison) -> Statistic:
        """Returns the metric.

        Raises:
            ValueError: the sets do not allow it, such as too few images.
        """
        ...


@runtime_checkable
class MakeInfluence(Protocol):
    """Measures a metric of two sets with its derivatives by the weights of the images."""

    def __call__(self, comparison: Comparison) -> Influence:
        """Returns the metric and its derivatives.

        Raises:
            ValueError: the sets do not allow it, such as too few images.
        """
        ...


@runtime_checkable
class Details(Protocol):
    """Measures numbers that are stored with a metric."""

    def __call__(self, comparison: Comparison) -> Mapping[str, int | float]:
        """Returns the numbers by name."""
        ...


@runtime_checkable
class Caveats(Protocol):
    """Finds what a reader must know of a metric of two sets."""

    def __call__(self, comparison: Comparison, name: str) -> Sequence[str]:
        """Returns notes; ``name`` is what the metric is called there."""
        ...


def _no_details(comparison: Comparison) -> Mapping[str, int | float]:
    return {}


def _no_caveats(comparison: Comparison, name: str) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class Metric:
    """A metric of a set of images against a reference.

    Attributes:
        name: unique name; ``{features}`` in it is replaced by the name of the feature extractor.
        title: a few words for a reader.
        statistic: how it is measured.
        better: which values are good.
        digits: decimal places on pages.
        lower: least possible value.
        upper: greatest possible value.
        source: what it is measured of.
        published_name: its name in the published FID Inception network; empty for the same name everywhere.
        family: metrics that are measured, and fail, together; empty for a metric of its own.
        headline: whether it is in the console, in figures and in reports as well as in tables.
        interval: whether replicates give it an interval.
        influence: its derivatives, where intervals come from them faster than from replicates; none for replicates.
        details: numbers that are stored with it.
        caveats: notes on it.
        option: word by which it is asked for, where it costs time of its own; empty for always measured.
    """

    name: str
    title: str
    statistic: MakeStatistic
    better: Better = "lower"
    digits: int = 3
    lower: float = -np.inf
    upper: float = np.inf
    source: Source = "features"
    published_name: str = ""
    family: str = ""
    headline: bool = True
    interval: bool = True
    influence: MakeInfluence | None = None
    details: Details = _no_details
    caveats: Caveats = _no_caveats
    option: str = ""

    def name_in(self, features: str, *, published: bool) -> str:
        """Returns the name of the metric in a feature space.

        Args:
            features: name of the feature extractor.
            published: whether it is the published FID Inception network.
        """
        return self.published_name if published and self.published_name else self.name.format(features=features)

    @property
    def summary(self) -> str:
        """Its name, for a placeholder of features, and its title."""
        return f"{self.name.format(features='FEATURES')} ({self.title})"
