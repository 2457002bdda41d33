"""Content of a row of a study: tables whose every number says where it stands, figures, and a sentence."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from diffpath_jax.io.csv_text import csv_text


@dataclass(frozen=True)
class Cell:
    """A number of a table.

    Attributes:
        value: the number.
        low: lower end of its 95 % interval; none without one.
        high: upper end.
        n: images that it is of; none where that is not said.
        patients: patients that it is of; none where they are not known.
        source: file and JSON pointer (RFC 6901) below the study's directory, or where it was published.
        digits: decimal places that are shown; more for a small number, so that two of its digits are.
        percent: whether it is a share, shown in per cent.
        signed: whether its sign is always shown, as that of a difference.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    patients: int | None = None
    source: str = ""
    digits: int = 2
    percent: bool = False
    signed: bool = False

    @property
    def text(self) -> str:
        """The number as it is shown."""
        return self._shown(self.value)

    @property
    def interval(self) -> str:
        """Its interval in brackets; empty without one."""
        return "" if self.low is None or self.high is None else f"[{self._shown(self.low)}, {self._shown(self.high)}]"

    def _shown(self, number: float) -> str:
        sign = "+" if self.signed else ""
        return f"{100 * number if self.percent else number:{sign}.{self._decimals}f}"

    @property
    def _decimals(self) -> int:
        """Decimal places of the number and of its interval alike; those of shares and of differences are fixed."""
        if self.percent or self.signed or self.value == 0 or not math.isfinite(self.value):
            return self.digits
        return max(self.digits, 1 - math.floor(math.log10(abs(self.value))))


# A cell is a number, words, or nothing that was measured.
Entry = Cell | str | None


@dataclass(frozen=True)
class TableRow:
    """A row of a table.

    Attributes:
        name: its first column.
        entries: the others.
        floor: whether it is of real images, which the others are read beside.
    """

    name: str
    entries: tuple[Entry, ...]
    floor: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        key: unique name, as that of its files.
        title: what it shows.
        columns: names of the columns after the first.
        rows: its rows.
        first: name of the first column.
        notes: what a reader must know of its numbers.
    """

    key: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    first: str = ""
    notes: tuple[str, ...] = ()

    @property
    def cells(self) -> Iterator[tuple[str, str, Cell]]:
        """Every number, with the names of its row and its column."""
        for row in self.rows:
            for column, entry in zip(self.columns, row.entries, strict=True):
                if isinstance(entry, Cell):
                    yield row.name, column, entry


@dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes:
        title: what it shows, in a line; also what is read aloud.
        png: the picture as a PNG file.
        pixels: whether its pixels are to stay visible when it is enlarged.
    """

    title: str
    png: bytes
    pixels: bool = False


@dataclass(frozen=True)
class Section:
    """Content of a row of the study.

    Attributes:
        tables: its tables.
        figures: its figures.
        notes: what a reader must know of it.
    """

    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """An answer to one question.

    Attributes:
        question: the question, in a word or two.
        answer: the answer in a few words.
        sentence: what it rests on.
        good: whether it speaks for the images; none where it is open.
    """

    question: str
    answer: str
    sentence: str
    good: bool | None


CSV_COLUMNS = ("row", "column", "value", "low", "high", "n", "patients", "source")


def as_csv(table: Table) -> str:
    """Returns a table as CSV, one number a line with its interval and its source."""
    numbers = (
        {"row": row, "column": column, **{key: value for key, value in asdict(cell).items() if key in CSV_COLUMNS}}
        for row, column, cell in table.cells
    )
    return csv_text(CSV_COLUMNS, numbers)


_LATEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"}
_LATEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}


def escape_latex(text: str) -> str:
    """Returns words that LaTeX prints as they are."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def as_latex(table: Table) -> str:
    """Returns a table as a LaTeX ``table`` of the package booktabs."""
    head = " & ".join(escape_latex(name) for name in (table.first, *table.columns))
    rows = [" & ".join((escape_latex(row.name), *map(_latex_entry, row.entries))) for row in table.rows]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{escape_latex(table.title)}}}",
            rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
            r"\toprule",
            rf"{head} \\",
            r"\midrule",
            *(rf"{row} \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex_entry(entry: Entry) -> str:
    if entry is None:
        return "--"
    if isinstance(entry, str):
        return escape_latex(entry)
    return f"${entry.text}$" + (rf" {{\small ${entry.interval}$}}" if entry.interval else "")
