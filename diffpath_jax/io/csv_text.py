"""Tables for spreadsheets: the one writer of CSV."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Spreadsheets run a cell that begins so. Numbers are no texts here, and may be negative.
_FORMULA = re.compile(r"[=+\-@\t]")


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns a table; a text that a spreadsheet would run as a formula begins with an apostrophe.

    Args:
        columns: its head.
        rows: a value for each column, or none.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows({name: _harmless(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _harmless(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    line = " ".join(value.splitlines())
    return f"'{line}" if _FORMULA.match(line) else line
