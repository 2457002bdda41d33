"""ASAP's XML: ``Annotations/Annotation[@Type, @PartOfGroup]/Coordinates/Coordinate[@Order, @X, @Y]``.

The class is the group. Points are level-0 pixels as OpenSlide counts them, outside a slide's bounds too.
"""

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from data_prep.annotations import outlines, safe_xml
from data_prep.annotations.registry import FORMATS, AnnotationFormat, FileStart
from diffpath_jax.io.errors import DiffpathError

ROOT = "ASAP_Annotations"
# A spline is taken as the polygon through its points. Dots, point sets and measurements are no areas.
_POLYGONS = frozenset({"Polygon", "Spline"})
_RECTANGLE = "Rectangle"
_NO_GROUP = "None"


def read(path: Path) -> Iterator[outlines.Outline]:
    """Outlines of a file, in its order.

    Raises:
        DiffpathError: the file cannot be read as ASAP's XML.
    """
    points: list[tuple[int, float, float]] = []
    for element in safe_xml.elements(path):
        if element.tag == "Coordinate":
            points.append((_order(path, element), *safe_xml.point(path, element)))
            element.clear()
        elif element.tag == "Annotation":
            kind, group = element.get("Type"), element.get("PartOfGroup", _NO_GROUP).strip()
            ring = safe_xml.ring([(x, y) for _, x, y in sorted(points)])
            points = []
            name = None if group in ("", _NO_GROUP) else group
            if kind not in _POLYGONS and kind != _RECTANGLE:
                yield outlines.left_out(outlines.NO_AREA)
            else:
                shape = outlines.rectangle if kind == _RECTANGLE else outlines.freehand
                yield outlines.Outline(name, outlines.shaped(shape, ring))


def _order(path: Path, element: Element) -> int:
    try:
        return int(element.attrib["Order"])
    except (KeyError, ValueError):
        raise DiffpathError(
            "annotations", where=path, why="a Coordinate has no whole number as Order", fix="save it from ASAP again"
        ) from None


def is_own(start: FileStart) -> bool:
    """Returns whether a file has ASAP's root."""
    return start.root == ROOT


FORMATS.register(AnnotationFormat("ASAP XML", (".xml",), is_own, read, "glass"))
