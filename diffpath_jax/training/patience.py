"""Early stopping: when a run has looked for long enough without finding anything better."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diffpath_jax.training.checkpoint import oriented
from diffpath_jax.training.metrics_log import METRICS, read_metrics


@dataclass
class Patience:
    """Looks since a metric was best.

    Attributes:
        metric: what is looked at.
        looks: so many without anything better are enough; 0 for no end.
        best: the best value so far, larger being better.
        since: looks since then.
    """

    metric: str
    looks: int
    best: float = -math.inf
    since: int = 0

    def look(self, measured: Mapping[str, float | int]) -> None:
        """Take in what was measured; a look that measured no finite number does not count."""
        value = float(measured.get(self.metric, math.nan))
        if not math.isfinite(value):
            return
        better = oriented(self.metric, value) > self.best
        self.best = max(self.best, oriented(self.metric, value))
        self.since = 0 if better else self.since + 1

    @property
    def over(self) -> bool:
        """True if the run is to end."""
        return 0 < self.looks <= self.since

    def recall(self, workdir: Path, *, step: int) -> None:
        """Take in what the run had logged up to a step, so that a resumed run ends where it would have ended."""
        if not self.looks or not (workdir / METRICS).exists():
            return
        for row in read_metrics(workdir, tolerant=True):
            if row["step"] <= step:
                self.look(row)
