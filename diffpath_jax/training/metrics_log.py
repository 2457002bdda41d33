"""Metrics of a run: one JSON object a line, and TensorBoard events."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorboardX

from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import write_text

METRICS = "metrics.jsonl"


class MetricsWriter:
    """Appends metrics; opened at step N it first drops what an interrupted run wrote beyond N."""

    def __init__(self, workdir: Path, *, resume_step: int) -> None:
        self._path = workdir / METRICS
        if self._path.exists():
            kept = [row for row in read_metrics(workdir, tolerant=True) if row["step"] <= resume_step]
            write_text(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = self._path.open("a", encoding="utf-8")
        self._events = tensorboardX.SummaryWriter(str(workdir / "tensorboard"), purge_step=resume_step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record scalars; NaN (as of a noise level that no image of the batch had) is left out."""
        finite = {key: float(value) for key, value in values.items() if math.isfinite(value)}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        for key, value in finite.items():
            self._events.add_scalar(key, value, step)

    def close(self) -> None:
        """Flush and close both files."""
        self._file.close()
        self._events.close()


def read_metrics(workdir: Path, *, tolerant: bool = False) -> list[dict[str, Any]]:
    """Rows of a run's metrics, in order.

    Args:
        workdir: the run.
        tolerant: leave out a last line that a killed run did not finish.

    Raises:
        DiffpathError: no metrics, or a damaged line (exit code 5).
    """
    path = workdir / METRICS
    if not path.exists():
        raise DiffpathError("metrics", where=path, why="no such file", fix="name a run of `diffpath train`")
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if tolerant and number == len(lines) - 1:
                break
            raise DiffpathError(
                f"line {number + 1}",
                where=path,
                why=f"not JSON ({error})",
                fix="delete the line",
                code=ExitCode.DAMAGED,
            ) from error
    return rows
