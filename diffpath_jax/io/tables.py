"""The user's own tables (CSV): read strictly, as whose a slide is hangs on them."""

import codecs
import csv
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path

from diffpath_jax.io.errors import DiffpathError


def read_rows(
    path: Path, *, columns: Sequence[str], optional: Sequence[str] = (), may_be_empty: Collection[str] = ()
) -> list[dict[str, str]]:
    """Read some columns of a CSV, without the spaces around their values; other columns are passed over.

    Values may be parted by commas, semicolons or tabs, as spreadsheets write them in different countries.

    Args:
        path: the file.
        columns: what must be there.
        optional: what may be there; a column that is, must be filled in every row.
        may_be_empty: columns of which not all rows know something.

    Raises:
        DiffpathError: no such file, a column is missing or stands twice, or a row does not fill them.
    """
    fix = f"give a CSV in UTF-8 or UTF-16 whose first line names the columns {','.join(columns)}"
    try:
        lines = _text(path).splitlines(keepends=True)
        reader = csv.DictReader(lines, delimiter=_delimiter(lines[0] if lines else ""))
        names = [composed(name.strip()) for name in reader.fieldnames or ()]
        reader.fieldnames = names
        rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DiffpathError("table", where=path, why=f"cannot be read ({error})", fix=fix) from error
    wanted = [*columns, *(name for name in optional if name in names)]
    if bad := [name for name in wanted if names.count(name) != 1]:
        why = f"its columns are {names[:20]}, and {bad[0]!r} must be one of them, once"
        raise DiffpathError("table", where=path, why=why, fix=fix)
    table = []
    for number, row in enumerate(rows, start=2):
        values = {name: composed((row[name] or "").strip()) for name in wanted}
        if empty := [name for name, value in values.items() if not value and name not in may_be_empty]:
            raise DiffpathError("table", where=path, why=f"row {number} lacks {' and '.join(empty)}", fix=fix)
        if None in row:
            fix = "put values that hold a comma between double quotes"
            raise DiffpathError("table", where=path, why=f"row {number} has more values than columns", fix=fix)
        table.append(values)
    return table


def header(path: Path) -> tuple[str, ...]:
    """Returns the columns of a CSV; none where it cannot be read, of which :func:`read_rows` says why."""
    try:
        first, *_ = _text(path).splitlines() or [""]
    except (OSError, UnicodeDecodeError):
        return ()
    return tuple(composed(name.strip().strip('"')) for name in first.split(_delimiter(first)))


def composed(text: str) -> str:
    """Returns text with each letter as one character: file systems and spreadsheets disagree on it."""
    return unicodedata.normalize("NFC", text)


def _text(path: Path) -> str:
    content = path.read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_utf16 else "utf-8-sig")


def _delimiter(header: str) -> str:
    """Returns what parts the columns of a header: the one of comma, semicolon and tab that it has most of."""
    return max(",;\t", key=header.count)
