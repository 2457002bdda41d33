"""XML without its dangers: no entities, no document type, nothing fetched, nothing kept that was read."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path

import defusedxml
import defusedxml.ElementTree
import numpy as np

from data_prep.annotations.outlines import Ring
from diffpath_jax.io.errors import DiffpathError

_FIX = "export the annotations again"


def root_tag(path: Path) -> str:
    """Name of the outermost element.

    Raises:
        DiffpathError: the file is no XML, or a dangerous one.
    """
    return next(_events(path, "start")).tag


def elements(path: Path) -> Iterator[ElementTree.Element]:
    """Every element of a file as it ends, the inner before the outer; clear what is used up.

    Raises:
        DiffpathError: the file is no XML, or a dangerous one.
    """
    return _events(path, "end")


def first_tag(path: Path, tags: Sequence[str]) -> str | None:
    """Returns which of some elements comes first in a file; None if there is none of them.

    Raises:
        DiffpathError: the file is no XML, or a dangerous one.
    """
    return next((element.tag for element in _events(path, "start") if element.tag in tags), None)


def _events(path: Path, event: str) -> Iterator[ElementTree.Element]:
    try:
        for _, element in defusedxml.ElementTree.iterparse(path, events=(event,), forbid_dtd=True):
            yield element
    except defusedxml.DefusedXmlException as error:
        why = f"it declares entities or a document type ({type(error).__name__}), which annotations have no use for"
        raise DiffpathError("annotations", where=path, why=why, fix="do not trust this file; get it anew") from None
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise DiffpathError("annotations", where=path, why=f"cannot be read as XML ({error})", fix=_FIX) from error


def point(path: Path, element: ElementTree.Element) -> tuple[float, float]:
    """Attributes X and Y of an element.

    Raises:
        DiffpathError: one is missing or no number.
    """
    try:
        return float(element.attrib["X"]), float(element.attrib["Y"])
    except (KeyError, ValueError):
        why = f"X and Y of a {element.tag} are not numbers"
        raise DiffpathError("annotations", where=path, why=why, fix=_FIX) from None


def ring(points: list[tuple[float, float]]) -> Ring:
    """Points as an array."""
    return np.array(points, float).reshape(-1, 2)
