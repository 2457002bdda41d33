"""Metrics of a run: one JSON object a line, beside the loggers that show them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import parse_json, write_text
from diffpath_jax.io.sealed import opened
from diffpath_jax.training.clu_without_tensorflow import metric_writers
from diffpath_jax.training.loggers import LOGGERS, TENSORBOARD, ScalarWriter, check_installed, finite

METRICS = "metrics.jsonl"


def open_log(
    workdir: Path, *, resume_step: int, loggers: Sequence[str] = (TENSORBOARD,)
) -> metric_writers.MetricWriter:
    """Returns the writer of a run's scalars: to all its logs, from a thread of its own.

    ``flush`` waits until every line of JSON is written. An error of that thread is raised by the next call.

    Args:
        workdir: the run.
        resume_step: step that the run goes on after; lines of later steps are dropped.
        loggers: names of what shows them besides.

    Raises:
        DiffpathError: the package of one is not installed.
    """
    check_installed(loggers)
    shown = [LOGGERS[name].open(workdir, resume_step=resume_step) for name in dict.fromkeys(loggers)]
    return metric_writers.AsyncWriter(
        metric_writers.MultiWriter([JsonLinesWriter(workdir, resume_step=resume_step), *shown])
    )


class JsonLinesWriter(ScalarWriter):
    """Appends ``{"step": ..., name: value, ...}``, a line a call.

    Args:
        workdir: the run.
        resume_step: lines of later steps are dropped first.
    """

    def __init__(self, workdir: Path, *, resume_step: int) -> None:
        path = workdir / METRICS
        if path.exists():
            kept = [row for row in read_metrics(workdir, tolerant=True) if row["step"] <= resume_step]
            write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a", encoding="utf-8")

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write a line, at once: a killed run loses none."""
        self._file.write(json.dumps({"step": step, **finite(scalars)}) + "\n")
        self._file.flush()

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True)
class _Row:
    """A line of the log."""

    scalars: dict[str, int | float]


def _row(line: str) -> dict[str, Any]:
    """Returns the numbers of a line.

    Raises:
        ValueError: it is no JSON object of numbers, or names no step.
    """
    scalars = opened({"scalars": parse_json(line.encode())}, _Row).scalars
    if "step" not in scalars:
        raise ValueError("it names no step")
    return scalars


def read_metrics(workdir: Path, *, tolerant: bool = False) -> list[dict[str, Any]]:
    """Returns the rows of a run's metrics, in order.

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
            rows.append(_row(line))
        except ValueError as error:
            if tolerant and number == len(lines) - 1:
                break
            raise DiffpathError(
                f"line {number + 1}",
                where=path,
                why=f"not a row of numbers ({error})",
                fix="delete the line",
                code=ExitCode.DAMAGED,
            ) from error
    return rows
