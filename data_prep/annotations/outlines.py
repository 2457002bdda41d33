"""Annotated outlines as a file states them, and how points become areas."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import shapely
from jaxtyping import Float

Ring = Float[np.ndarray, "_ 2"]
# An outer ring and its holes, if it has any.
Polygon = Sequence[Ring]

# Four times the side of the largest slides: a point further out is not a place on a slide.
MAX_PX = 1e7
# A ring of more corners than this is rounded to half pixels, which no field of view notices.
DENSE_CORNERS = 200_000
# No person drew one that then has more than this, and to check and repair it may take hours.
MAX_CORNERS = 2_000_000
# Outlines that are drawn at once; their corners are in memory twice.
_AT_ONCE = 4096


# Reasons for which what is annotated is left out and counted.
NO_AREA = "lines and points"
DEGENERATE = "outlines that enclose nothing"
_NO_POINTS = "it has no points"


class DegenerateOutline(ValueError):
    """A stray click, or what an editing tool left behind: an outline that encloses nothing."""


@runtime_checkable
class ReadPolygons(Protocol):
    """Reads the corners of an outline."""

    def __call__(self) -> Sequence[Polygon]:
        """Returns its polygons, in pixels of the file's own frame.

        Raises:
            DegenerateOutline: it encloses nothing.
            ValueError: it is not made of points.
        """


@dataclass(frozen=True)
class Outline:
    """One annotated area, not read yet: most files hold far more than is used.

    Attributes:
        name: annotation class, as the program that wrote the file shows it; None if it has no class.
        polygons_fn: reads its polygons.
        left_out: why it is no region, whatever its class; empty for an area.
        holes_fn: draws what else is cut out of it, the same for many; None for nothing.
    """

    name: str | None
    polygons_fn: ReadPolygons
    left_out: str = ""
    holes_fn: Callable[[], shapely.MultiPolygon] | None = None


def left_out(reason: str) -> Outline:
    """Returns something annotated that is no region, to be counted."""
    return Outline(None, tuple, reason)


def polygons_of(shape: shapely.Geometry) -> shapely.MultiPolygon:
    """The areas of a shape, without the lines and points that cutting and repairing leave behind."""
    # Twice: a collection may hold a MultiPolygon.
    parts = [shape] if isinstance(shape, shapely.Polygon) else shapely.get_parts(shapely.get_parts(shape))
    areas = [part for part in parts if isinstance(part, shapely.Polygon) and not part.is_empty]
    return shapely.multipolygons(areas) if areas else shapely.MultiPolygon()


def draw(outlines: Sequence[Outline]) -> Iterator[shapely.MultiPolygon | ValueError]:
    """Yields the area of each outline; where it has none, why.

    Outlines that cross themselves (bow-ties) are repaired by the even-odd rule; where polygons of one outline overlap,
    their area counts once. Many are drawn at once: a call of shapely takes longer than a polygon of it.

    Yields:
        The area, :class:`DegenerateOutline` for what encloses nothing, or another ``ValueError`` for what is damaged.
    """
    for start in range(0, len(outlines), _AT_ONCE):
        chunk = outlines[start : start + _AT_ONCE]
        stated = [_polygons_of(outline) for outline in chunk]
        polygons = [polygon for each in stated if not isinstance(each, ValueError) for polygon in each]
        areas = iter(_areas(polygons))
        for outline, each in zip(chunk, stated, strict=True):
            if isinstance(each, ValueError):
                yield each
            else:
                yield _outcome([next(areas) for _ in each], outline)


def area_of(outlines: Sequence[Outline]) -> shapely.MultiPolygon:
    """Returns the area of all outlines; those that enclose nothing are passed over.

    Raises:
        ValueError: one is damaged.
    """
    areas = list[shapely.MultiPolygon]()
    for area in draw(outlines):
        if isinstance(area, shapely.MultiPolygon):
            areas.append(area)
        elif not isinstance(area, DegenerateOutline):
            raise area
    union = polygons_of(shapely.union_all(areas))
    shapely.prepare(union)
    return union


def _polygons_of(outline: Outline) -> Sequence[Polygon] | ValueError:
    try:
        return outline.polygons_fn()
    except ValueError as error:
        return error


def _areas(polygons: Sequence[Polygon]) -> list[shapely.MultiPolygon | ValueError]:
    """Returns the area of each polygon; where it has none, why."""
    checked = iter(_checked_all([ring for rings in polygons for ring in rings]))
    whole = [_enclosing([next(checked) for _ in rings]) for rings in polygons]
    drawn = iter(_drawn([rings for rings in whole if not isinstance(rings, ValueError)]))
    return [rings if isinstance(rings, ValueError) else next(drawn) for rings in whole]


def _enclosing(rings: Sequence[Ring | ValueError]) -> Polygon | ValueError:
    """Returns the rings of a polygon that enclose something: a hole that does not is none."""
    kept = [ring for i, ring in enumerate(rings) if i == 0 or not isinstance(ring, DegenerateOutline)]
    failed = [ring for ring in kept if isinstance(ring, ValueError)] if kept else [DegenerateOutline(_NO_POINTS)]
    return failed[0] if failed else [ring for ring in kept if not isinstance(ring, ValueError)]


def _drawn(polygons: Sequence[Polygon]) -> list[shapely.MultiPolygon | ValueError]:
    """Returns the areas of polygons whose rings are checked."""
    if not polygons:
        return []
    rings = [ring for each in polygons for ring in each]
    lines = shapely.linearrings(np.concatenate(rings), indices=np.repeat(np.arange(len(rings)), [*map(len, rings)]))
    shapes = shapely.polygons(lines, indices=np.repeat(np.arange(len(polygons)), [*map(len, polygons)]))
    areas = shapely.multipolygons(shapes, indices=np.arange(len(shapes))).tolist()
    for i in np.flatnonzero(~shapely.is_valid(shapes)).tolist():
        areas[i] = _repaired(shapes[i])
    return areas


def _repaired(shape: shapely.Polygon) -> shapely.MultiPolygon | ValueError:
    try:
        return polygons_of(shapely.make_valid(shape))
    except shapely.errors.GEOSException as error:
        return ValueError(str(error))


def _outcome(areas: Sequence[shapely.MultiPolygon | ValueError], outline: Outline) -> shapely.MultiPolygon | ValueError:
    """Returns the area of an outline, made of those of its polygons; those that enclose nothing are passed over."""
    failed = [area for area in areas if isinstance(area, ValueError)]
    drawn = [area for area in areas if not isinstance(area, ValueError)]
    if damaged := [error for error in failed if not isinstance(error, DegenerateOutline)]:
        return damaged[0]
    if not drawn:
        return failed[-1] if failed else DegenerateOutline(_NO_POINTS)
    try:
        area = drawn[0] if len(drawn) == 1 else polygons_of(shapely.union_all(drawn))
        if outline.holes_fn and area.intersects(holes := outline.holes_fn()):
            area = polygons_of(shapely.difference(area, holes))
    except (ValueError, shapely.errors.GEOSException) as error:
        return ValueError(str(error))
    return DegenerateOutline("its points lie on a line") if area.is_empty else area


def _checked_all(rings: Sequence[Ring]) -> list[Ring | ValueError]:
    """Returns rings that can be drawn, and for the others why not."""
    lengths = np.array([*map(len, rings)], int)
    if not lengths.any():
        return [DegenerateOutline(_NO_POINTS) for _ in rings]
    corners = np.concatenate(rings)
    start = np.cumsum(lengths) - lengths
    far = np.flatnonzero(~(np.abs(corners) < MAX_PX).all(axis=1))  # NaN is far too
    # Most rings say in their first corners that they are fine.
    fine = (lengths > 3) & (lengths <= DENSE_CORNERS)
    fine[np.searchsorted(start, far, side="right") - 1] = False
    first = corners[np.minimum(start[:, None] + np.arange(4), len(corners) - 1)]
    new = [~(first[:, k, None] == first[:, :k]).all(axis=2).any(axis=1) for k in range(4)]
    fine &= np.sum(new, axis=0) > 2
    return [ring if ok else _checked(ring) for ring, ok in zip(rings, fine.tolist(), strict=True)]


def _checked(ring: Ring) -> Ring | ValueError:
    if not (np.abs(ring) < MAX_PX).all():  # NaN fails too
        return ValueError("a point that is no place on a slide")
    if len(ring) > DENSE_CORNERS:
        ring = np.round(ring * 2) / 2
        ring = ring[np.any(ring != np.roll(ring, 1, axis=0), axis=1)]
    if len(ring) > MAX_CORNERS:
        return ValueError(f"more than {MAX_CORNERS:,} corners, half a pixel apart")
    return ring if len(np.unique(ring, axis=0)) > 2 else DegenerateOutline("fewer than three points")


def shaped(shape: Callable[[Ring], Polygon], points: Ring) -> ReadPolygons:
    """Returns what reads one polygon of a shape with some points."""
    return lambda: [shape(points)]


def freehand(points: Ring) -> Polygon:
    """The polygon with some corners."""
    return [points]


def rectangle(points: Ring) -> Polygon:
    """The rectangle that two opposite corners, or all four in turn, stand for.

    Raises:
        DegenerateOutline: there are fewer corners.
    """
    return [points if len(points) > 2 else _corners(points)]


def ellipse(points: Ring) -> Polygon:
    """The upright ellipse within the bounds of some points, as a polygon of 256 corners.

    Raises:
        DegenerateOutline: there are fewer than two points.
    """
    corners = _corners(points)
    angle = np.linspace(0, 2 * np.pi, 256, endpoint=False)
    centre, radius = (corners[0] + corners[2]) / 2, (corners[2] - corners[0]) / 2
    return [centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)]


def _corners(points: Ring) -> Ring:
    if len(points) < 2:
        raise DegenerateOutline("fewer than two points")
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
