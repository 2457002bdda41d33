"""Answers of readers: files that pages handed out, checked against the key and put into the order of its cases."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydantic
from jaxtyping import Float, Int

from diffpath_jax.io.adapters import adapter
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import read_bytes
from diffpath_jax.reader.key import Key
from diffpath_jax.reader.page import COLUMNS
from diffpath_jax.reader.question import QUESTIONS

_FIX = "hand in the file as the page gave it"
# Spreadsheets of some countries write these for commas.
_SEPARATORS = (",", ";", "\t")


@dataclass(frozen=True)
class Line:
    """A line of a file of answers; readers, trials and answers count from 1."""

    study: str
    reader: int
    trial: int
    answer: int
    milliseconds: int
    changes: int


@dataclass(frozen=True)
class Answers:
    """What one reader answered.

    Attributes:
        reader: number of the reader, from 1.
        choices: answer to each case, from 0, and -1 without one; of a pair, 1 where the generated image was picked.
        seconds: time that each took; NaN without an answer.
    """

    reader: int
    choices: Int[np.ndarray, "n"]
    seconds: Float[np.ndarray, "n"]


def read_all(paths: Sequence[Path], key: Key) -> list[Answers]:
    """Returns the answers of every reader, by the reader's number.

    Raises:
        DiffpathError: a file is no answers to this study, or two are of one reader.
    """
    by_reader: dict[int, tuple[Path, Answers]] = {}
    for path in paths:
        answers = read(path, key)
        if answers.reader in by_reader:
            other, _ = by_reader[answers.reader]
            why, fix = f"reader {answers.reader} answers in {other} too", "hand in one file a reader"
            raise DiffpathError("answers", where=path, why=why, fix=fix)
        by_reader[answers.reader] = path, answers
    return [by_reader[number][1] for number in sorted(by_reader)]


def read(path: Path, key: Key) -> Answers:
    """Returns the answers in a file.

    Raises:
        DiffpathError: it is no such file, or of another study (exit code 4).
    """
    lines = list(_lines(path))
    if not lines:
        raise DiffpathError("answers", where=path, why="there are none", fix=_FIX)
    _check(path, lines, key)
    trials, question = key.readers[lines[0].reader - 1], QUESTIONS[key.question]
    choices, seconds = np.full(len(key.cases), -1), np.full(len(key.cases), np.nan)
    for line in lines:
        trial = trials[line.trial - 1]
        # The generated image of a pair is B unless they are swapped.
        is_flipped = question.shown == 2 and trial.swapped
        choices[trial.case] = 1 - (line.answer - 1) if is_flipped else line.answer - 1
        seconds[trial.case] = line.milliseconds / 1000
    return Answers(lines[0].reader, choices, seconds)


def _lines(path: Path) -> Iterator[Line]:
    """Yields the lines of a file.

    Raises:
        DiffpathError: one does not hold what it should.
    """
    try:
        text = read_bytes(path, what="answers", fix=_FIX).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DiffpathError("answers", where=path, why="not a text", fix=_FIX, code=ExitCode.DAMAGED) from error
    head = text.split("\n", 1)[0].strip()
    separator = next((each for each in _SEPARATORS if each.join(COLUMNS) == head), None)
    if separator is None:
        why = f"its first line is not {','.join(COLUMNS)}"
        raise DiffpathError("answers", where=path, why=why, fix=_FIX)
    for number, row in enumerate(csv.DictReader(io.StringIO(text), delimiter=separator), start=2):
        try:
            yield adapter(Line).validate_python(row)
        except pydantic.ValidationError as error:
            why = f"not an answer ({error.errors()[0]['msg'].lower()})"
            raise DiffpathError(f"line {number}", where=path, why=why, fix=_FIX, code=ExitCode.DAMAGED) from error


def _check(path: Path, lines: Sequence[Line], key: Key) -> None:
    """Refuses answers to something else.

    Raises:
        DiffpathError: naming what is wrong.
    """
    if other := {line.study for line in lines} - {key.study}:
        why, fix = f"they belong to {min(other)[:40]!r}, and the key to {key.study!r}", "name the key of their study"
        raise DiffpathError("answers", where=path, why=why, fix=fix, code=ExitCode.REFUSED)
    readers, choices = {line.reader for line in lines}, QUESTIONS[key.question].choices_among(key.classes)
    wrong = [
        *(f"{len(readers)} readers" for _ in [0] if len(readers) > 1),
        *(f"reader {each}" for each in sorted(readers) if not 1 <= each <= len(key.readers)),
        *(f"trial {line.trial}" for line in lines if not 1 <= line.trial <= len(key.cases)),
        *(f"answer {line.answer}" for line in lines if not 1 <= line.answer <= len(choices)),
        *(f"{line.milliseconds} milliseconds" for line in lines if line.milliseconds < 0),
        *(f"trial {trial} twice" for trial, count in Counter(line.trial for line in lines).items() if count > 1),
    ]
    if wrong:
        fix = "hand in one file a reader, as the page gave it"
        raise DiffpathError("answers", where=path, why=f"the study has no such thing: {wrong[0]}", fix=fix)
