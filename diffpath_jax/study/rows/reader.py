"""The row on human readers: can pathologists tell the images from real ones? It needs people, who hand in answers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from diffpath_jax.reader.record import READER
from diffpath_jax.study.results import Results
from diffpath_jax.study.row import NEW, Row
from diffpath_jax.study.rows import sets
from diffpath_jax.study.step import Step
from diffpath_jax.study.steps import StudySteps
from diffpath_jax.study.table import Cell, Section, Table, TableRow

NOBODY = "no reader took part"


def pages(study: StudySteps) -> Step:
    """Returns the making of the readers' pages, of the set that is measured wherever one is enough."""
    each, config = sets.first_set(study), study.config.reader
    data = study.dataset(each.dataset)
    words = ["reader", "make", "--real", str(data.out), "--generated", str(each.samples.out)]
    words += ["--question", config.question, "--images", str(config.images), "--readers", str(config.readers)]
    words += ["--seed", str(study.config.seed)]
    return study.command(f"{each.dataset}/reader/pages", words, [data, each.samples])


def scores(study: StudySteps) -> Step:
    """Returns the scoring of the answers that are there."""
    made, answers = pages(study), study.config.reader.answers.split(",")
    # Files that people handed in: another content is another step.
    files = [Step(f"answers {number}", (), Path(path)) for number, path in enumerate(answers, start=1)]
    words = ["reader", "score", str(made.out), *answers, "--seed", str(study.config.seed)]
    return study.command(made.name.replace("pages", "scores"), words, [made, *files])


def _steps(study: StudySteps) -> Sequence[Step]:
    config = study.config.reader
    if not config.readers:
        return []
    return [scores(study)] if config.answers else [pages(study)]


def _show(study: StudySteps, results: Results) -> Section:
    config = study.config.reader
    if not config.readers:
        return Section(notes=(f"{NOBODY}.",))
    if not config.answers:
        return Section(notes=(f"{NOBODY} yet: their pages are in {pages(study).name}.",))
    content = results.json(scores(study), READER)
    columns = ("all readers", *(f"reader {name}" for name in content["seconds"]))
    rows = tuple(_rows(study, results, content))
    readers, (scored, shown) = len(content["seconds"]), content["cases"]
    title = f"{readers} readers, {scored} of {shown} cases"
    return Section((Table("H_reader", title, columns, rows, "score", tuple(content.get("warnings", ()))),))


def _rows(study: StudySteps, results: Results, content: dict[str, Any]) -> Iterator[TableRow]:
    """Yields every score, then the median time of an answer."""
    step = scores(study)
    for number, score in enumerate(content["scores"]):
        numbers = [("mean", score["mean"]), *((("readers", name), own) for name, own in score["readers"].items())]
        cells = []
        for place, own in numbers:
            pointer = (place,) if isinstance(place, str) else place
            source = results.source(step, READER, "scores", number, *pointer, "value")
            ends = own.get("low"), own.get("high")
            cells.append(Cell(own["value"], *ends, content["cases"][0], source=source, digits=3))
        yield TableRow(score["title"], tuple(cells))
    medians = [
        Cell(own["median"], source=results.source(step, READER, "seconds", name, "median"), digits=1)
        for name, own in content["seconds"].items()
    ]
    yield TableRow("seconds an answer, median", (None, *medians))


ROWS = (Row("H", "Human readers", NEW, _steps, _show),)
