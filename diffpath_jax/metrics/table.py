"""The metrics of an evaluation, in the order in which they are shown.

``METRICS.register(metric)`` adds one from outside the package: it is measured and shown wherever its kind is.
"""

from collections.abc import Collection

from diffpath_jax.io.registry import Registry
from diffpath_jax.metrics import fid, inception_score, kid, nuclei, prdc, stain
from diffpath_jax.metrics.metric import Metric, Source

METRICS: Registry[Metric] = Registry(
    "metric",
    (
        *(fid.FRECHET, fid.INFINITY, kid.KERNEL),
        *prdc.SCORES,
        *prdc.SCORES_AS_FIRST_PUBLISHED,
        *(fid.SPATIAL, inception_score.SCORE),
        *stain.DRIFT,
        *nuclei.DISTANCES,
    ),
)
# What a feature extractor gives.
EXTRACTED: tuple[Source, ...] = ("features", "spatial", "logits")


def metrics_of(*sources: Source) -> list[Metric]:
    """Returns the metrics that are measured of features, of stain, or of nuclei, whether asked for or always."""
    return [metric for metric in METRICS.values() if metric.source in sources]


def asked_for(source: Source, options: Collection[str]) -> list[Metric]:
    """Returns the metrics of a source that are always measured, and those whose options were given."""
    return [metric for metric in metrics_of(source) if not metric.option or metric.option in options]
