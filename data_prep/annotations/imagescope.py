"""Aperio ImageScope's XML: ``Annotation[@Name]/Regions/Region[@Type, @Text, @NegativeROA]/Vertices/Vertex[@X, @Y]``.

The class is the name of the layer, or that of the region (``Text``) where the layer has none. Attributes of layers are
free text, such as who drew it, and no classes. Negative regions are holes in the other regions of their layer.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import shapely

from data_prep.annotations import outlines, safe_xml
from data_prep.annotations.registry import FORMATS, AnnotationFormat, FileStart

ROOT, VERTEX = "Annotations", "Vertex"
Shapes = Mapping[str | None, Callable[[outlines.Ring], outlines.Polygon]]
# Arrows (3), rulers (4) and counters are no areas.
_SHAPES: Shapes = {
    "0": outlines.freehand,
    "1": outlines.rectangle,
    "2": outlines.ellipse,
}


def read(path: Path) -> Iterator[outlines.Outline]:
    """Yields the outlines of a file, in its order.

    Raises:
        DiffpathError: the file cannot be read as ImageScope's XML.
    """
    return read_layers(path, vertex=VERTEX, shapes=_SHAPES)


def read_layers(path: Path, *, vertex: str, shapes: Shapes) -> Iterator[outlines.Outline]:
    """Yields the outlines of layers of regions.

    Args:
        path: the file.
        vertex: the element that is a corner.
        shapes: draws the points of each type of region that is an area.

    Raises:
        DiffpathError: it is no such file.
    """
    points: list[tuple[float, float]] = []
    areas: list[tuple[str, outlines.ReadPolygons]] = []
    holes: list[outlines.ReadPolygons] = []
    for element in safe_xml.elements(path):
        if element.tag == vertex:
            points.append(safe_xml.point(path, element))
            element.clear()
        elif element.tag == "Region":
            shape = shapes.get(element.get("Type"))
            if shape is None:
                yield outlines.left_out(outlines.NO_AREA)
            elif element.get("NegativeROA", "0") == "1":
                holes.append(outlines.shaped(shape, safe_xml.ring(points)))
            else:
                areas.append((element.get("Text", ""), outlines.shaped(shape, safe_xml.ring(points))))
            points = []
        elif element.tag == "Annotation":
            # Drawn once for all regions of the layer.
            holes_fn = functools.cache(functools.partial(_holes, holes)) if holes else None
            for text, area in areas:
                name = element.get("Name", "").strip() or text.strip() or None
                yield outlines.Outline(name, area, holes_fn=holes_fn)
            areas, holes = [], []


def vertices_of(start: FileStart) -> str | None:
    """Returns the name of the corners of regions; None where there are none, or the root is another."""
    return safe_xml.first_tag(start.path, ("Vertex", "V")) if start.root == ROOT else None


def is_own(start: FileStart) -> bool:
    """Returns whether a file has ImageScope's root, and no other program's vertices."""
    return start.root == ROOT and vertices_of(start) in (VERTEX, None)


def _holes(holes: Sequence[outlines.ReadPolygons]) -> shapely.MultiPolygon:
    """Returns the area of negative regions; those that enclose nothing are none.

    Raises:
        ValueError: one is damaged.
    """
    return outlines.area_of([outlines.Outline(None, hole) for hole in holes])


FORMATS.register(AnnotationFormat("ImageScope XML", (".xml",), is_own, read, "unknown"))
