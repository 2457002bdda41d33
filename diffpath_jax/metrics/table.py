"""The metrics of an evaluation, in the order in which they are shown."""

from diffpath_jax.metrics import fid, kid, nuclei, prdc, stain
from diffpath_jax.metrics.metric import Metric, Source

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (fid.FRECHET, fid.INFINITY, kid.KERNEL, *prdc.SCORES, *stain.DRIFT, *nuclei.DISTANCES)
}


def register(metric: Metric) -> None:
    """Adds a metric, which is then measured and shown wherever its kind is.

    Raises:
        ValueError: its name is taken.
    """
    if metric.name in METRICS:
        raise ValueError(f"there is a metric {metric.name!r} already")
    METRICS[metric.name] = metric


def metrics_of(source: Source) -> list[Metric]:
    """Returns the metrics that are measured of features, of stain, or of nuclei."""
    return [metric for metric in METRICS.values() if metric.source == source]
