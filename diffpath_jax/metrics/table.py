"""The metrics of an evaluation, in the order in which they are shown.

``METRICS.register(metric)`` adds one from outside the package: it is measured and shown wherever its kind is.
"""

from diffpath_jax.io.registry import Registry
from diffpath_jax.metrics import fid, kid, nuclei, prdc, stain
from diffpath_jax.metrics.metric import Metric, Source

METRICS: Registry[Metric] = Registry(
    "metric", (fid.FRECHET, fid.INFINITY, kid.KERNEL, *prdc.SCORES, *stain.DRIFT, *nuclei.DISTANCES)
)


def metrics_of(source: Source) -> list[Metric]:
    """Returns the metrics that are measured of features, of stain, or of nuclei."""
    return [metric for metric in METRICS.values() if metric.source == source]
