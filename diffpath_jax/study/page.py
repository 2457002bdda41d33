"""The page of a study, and its tables as CSV and LaTeX."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffpath_jax.data import writer
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.files import write_json, write_text
from diffpath_jax.render import html
from diffpath_jax.study import table
from diffpath_jax.study.results import Results
from diffpath_jax.study.row import Row
from diffpath_jax.study.runner import Outcome
from diffpath_jax.study.step import Step
from diffpath_jax.study.steps import StudySteps
from diffpath_jax.study.table import Section, Table, Verdict

PAGE, TABLES, NUMBERS = "study.html", "tables", "study.json"


@dataclass(frozen=True)
class ShownRow:
    """A row of the study on its page.

    Attributes:
        row: the row.
        section: its tables and figures.
        missing: why it has none; empty where it has.
    """

    row: Row
    section: Section
    missing: str = ""


@dataclass(frozen=True)
class ShownStep:
    """A step on the page.

    Attributes:
        name: its name.
        command: its command line.
        state: done, failed or not reached.
        digest: digest of what it left.
        seconds: how long it took, the last time that it was run.
    """

    name: str
    command: str
    state: str
    digest: str
    seconds: float | None


def show(rows: Sequence[Row], study: StudySteps, results: Results, outcome: Outcome) -> list[ShownRow]:
    """Returns what each row shows; a row whose results are missing says so, and the others are there."""
    return [_shown(row, study, results, outcome) for row in rows]


def _shown(row: Row, study: StudySteps, results: Results, outcome: Outcome) -> ShownRow:
    lacking = [step.name for step in row.steps(study) if step.name not in outcome.done]
    if lacking:
        return ShownRow(row, Section(), f"not done: {', '.join(lacking)}")
    try:
        return ShownRow(row, row.show(study, results))
    except DiffpathError as error:
        return ShownRow(row, Section(), str(error))


def write(
    study: StudySteps,
    rows: Sequence[ShownRow],
    verdicts: Sequence[Verdict],
    steps: Sequence[Step],
    outcome: Outcome,
) -> Path:
    """Writes the page, every table as CSV and LaTeX, and all numbers with their sources as JSON.

    Returns:
        The page.
    """
    for each in _tables(rows):
        write_text(study.workdir / TABLES / f"{each.key}.csv", table.as_csv(each))
        write_text(study.workdir / TABLES / f"{each.key}.tex", table.as_latex(each))
    write_json(study.workdir / NUMBERS, _numbers(rows, verdicts))
    path = study.workdir / PAGE
    html.write_page(
        path,
        "study.html",
        config=study.config,
        verdicts=verdicts,
        rows=rows,
        steps=list(_shown_steps(study, steps, outcome)),
        versions=writer.versions("jax", "flax", "numpy", "scipy"),
    )
    return path


def _tables(rows: Sequence[ShownRow]) -> Iterator[Table]:
    for row in rows:
        yield from row.section.tables


def _numbers(rows: Sequence[ShownRow], verdicts: Sequence[Verdict]) -> Mapping[str, object]:
    """Returns every number of the page with the place where it stands."""
    return {
        "verdicts": {verdict.question: f"{verdict.answer}. {verdict.sentence}" for verdict in verdicts},
        "tables": {
            each.key: [
                {
                    "row": row,
                    "column": column,
                    "value": cell.value,
                    "low": cell.low,
                    "high": cell.high,
                    "n": cell.n,
                    "patients": cell.patients,
                    "source": cell.source,
                }
                for row, column, cell in each.cells
            ]
            for each in _tables(rows)
        },
        "missing": {each.row.key: each.missing for each in rows if each.missing},
    }


def _shown_steps(study: StudySteps, steps: Sequence[Step], outcome: Outcome) -> Iterator[ShownStep]:
    place = f"{study.workdir}/"
    for step in steps:
        record = outcome.done.get(step.name)
        state = "done" if record else "failed" if step.name in outcome.failed else "not reached"
        words = " ".join(step.command).replace(place, "")
        command = f"diffpath {words}" if words else "there already"
        yield ShownStep(
            step.name, command, state, record.digest[:12] if record else "", record.seconds if record else None
        )


def lines(verdicts: Sequence[Verdict], outcome: Outcome) -> Iterator[str]:
    """Yields the study in a few lines: its answers, and what is not done."""
    for verdict in verdicts:
        yield f"{verdict.question}: {verdict.answer}. {verdict.sentence}"
    for name, code in outcome.failed.items():
        yield f"failed: {name} (exit code {code})"
    if outcome.skipped:
        yield f"not reached: {len(outcome.skipped)} steps"
