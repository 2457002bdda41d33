"""Outlines are drawn many at once: each as it would be alone, whatever its neighbours are."""

import numpy as np
import pytest
import shapely

from data_prep.annotations import outlines
from data_prep.annotations.outlines import DegenerateOutline, Outline

SQUARE = np.array([(0.0, 0), (10, 0), (10, 10), (0, 10)])
BOW_TIE = SQUARE[[0, 2, 1, 3]]
HOLE = np.array([(2.0, 2), (4, 2), (4, 4)])
CLICK = np.array([(3.0, 3), (3, 3), (3, 3), (3, 3), (3, 3)])
LINE = np.array([(0.0, 0), (1, 1), (2, 2), (3, 3)])
LATE = np.array([(0.0, 0), (0, 0), (0, 0), (0, 0), (10, 0), (0, 10)])
FAR = np.array([(0.0, 0), (10, 0), (10, 1e9)])
MISSING = np.array([(0.0, 0), (10, 0), (10, np.nan), (0, 10)])
NONE = np.empty((0, 2))


def unreadable():
    raise ValueError("not rings of points")


# What is stated, and its area, or why it has none.
CASES = {
    "square": ([[SQUARE]], 100.0),
    "closed": ([[np.concatenate([SQUARE, SQUARE[:1]])]], 100.0),
    "triangle": ([[HOLE]], 2.0),
    "with a hole": ([[SQUARE, HOLE]], 98.0),
    "with a click as hole": ([[SQUARE, CLICK, HOLE]], 98.0),
    "bow-tie": ([[BOW_TIE]], 50.0),
    "begins with a click": ([[LATE]], 50.0),
    "two apart": ([[SQUARE], [SQUARE + 20.0]], 200.0),
    "two overlap": ([[SQUARE], [SQUARE + np.array([5.0, 0.0])]], 150.0),
    "one and a click": ([[CLICK], [SQUARE]], 100.0),
    "click": ([[CLICK]], DegenerateOutline),
    "line": ([[LINE]], DegenerateOutline),
    "empty ring": ([[NONE]], DegenerateOutline),
    "no rings": ([[]], DegenerateOutline),
    "no polygons": ([], DegenerateOutline),
    "two points": ([[SQUARE[:2]]], DegenerateOutline),
    "far": ([[FAR]], ValueError),
    "not a number": ([[MISSING]], ValueError),
    "far hole": ([[SQUARE, FAR]], ValueError),
    "one and a far one": ([[SQUARE], [FAR]], ValueError),
    "unreadable": (None, ValueError),
}


def outline_of(name: str) -> Outline:
    polygons, _ = CASES[name]
    return Outline("a", unreadable if polygons is None else lambda: polygons)


def check(name: str, drawn: shapely.MultiPolygon | ValueError) -> None:
    _, expected = CASES[name]
    if isinstance(expected, float):
        assert isinstance(drawn, shapely.MultiPolygon) and drawn.is_valid
        assert drawn.area == pytest.approx(expected, rel=1e-12)
    else:
        assert type(drawn) is expected


@pytest.mark.parametrize("name", CASES)
def test_alone(name):
    (drawn,) = outlines.draw([outline_of(name)])
    check(name, drawn)


@pytest.mark.parametrize("at_once", [1, 2, 7, 10_000])
def test_among_others(monkeypatch, at_once):
    monkeypatch.setattr(outlines, "_AT_ONCE", at_once)
    names = np.random.default_rng(0).permutation([*CASES] * 5).tolist()
    for name, drawn in zip(names, outlines.draw([outline_of(name) for name in names]), strict=True):
        check(name, drawn)


def test_of_many_random_polygons_every_area_is_that_of_shapely():
    rng = np.random.default_rng(0)
    stars = [np.cumsum(rng.normal(0, 3, (rng.integers(3, 40), 2)), axis=0) for _ in range(500)]
    drawn = list(outlines.draw([Outline("a", outlines.shaped(outlines.freehand, star)) for star in stars]))
    expected = [shapely.make_valid(shapely.Polygon(star)).area for star in stars]
    np.testing.assert_allclose([shape.area for shape in drawn], expected, rtol=1e-12)


def test_nothing_is_drawn_of_nothing():
    assert list(outlines.draw([])) == []
    assert outlines.area_of([]).is_empty


def test_holes_are_cut_out_of_what_they_meet():
    hole = shapely.MultiPolygon([shapely.box(5, 0, 15, 10)])
    shapes = [SQUARE, SQUARE + np.array([100.0, 0.0]), SQUARE + np.array([5.0, 0.0])]
    stated = [Outline("a", outlines.shaped(outlines.freehand, shape), holes_fn=lambda: hole) for shape in shapes]
    half, whole, nothing = outlines.draw(stated)
    assert half.area == 50 and whole.area == 100
    assert isinstance(nothing, DegenerateOutline)


def test_the_area_of_damaged_outlines_is_refused():
    with pytest.raises(ValueError, match="place on a slide"):
        outlines.area_of([outline_of("square"), outline_of("click"), outline_of("far")])
