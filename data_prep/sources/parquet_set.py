"""Parquet image sets of the Hugging Face kind, as sources.

Files hold a column of images (a struct of ``bytes``, those of an image file, and ``path``, its name) and a column of
classes: text, or numbers whose names stand in the schema's metadata under ``huggingface``. A file's split is the
beginning of its name (``train-00000-of-00002.parquet``) or the name of its folder.
"""

import bisect
import contextlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.sources.stored_images import STORED, StoredFile, StoredKind
from data_prep.splits.splits import ALIASES
from diffpath_jax.io.errors import DiffpathError, ExitCode

SUFFIX = ".parquet"
PATIENT = "patient"
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}")
_FIX = "give a set with a column of images, and a column of classes called label"


@dataclass(frozen=True)
class _Columns:
    """The columns of a file: image, class, names of classes (none where the column is text), patient."""

    image: str
    label: str
    names: tuple[str, ...] | None
    has_patients: bool


def is_own(path: Path) -> bool:
    """Returns whether a path is a Parquet file, or a folder that holds some and no other images."""
    return path.suffix == SUFFIX or (path.is_dir() and bool(_files(path)))


def list_files(path: Path) -> Iterator[StoredFile]:
    """Yields what each file says.

    Raises:
        DiffpathError: one is damaged (exit code 5), or has no images or no classes.
    """
    for file in _files(path) if path.is_dir() else [path]:
        with _opened(file) as parquet:
            columns = _columns(file, parquet.schema_arrow)
            wanted = [f"{columns.image}.path", columns.label, *([PATIENT] if columns.has_patients else [])]
            table = parquet.read(columns=wanted)
        paths = table[columns.image].combine_chunks().field("path").to_pylist()
        split = _split(file)
        names = tuple(name or f"{split or file.stem}[{row}]" for row, name in enumerate(paths))
        classes = columns.names or tuple(sorted({str(label) for label in table[columns.label].to_pylist()}))
        patients = tuple(each or "" for each in table[PATIENT].to_pylist()) if columns.has_patients else None
        yield StoredFile(file, split, names, classes, patients if patients and all(patients) else None)


def read_rows(file: Path, rows: Sequence[int]) -> Iterator[tuple[str, bytes]]:
    """Yields class and bytes of some images, a row group at a time."""
    with _opened(file) as parquet:
        columns = _columns(file, parquet.schema_arrow)
        metadata = parquet.metadata
        sizes = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        starts = [0, *itertools.accumulate(sizes)]
        for group, own in itertools.groupby(rows, key=lambda row: bisect.bisect_right(starts, row) - 1):
            table = parquet.read_row_group(group, columns=[columns.image, columns.label])
            images, labels = table[columns.image].combine_chunks().field("bytes"), table[columns.label]
            for row in own:
                content, label = images[row - starts[group]].as_py(), labels[row - starts[group]].as_py()
                if content is None:
                    fix = "save the set with its images inside"
                    raise DiffpathError("image", where=file, why=f"row {row} names a file, and holds none", fix=fix)
                yield _name(columns, label), content


def _name(columns: _Columns, label: Any) -> str:
    """Returns the name of a class; empty for an image that has none, as -1 says."""
    if columns.names is None:
        return str(label)
    return columns.names[label] if label is not None and 0 <= label < len(columns.names) else ""


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob(f"*{SUFFIX}")) if not path.name.startswith(".")]


def _split(file: Path) -> str | None:
    match = _SHARD.fullmatch(file.stem)
    split = match[1] if match else file.parent.name if file.parent.name in ALIASES else file.stem
    return split if match or split in ALIASES else None


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file; what pyarrow raises over it is one line."""
    try:
        parquet = pq.ParquetFile(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(file, error) from error
    with parquet:
        try:
            yield parquet
        except (pa.ArrowException, OSError) as error:
            raise _damaged(file, error) from error


def _damaged(file: Path, error: BaseException) -> DiffpathError:
    why = f"cannot be read as Parquet ({' '.join(str(error).split())[:120]})"
    return DiffpathError("images", where=file, why=why, fix="copy it again", code=ExitCode.DAMAGED)


def _columns(file: Path, schema: pa.Schema) -> _Columns:
    """Returns the columns that hold images and classes.

    Raises:
        DiffpathError: there is not one of each.
    """
    features = _features(schema)
    images = [field.name for field in schema if _is_image(field.type)]
    labels = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"] or (
        ["label"] if "label" in schema.names else []
    )
    if len(images) != 1 or len(labels) != 1:
        why = f"its columns {schema.names[:20]} are not one of images with one of classes"
        raise DiffpathError("images", where=file, why=why, fix=_FIX)
    named = features.get(labels[0], {}).get("names")
    kind = schema.field(labels[0]).type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    # Numbers without names are their own.
    names = tuple(map(str, named)) if named and not is_text else None
    has_patients = PATIENT in schema.names and pa.types.is_string(schema.field(PATIENT).type)
    return _Columns(images[0], labels[0], names, has_patients)


def _is_image(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return False
    content = {field.name: field.type for field in kind}
    return "path" in content and content.get("bytes") in (pa.binary(), pa.large_binary())


def _features(schema: pa.Schema) -> Mapping[str, Any]:
    """Returns what the schema's metadata says of its columns; nothing where it says none."""
    try:
        content = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = content.get("info", {}).get("features", {})
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, AttributeError, RecursionError):
        return {}


STORED.register(StoredKind("parquet", is_own, list_files, read_rows))
