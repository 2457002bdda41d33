"""The user's own tables (CSV): read strictly, as whose a slide is hangs on them."""

import csv
from collections.abc import Sequence
from pathlib import Path

from diffpath_jax.io.errors import DiffpathError


def read_rows(path: Path, *, columns: Sequence[str], optional: Sequence[str] = ()) -> list[dict[str, str]]:
    """Read some columns of a CSV, without the spaces around their values; other columns are passed over.

    Args:
        path: the file.
        columns: what must be there.
        optional: what may be there; a column that is, must be filled in every row.

    Raises:
        DiffpathError: no such file, a column is missing or stands twice, or a row does not fill them.
    """
    fix = f"give a UTF-8 CSV whose first line names the columns {','.join(columns)}"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = [name.strip() for name in reader.fieldnames or ()]
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
        found = {name: (row[name] or "").strip() for name in wanted}
        if empty := [name for name, value in found.items() if not value]:
            raise DiffpathError("table", where=path, why=f"row {number} lacks {' and '.join(empty)}", fix=fix)
        if None in row:
            fix = "put values that hold a comma between double quotes"
            raise DiffpathError("table", where=path, why=f"row {number} has more values than columns", fix=fix)
        table.append(found)
    return table


def read_table(path: Path, *, columns: tuple[str, str]) -> dict[str, str]:
    """Read two columns of a CSV as a mapping from the first to the second.

    Raises:
        DiffpathError: as :func:`read_rows`, or a key has two different values.
    """
    key, value = columns
    table: dict[str, str] = {}
    for row in read_rows(path, columns=columns):
        if table.setdefault(row[key], row[value]) != row[value]:
            why = f"{row[key]} stands twice with other values"
            raise DiffpathError("table", where=path, why=why, fix=f"give each {key} one {value}")
    return table
