"""The formats of annotation files.

A format is one module: a function that reads its files, and a line that registers it with the way in which they are
known. Modules of this folder are found by themselves; another package registers its own when it is imported, or names
a module that does as an entry point of the group ``diffpath.annotation_formats``.
"""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from data_prep.annotations import safe_xml
from data_prep.annotations.outlines import Outline
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.registry import Registry

# What a file that is packed by gzip begins with.
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class FileStart:
    """The start of a file, by which its format is known.

    Attributes:
        path: the file.
        text: its first bytes, without byte order marks and spaces.
        root: the outermost element of XML; empty for other files.
    """

    path: Path
    text: bytes
    root: str


@runtime_checkable
class IsOwn(Protocol):
    """Tells the files of a format."""

    def __call__(self, start: FileStart) -> bool:
        """Returns whether a file is in the format."""


@runtime_checkable
class ReadOutlines(Protocol):
    """Reads the files of a format."""

    def __call__(self, path: Path) -> Iterator[Outline]:
        """Yields the outlines of a file, in its order.

        Raises:
            DiffpathError: the file is damaged.
        """


@dataclass(frozen=True)
class AnnotationFormat:
    """A format of annotation files.

    Attributes:
        name: as the help and errors name it.
        suffixes: of its files, in lower case, the usual one first.
        is_own: tells its files.
        read: reads them.
        origin: what pixels are counted from on a slide that states bounds: their corner, that of the glass as OpenSlide
            has it, or what the file does not say. ``centre``: places are um from the centre of the glass instead.
    """

    name: str
    suffixes: tuple[str, ...]
    is_own: IsOwn
    read: ReadOutlines
    origin: Literal["bounds", "glass", "unknown", "centre"]


FORMATS: Registry[AnnotationFormat] = Registry(
    "annotation format", package="data_prep.annotations", entry_points="diffpath.annotation_formats"
)


def suffixes() -> tuple[str, ...]:
    """Returns the suffixes of the files of all formats."""
    return tuple(dict.fromkeys(suffix for form in FORMATS.values() for suffix in form.suffixes))


def names() -> str:
    """Returns the names of all formats, for a sentence."""
    *others, last = (form.name for form in FORMATS.values())
    return f"{', '.join(others)} or {last}"


def format_of(path: Path) -> AnnotationFormat:
    """Returns the format of a file, told from its first bytes and its outermost element.

    Raises:
        DiffpathError: it cannot be read, or is in no known format.
    """
    start = _start(path)
    form = next((form for form in FORMATS.values() if form.is_own(start)), None)
    if form:
        return form
    why = f"XML of {start.root[:80]}, which none of the known programs writes" if start.root else _no_text(start)
    raise DiffpathError("annotations", where=path, why=why, fix=f"export them as {names()}")


def open_plain(path: Path) -> io.BufferedIOBase:
    """Returns a file to read, unpacked where it is packed by gzip."""
    file = path.open("rb")
    if file.read(len(_GZIP)) == _GZIP:
        file.close()
        return gzip.open(path)
    file.seek(0)
    return file


def _no_text(start: FileStart) -> str:
    return "neither GeoJSON nor XML" if start.text else "the file is empty"


def _start(path: Path) -> FileStart:
    try:
        with open_plain(path) as file:
            head = file.read(4096)
    except (OSError, EOFError, zlib.error) as error:
        why = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise DiffpathError("annotations", where=path, why=why, fix="check the path given to --annotations") from error
    # XML may be UTF-16, where every other byte of its first words is 0.
    text = head.removeprefix(codecs.BOM_UTF8).removeprefix(codecs.BOM_UTF16_LE).removeprefix(codecs.BOM_UTF16_BE)
    text = text.lstrip(b" \t\r\n\0")
    return FileStart(path, text, safe_xml.root_tag(path) if text[:1] == b"<" else "")
