"""Hamamatsu's NDPA: ``annotations/ndpviewstate[title]/annotation[@type]/pointlist/point[x, y]``.

The class is the title. Points are nanometres from the centre of the glass; the slide says where that is.
"""

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from data_prep.annotations import outlines, safe_xml
from data_prep.annotations.registry import FORMATS, AnnotationFormat, FileStart
from diffpath_jax.io.errors import DiffpathError

ROOT, UNIT = "annotations", "nanometers"
# Pins, pointers and rulers are no areas; nor is a freehand line that is not closed.
_FREEHAND, _CIRCLE = "freehand", "circle"
_FIX = "export the annotations from NDP.view again"


def read(path: Path) -> Iterator[outlines.Outline]:
    """Yields the outlines of a file, in its order, in um from the centre of the glass.

    Raises:
        DiffpathError: the file cannot be read as NDPA.
    """
    for element in safe_xml.elements(path):
        if element.tag == "ndpviewstate":
            name = (element.findtext("title") or "").strip() or None
            unit = (element.findtext("coordformat") or UNIT).strip()
            if unit != UNIT:
                raise DiffpathError("annotations", where=path, why=f"its points are in {unit[:40]}", fix=_FIX)
            for drawn in element.iterfind("annotation"):
                yield _outline(path, name, drawn)
            element.clear()


def _outline(path: Path, name: str | None, drawn: Element) -> outlines.Outline:
    kind = drawn.get("type")
    if kind == _CIRCLE:
        (x, y), radius = _place(path, drawn), _um(path, drawn, "radius")
        box = np.array([(x - radius, y - radius), (x + radius, y + radius)])
        return outlines.Outline(name, outlines.shaped(outlines.ellipse, box))
    if kind != _FREEHAND or drawn.findtext("closed", "1").strip() == "0":
        return outlines.left_out(outlines.NO_AREA)
    points = [_place(path, point) for point in drawn.iterfind("pointlist/point")]
    return outlines.Outline(name, outlines.shaped(outlines.freehand, safe_xml.ring(points)))


def _place(path: Path, element: Element) -> tuple[float, float]:
    return _um(path, element, "x"), _um(path, element, "y")


def _um(path: Path, element: Element, child: str) -> float:
    """Returns a length that is stated in nm.

    Raises:
        DiffpathError: it is missing or no number.
    """
    try:
        return float(element.findtext(child, "")) / 1000
    except ValueError:
        why = f"{child} of a {element.tag} is no number"
        raise DiffpathError("annotations", where=path, why=why, fix=_FIX) from None


def is_own(start: FileStart) -> bool:
    """Returns whether a file has NDPA's root."""
    return start.root == ROOT


FORMATS.register(AnnotationFormat("Hamamatsu NDPA", (".ndpa",), is_own, read, "centre"))
