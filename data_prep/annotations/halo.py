"""HALO's XML: ImageScope's layers and regions, with vertices ``V[@X, @Y]`` and shapes that have names."""

from collections.abc import Iterator
from pathlib import Path

from data_prep.annotations import imagescope, outlines
from data_prep.annotations.registry import FORMATS, AnnotationFormat, FileStart

VERTEX = "V"
_SHAPES: imagescope.Shapes = {
    "Polygon": outlines.freehand,
    "Rectangle": outlines.rectangle,
    "Ellipse": outlines.ellipse,
}


def read(path: Path) -> Iterator[outlines.Outline]:
    """Yields the outlines of a file, in its order.

    Raises:
        DiffpathError: the file cannot be read as HALO's XML.
    """
    return imagescope.read_layers(path, vertex=VERTEX, shapes=_SHAPES)


def is_own(start: FileStart) -> bool:
    """Returns whether a file has ImageScope's root and HALO's vertices."""
    return imagescope.vertices_of(start) == VERTEX


FORMATS.register(AnnotationFormat("HALO XML", (".annotations",), is_own, read, "unknown"))
