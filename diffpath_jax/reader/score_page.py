"""Scores of readers as lines of text, as a CSV file, and as one page."""

import json
from collections.abc import Iterator
from pathlib import Path

from diffpath_jax.evaluation.record import Number, as_json
from diffpath_jax.io.csv_text import csv_text
from diffpath_jax.io.files import write_text
from diffpath_jax.reader.question import QUESTIONS
from diffpath_jax.reader.record import ReaderRecord, ScoreRecord
from diffpath_jax.render import html

TABLE, PAGE = "reader.csv", "index.html"
COLUMNS = ("score", "reader", "value", "low", "high")
ALL = "mean"


def _rows(record: ReaderRecord) -> Iterator[tuple[ScoreRecord, str, Number]]:
    """Yields (score, reader, number): the mean over readers, then each of them."""
    for score in record.scores:
        for name, number in ((ALL, score.mean), *score.readers.items()):
            yield score, name, number


def write_csv(path: Path, record: ReaderRecord) -> None:
    """Writes every score with its interval, one a line."""
    lines = ((score.title, name, number.value, number.low, number.high) for score, name, number in _rows(record))
    write_text(path, csv_text(COLUMNS, (dict(zip(COLUMNS, line, strict=True)) for line in lines)))


def lines(record: ReaderRecord) -> Iterator[str]:
    """Yields the result in a few lines."""
    for score, name, number in _rows(record):
        chance = "" if score.chance is None else f" (chance {score.chance:g})"
        yield f"{score.title}, {'all readers' if name == ALL else f'reader {name}'}: {_words(number)}{chance}"
    fleiss = record.agreement.fleiss
    if fleiss is not None:
        yield f"agreement beyond chance (Fleiss' kappa): {fleiss:.2f}"
    for name, seconds in record.seconds.items():
        yield f"reader {name}: {seconds.median:.1f} s an answer"
    yield from (f"warning: {warning}" for warning in record.warnings)


def _words(number: Number) -> str:
    ends = "" if number.low is None or number.high is None else f" [{number.low:.3f}, {number.high:.3f}]"
    return f"{number.value:.3f}{ends}"


def write_page(path: Path, record: ReaderRecord) -> None:
    """Writes the page."""
    content = as_json(record)
    html.write_page(
        path,
        "reader_scores.html",
        record=record,
        question=QUESTIONS[record.question],
        words=_words,
        figures=[(score.title, _figure(score)) for score in record.scores],
        settings=[(title, json.dumps(content[title], indent=2)) for title in ("real", "generated", "settings")],
    )


def _figure(score: ScoreRecord) -> bytes:
    """Returns a score with its intervals: the mean over readers, and each of them."""
    numbers = {ALL: score.mean, **{f"reader {name}": own for name, own in score.readers.items()}}
    figure = html.new_figure(4.6, 0.9 + 0.32 * len(numbers))
    axes = figure.subplots()
    for place, (name, number) in enumerate(numbers.items()):
        colour = html.COLOURS[4] if name == ALL else html.COLOURS[0]
        axes.plot(number.value, place, "o", color=colour)
        if number.low is not None and number.high is not None:
            axes.plot([number.low, number.high], [place, place], color=colour)
    if score.chance is not None:
        axes.axvline(score.chance, color="#9a95a5", linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(numbers)), list(numbers))
    axes.set(ylim=(len(numbers) - 0.5, -0.5), xlim=(score.lower - 0.05, 1.05))
    html.tidy(axes, score.title, x="")
    return html.png_of(figure)
