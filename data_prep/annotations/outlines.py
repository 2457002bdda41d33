"""Annotated outlines as a file states them, and how points become areas."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import shapely
from jaxtyping import Float

Ring = Float[np.ndarray, "_ 2"]

# Four times the side of the largest slides: a point further out is not a place on a slide.
MAX_PX = 1e7
# A ring of more corners than this is rounded to half pixels, which no field of view notices.
DENSE_CORNERS = 200_000
# No person drew one that then has more than this, and to check and repair it may take hours.
MAX_CORNERS = 2_000_000


# Reasons for which what is annotated is left out and counted.
NO_AREA = "lines and points"
DEGENERATE = "outlines that enclose nothing"


class DegenerateOutline(ValueError):
    """A stray click, or what an editing tool left behind: an outline that encloses nothing."""


@runtime_checkable
class Draw(Protocol):
    """Draws an outline."""

    def __call__(self) -> shapely.MultiPolygon:
        """Returns the area, in pixels of the file's own frame.

        Raises:
            DegenerateOutline: it encloses nothing.
            ValueError: it is not made of places on a slide.
        """


@dataclass(frozen=True)
class Outline:
    """One annotated area, not drawn yet: most files hold far more than is used.

    Attributes:
        name: annotation class, as the program that wrote the file shows it; None if it has no class.
        shape_fn: draws it.
        left_out: why it is no region, whatever its class; empty for an area.
    """

    name: str | None
    shape_fn: Draw
    left_out: str = ""


def left_out(reason: str) -> Outline:
    """Returns something annotated that is no region, to be counted."""
    return Outline(None, shapely.MultiPolygon, reason)


def polygons_of(shape: shapely.Geometry) -> shapely.MultiPolygon:
    """The areas of a shape, without the lines and points that cutting and repairing leave behind."""
    # Twice: a collection may hold a MultiPolygon.
    parts = [shape] if isinstance(shape, shapely.Polygon) else shapely.get_parts(shapely.get_parts(shape))
    areas = [part for part in parts if isinstance(part, shapely.Polygon) and not part.is_empty]
    return shapely.multipolygons(areas) if areas else shapely.MultiPolygon()


def polygon(rings: Sequence[Ring]) -> shapely.MultiPolygon:
    """The area within the first ring and outside the others, which are its holes.

    Outlines that cross themselves (bow-ties) are repaired by the even-odd rule.

    Raises:
        DegenerateOutline: the first ring has fewer than three points; a hole of so few is none.
        ValueError: a ring has far too many points, or one that is no place on a slide.
    """
    outer, *holes = rings
    outline = shapely.linearrings(_checked(outer))
    shape = shapely.polygons(outline, holes=[shapely.linearrings(hole) for hole in _enclosing(holes)] or None)
    return polygons_of(shape if shapely.is_valid(shape) else shapely.make_valid(shape))


def _enclosing(rings: Sequence[Ring]) -> Iterator[Ring]:
    """Yields the rings that enclose something."""
    for ring in rings:
        with contextlib.suppress(DegenerateOutline):
            yield _checked(ring)


def _checked(ring: Ring) -> Ring:
    if not (np.abs(ring) < MAX_PX).all():  # NaN fails too
        raise ValueError("a point that is no place on a slide")
    if len(ring) > DENSE_CORNERS:
        ring = np.round(ring * 2) / 2
        ring = ring[np.any(ring != np.roll(ring, 1, axis=0), axis=1)]
    if len(ring) > MAX_CORNERS:
        raise ValueError(f"more than {MAX_CORNERS:,} corners, half a pixel apart")
    # Most rings say so in their first corners; sorting all of them takes longer than drawing them.
    if len({*map(tuple, ring[:4].tolist())}) < 3 and len(np.unique(ring, axis=0)) < 3:
        raise DegenerateOutline("fewer than three points")
    return ring


def multipolygon(polygons: Sequence[Sequence[Ring]]) -> shapely.MultiPolygon:
    """The area of several polygons, without those that enclose nothing; where they overlap it counts once.

    Raises:
        DegenerateOutline: none of them encloses anything.
        ValueError: one of them is no polygon.
    """
    shapes, failed = list[shapely.MultiPolygon](), DegenerateOutline("it has no points")
    for rings in polygons:
        try:
            shapes.append(polygon(rings))
        except DegenerateOutline as error:
            failed = error
    if not shapes:
        raise failed
    return shapes[0] if len(shapes) == 1 else polygons_of(shapely.union_all(shapes))


def rectangle(points: Ring) -> shapely.MultiPolygon:
    """The rectangle that two opposite corners, or all four in turn, stand for.

    Raises:
        ValueError: there are fewer corners, or they enclose nothing.
    """
    return polygon([points if len(points) > 2 else _corners(points)])


def ellipse(points: Ring) -> shapely.MultiPolygon:
    """The upright ellipse within the bounds of some points, as a polygon of 256 corners.

    Raises:
        ValueError: the points enclose nothing.
    """
    corners = _corners(points)
    angle = np.linspace(0, 2 * np.pi, 256, endpoint=False)
    centre, radius = (corners[0] + corners[2]) / 2, (corners[2] - corners[0]) / 2
    return polygon([centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)])


def _corners(points: Ring) -> Ring:
    if len(points) < 2:
        raise DegenerateOutline("fewer than two points")
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
