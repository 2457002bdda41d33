"""Aperio ImageScope's XML: ``Annotation[@Name]/Regions/Region[@Type, @NegativeROA]/Vertices/Vertex[@X, @Y]``.

The class is the name of the layer, or the first attribute with a value when the layer has no name. Negative regions
are holes in the other regions of their layer.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

import shapely

from data_prep.annotations import outlines, safe_xml

ROOT = "Annotations"
# Arrows (3), rulers (4) and counters are no areas.
_SHAPES: dict[str | None, Callable[[outlines.Ring], shapely.MultiPolygon]] = {
    "0": lambda points: outlines.polygon([points]),
    "1": outlines.rectangle,
    "2": outlines.ellipse,
}

_Shape = Callable[[], shapely.MultiPolygon]


def read(path: Path) -> Iterator[outlines.Outline]:
    """Outlines of a file, in its order.

    Raises:
        DiffpathError: the file cannot be read as ImageScope's XML.
    """
    points: list[tuple[float, float]] = []
    areas: list[_Shape] = []
    holes: list[_Shape] = []
    for element in safe_xml.elements(path):
        if element.tag == "Vertex":
            points.append(safe_xml.point(path, element))
            element.clear()
        elif element.tag == "Region":
            draw = _SHAPES.get(element.get("Type"))
            if draw is not None:
                kind = holes if element.get("NegativeROA", "0") == "1" else areas
                kind.append(functools.partial(draw, safe_xml.ring(points)))
            points = []
        elif element.tag == "Annotation":
            for area in areas:
                yield outlines.Outline(_class_name(element), functools.partial(_cut, area, holes))
            areas, holes = [], []


def _class_name(layer: Element) -> str | None:
    values = [layer.get("Name", ""), *(found.get("Value", "") for found in layer.iterfind("Attributes/Attribute"))]
    return next((value.strip() for value in values if value.strip()), None)


def _cut(area: _Shape, holes: Sequence[_Shape]) -> shapely.MultiPolygon:
    return outlines.polygons_of(shapely.difference(area(), shapely.union_all([hole() for hole in holes])))
