"""Tables of a study: what a reader sees, as CSV and LaTeX; the paper's numbers."""

import csv
import io

import pytest

from diffpath_jax.study import paper, table
from diffpath_jax.study.table import Cell, Table, TableRow

SHOWN = Table(
    "T",
    "A & B",
    ("accuracy, %", "gain"),
    (
        TableRow("real_1", (Cell(0.8995, 0.88, 0.91, 1500, 20, "a/comparison.json#/arms/0", percent=True), None)),
        TableRow("both", (Cell(0.9075, percent=True, digits=1), Cell(0.008, -0.01, 0.02, percent=True, signed=True))),
    ),
    first="trained on",
)


def test_numbers_are_shown_with_their_intervals() -> None:
    first, gain = SHOWN.rows[0].entries[0], SHOWN.rows[1].entries[1]
    assert isinstance(first, Cell) and isinstance(gain, Cell)
    assert (first.text, first.interval) == ("89.95", "[88.00, 91.00]")
    small, none = Cell(0.00123, 0.0011, 0.0026), Cell(0.0)
    assert (small.text, small.interval, none.text) == ("0.0012", "[0.0011, 0.0026]", "0.00")
    assert (gain.text, gain.interval) == ("+0.80", "[-1.00, +2.00]")


def test_csv_holds_every_number_unrounded() -> None:
    rows = list(csv.DictReader(io.StringIO(table.as_csv(SHOWN))))
    assert [(row["row"], row["column"], float(row["value"])) for row in rows] == [
        ("real_1", "accuracy, %", 0.8995),
        ("both", "accuracy, %", 0.9075),
        ("both", "gain", 0.008),
    ]
    assert rows[0]["source"] == "a/comparison.json#/arms/0" and rows[0]["patients"] == "20"


def test_latex_escapes_words_and_keeps_the_shape() -> None:
    text = table.as_latex(SHOWN)
    assert r"\caption{A \& B}" in text and r"real\_1 & $89.95$ {\small $[88.00, 91.00]$} & --" in text
    assert all(line.count(" & ") == 2 for line in text.splitlines() if line.endswith(r"\\"))


@pytest.mark.parametrize(
    ("words", "number"),
    [
        (("PKGH_224", "DDPM", "DDPM"), (19.08, 0.0134)),
        (("PKGH_336", "LDM", "DDIM"), (26.41, 0.0199)),
        (("PKGH_336", "DDPM", "Epsilon Scaling"), (45.12, 0.0418)),
    ],
)
def test_the_papers_numbers(words: tuple[str, str, str], number: tuple[float, float]) -> None:
    fid, kid = paper.fid(*words), paper.kid(*words)
    assert fid and kid and (fid.value, kid.value) == number


def test_what_the_paper_does_not_have() -> None:
    assert paper.fid("PKGH_224", "LDM", "Epsilon Scaling") is None and paper.accuracy("other", "real") is None
