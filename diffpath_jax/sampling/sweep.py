"""Many sampling jobs from the same noise, side by side: the effect of a sampler's numbers on the images."""

import difflib
import itertools
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from diffpath_jax.data import marking
from diffpath_jax.data.manifest import MANIFEST, Dataset
from diffpath_jax.devices import processes
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.progress import console
from diffpath_jax.io.sealed import read_sealed, write_sealed
from diffpath_jax.render import image_grid
from diffpath_jax.sampling import job as sampling_job
from diffpath_jax.sampling.draw import Model

SUMMARY, CONTACT_SHEET = "sweep.json", "contact.png"
# Images of a row on the contact sheet, over all classes; every class has one at least.
SHEET_COLUMNS = 12
_WORD = re.compile(r"[A-Za-z0-9_.+-]+")


@dataclass(frozen=True)
class _Summary:
    """Stored form of a sweep: the row of each point by its name."""

    points: dict[str, dict[str, Any]]


def points(texts: Sequence[str], base: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Every combination of the values in each text, by a name fit for a directory.

    Args:
        texts: ``"sampler=ddim,dpmpp steps=10,25"``; each gives its own combinations. None gives ``base``, unnamed.
        base: the options that a point may change.

    Raises:
        DiffpathError: an unknown option, or a value that no option can have.
    """
    if not texts:
        return {"": dict(base)}
    combinations = {}
    for text in texts:
        axes = [_axis(part, base) for part in text.split()]
        for values in itertools.product(*(values for _, values in axes)):
            chosen = dict(zip((name for name, _ in axes), values, strict=True))
            changed = {sampling_job.RENAMED.get(name, name): value for name, value in chosen.items()}
            combinations["_".join(f"{name}-{value}" for name, value in chosen.items())] = {**base, **changed}
    return combinations


def _axis(text: str, base: Mapping[str, Any]) -> tuple[str, list[str]]:
    name, _, values = text.partition("=")
    if sampling_job.RENAMED.get(name, name) not in base:
        near = difflib.get_close_matches(name, base, n=1)
        fix = f"write {near[0]!r}" if near else f"use {', '.join(base)}"
        raise DiffpathError(f"option {name!r}", where="--sweep", why="unknown", fix=fix)
    words = values.split(",")
    for word in words:
        if not _WORD.fullmatch(word):
            fix = 'write "OPTION=A,B OPTION=C,D"'
            raise DiffpathError(f"value {word!r} of {name!r}", where="--sweep", why="not a value", fix=fix)
    return name, words


def run(
    jobs: Mapping[str, sampling_job.SampleJob],
    model: Model,
    mesh: Mesh,
    *,
    out: Path,
    finish: Callable[[sampling_job.SampleJob, Model, Dataset], None],
) -> None:
    """Draw every point, then write a summary and a contact sheet to ``out``; rerun to resume.

    Image i has the same noise in every point, so what differs between rows is the sampler's doing.
    """
    before = recorded(out)
    rows: dict[str, dict[str, Any]] = {}
    sheets: dict[str, np.ndarray] = {}
    for number, (name, job) in enumerate(jobs.items(), 1):
        console.print(f"[bold]{number} of {len(jobs)}: {name}[/bold]", soft_wrap=True)
        fresh = not (job.out / MANIFEST).exists()
        start = time.monotonic()
        dataset = sampling_job.run_job(job, model, mesh)
        seconds = time.monotonic() - start if fresh else before.get(name, {}).get("seconds")
        finish(job, model, dataset)
        sheets[name] = _sheet_images(dataset)
        first = next(iter(sheets.values())).astype(np.float32)
        sampling = dataset.details.sampling or {}
        rows[name] = {
            "evaluations": sampling["evaluations"],
            "images": dataset.count(sampling_job.SPLIT),
            "seconds": seconds,
            "rms_from_first": float(np.sqrt(np.square(sheets[name] - first).mean())),
            "digest": dataset.digest,
            "sampling": sampling,
        }
    if processes.is_first():
        write_sealed(out / SUMMARY, {"points": {**before, **rows}})
        sheet = image_grid.sheet(sheets, _headings(jobs, model))
        image_grid.write_png(out / CONTACT_SHEET, sheet, marking.about())
        _print(rows)
        console.print(f"contact sheet: {out / CONTACT_SHEET}", soft_wrap=True)


def recorded(out: Path) -> dict[str, dict[str, Any]]:
    """Returns the row of each point that an earlier run drew; none where there was no run.

    Raises:
        DiffpathError: the summary is damaged (exit code 5).
    """
    path = out / SUMMARY
    return read_sealed(path, _Summary, what="summary", fix="delete it").points if path.exists() else {}


def _per_class(num_classes: int) -> int:
    return max(1, SHEET_COLUMNS // num_classes)


def _sheet_images(dataset: Dataset) -> np.ndarray:
    num_classes = len(dataset.schema.classes)
    rows = image_grid.first_of_each_class(dataset.read(sampling_job.SPLIT), num_classes, _per_class(num_classes))
    return np.stack([image for row in rows for image in row])


def _headings(jobs: Mapping[str, sampling_job.SampleJob], model: Model) -> list[str]:
    """The class above the first image of each."""
    counts = next(iter(jobs.values())).counts
    return [
        name if number == 0 else ""
        for name, count in zip(model.run.classes, counts, strict=True)
        for number in range(min(count, _per_class(len(counts))))
    ]


def _print(rows: Mapping[str, Mapping[str, Any]]) -> None:
    console.print("evaluations  images  seconds  RMS from the first (of 255)  point", soft_wrap=True)
    for name, row in rows.items():
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.1f}"
        numbers = f"{row['evaluations']:11d}  {row['images']:6d}  {seconds:>7}  {row['rms_from_first']:27.1f}"
        console.print(f"{numbers}  {name}", soft_wrap=True, markup=False)
