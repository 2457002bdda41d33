"""The page of a reader: one file that works without a network, and in which nothing tells which image is which.

Images lie in it as raw pixels of one length, in the reader's own order, and are drawn by the page: there is no file
name, no metadata, and no length after compression that would differ between real and generated ones.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffpath_jax.evaluation.image_sets import ImageSet
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.sealed import read_sealed
from diffpath_jax.reader.key import Case, Key, Trial
from diffpath_jax.reader.question import QUESTIONS
from diffpath_jax.render import html

# The file by which a directory of pages is known; it tells nothing of which image is which.
MARKER = "pages.json"
# A page that is larger opens slowly or not at all.
MAX_BYTES = 200 * 2**20
# Columns of the answers that a page hands out.
COLUMNS = ("study", "reader", "trial", "answer", "milliseconds", "changes")


@dataclass(frozen=True)
class Pages:
    """A study as its readers may know it.

    Attributes:
        study: its name, by digest.
        question: what is asked.
        readers: how many there are.
        cases: what each is asked of.
    """

    study: str
    question: str
    readers: int
    cases: int


def about(key: Key) -> Pages:
    """Returns what readers may know of a study."""
    return Pages(key.study, key.question, len(key.readers), len(key.cases))


def check_same_study(directory: Path, key: Key) -> None:
    """Refuses to write over another study, whose answers may be on their way.

    Raises:
        DiffpathError: the directory holds one (exit code 4).
    """
    path = directory / MARKER
    if path.exists():
        there = read_sealed(path, Pages, what="pages", fix="name a new directory")
        if there.study != key.study:
            why, fix = f"it holds {there.study}, and this is {key.study}", "name a new directory"
            raise DiffpathError("output directory", where=directory, why=why, fix=fix, code=ExitCode.REFUSED)


def name_of(reader: int) -> str:
    """Returns the file name of a reader's page; readers count from 1."""
    return f"reader_{reader}.html"


def check_size(key: Key) -> None:
    """Refuses pages that are too large to open.

    Raises:
        DiffpathError: naming their size.
    """
    height, width = key.real.image_px
    size = len(key.cases) * QUESTIONS[key.question].shown * height * width * 4
    if size > MAX_BYTES:
        why = f"a page of them has {size / 2**20:,.0f} MiB, and browsers open {MAX_BYTES / 2**20:.0f}"
        raise DiffpathError("--images", where="the command line", why=why, fix="show fewer")


def write(path: Path, key: Key, real: ImageSet, generated: ImageSet, *, reader: int) -> None:
    """Writes the page of a reader."""
    question, (height, width) = QUESTIONS[key.question], key.real.image_px
    trials = key.readers[reader - 1]
    shown = [image for trial in trials for image in _images(key.cases[trial.case], trial, real, generated)]
    html.write_page(
        path,
        "reader.html",
        about={
            "study": key.study,
            "reader": reader,
            "trials": len(trials),
            "shown": question.shown,
            "width": width,
            "height": height,
            "choices": question.choices_among(key.classes),
            "columns": COLUMNS,
        },
        question=question,
        images=[base64.b64encode(image.tobytes()).decode() for image in shown],
    )


def _images(case: Case, trial: Trial, real: ImageSet, generated: ImageSet) -> Iterator[np.ndarray]:
    """Yields the images of a trial, (h, w, 3) uint8, from left to right."""
    images = [
        source.fetch([index])[0]
        for source, index in ((real, case.real), (generated, case.generated))
        if index is not None
    ]
    yield from reversed(images) if trial.swapped else images
