"""QuPath's GeoJSON: a FeatureCollection, a bare list of features, or one feature.

The class is ``properties.classification``: ``{"name": "Tumor: Positive"}``, or in newer versions
``{"names": ["Tumor", "Positive"]}``. Points are pixels of what QuPath shows, which is the slide within its bounds.

Python's lists would take ten times the size of the file. So the coordinates are cut out of the text before it is
parsed, read as arrays, and only for the features that are used.
"""

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from data_prep.annotations.outlines import Outline, Ring, multipolygon
from diffpath_jax.io.errors import DiffpathError

_FIX = "export the annotations from QuPath as GeoJSON again"
_AREAS = ("Polygon", "MultiPolygon")
# QuPath exports what it detected beside what a person drew.
_DETECTED = frozenset({"cell", "detection", "tile", "tma_core"})
# Everything else (measurements, mostly) is dropped while the text is parsed.
_KEYS = frozenset("type features geometry coordinates properties classification name names objectType".split())
# The key cannot stand inside a string: its quotes would be escaped. The value ends where an object goes on or ends.
_COORDINATES = re.compile(rb'(?<!\\)"coordinates"\s*:\s*(\[[\s\[\]0-9eE+.,-]*\])(?=\s*(?:\}|,\s*"))')
_SPACES = b" \t\r\n"
_NUMBERS = b"0123456789eE+-." + _SPACES
_BRACKETS_TO_SPACES = bytes.maketrans(b"[]", b"  ")
# Brackets and commas of coordinates, each point written as v.
_POLYGON = rb"\[\[v(?:,v)*+\](?:,\[v(?:,v)*+\])*+\]"
_LAYOUTS = re.compile(rb"%(p)s|\[%(p)s(?:,%(p)s)*+\]" % {b"p": _POLYGON})


def read(path: Path) -> Iterator[Outline]:
    """Outlines of a file, in its order. Points, lines and what QuPath detected by itself are left out.

    Raises:
        DiffpathError: the file cannot be read, or is no GeoJSON.
    """
    try:
        text = path.read_bytes()
        places: list[tuple[int, int]] = []

        def cut_out(match: re.Match[bytes]) -> bytes:
            places.append(match.span(1))
            return b'"coordinates":%d' % (len(places) - 1)

        skeleton = _COORDINATES.sub(cut_out, text).decode("utf-8-sig")
        # QuPath writes NaN among its measurements, which JSON does not know.
        content = json.loads(skeleton, object_pairs_hook=_keep, parse_constant=lambda name: None)
    except (OSError, ValueError, RecursionError) as error:
        why = f"cannot be read as JSON ({getattr(error, 'msg', error)})"
        raise DiffpathError("annotations", where=path, why=why, fix=_FIX) from error
    for feature in _features(path, content):
        yield Outline(_class_name(feature), functools.partial(_draw, text, places, feature["geometry"]))


def _keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in pairs if key in _KEYS}


def _features(path: Path, content: Any) -> Iterator[dict]:
    if isinstance(content, dict):
        content = content.get("features", []) if content.get("type") == "FeatureCollection" else [content]
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise DiffpathError("annotations", where=path, why="not a GeoJSON feature list", fix=_FIX)
    for item in content:
        geometry, properties = item.get("geometry"), item.get("properties")
        detected = isinstance(properties, dict) and properties.get("objectType") in _DETECTED
        if isinstance(geometry, dict) and geometry.get("type") in _AREAS and not detected:
            yield item


def _class_name(feature: dict) -> str | None:
    properties = feature.get("properties")
    classification = properties.get("classification") if isinstance(properties, dict) else None
    if not isinstance(classification, dict):
        return None
    names = classification.get("names", [classification.get("name")])
    valid = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    return ": ".join(names) if valid else None


def _draw(text: bytes, places: list[tuple[int, int]], geometry: dict) -> shapely.MultiPolygon:
    index = geometry.get("coordinates")
    if not isinstance(index, int) or not 0 <= index < len(places):
        raise ValueError("coordinates that are not numbers")
    start, stop = places[index]
    return multipolygon(_polygons(text[start:stop]))


def _polygons(text: bytes) -> list[list[Ring]]:
    """Rings of each polygon in the coordinates of a Polygon or a MultiPolygon."""
    layout = text.translate(None, _NUMBERS)
    # A third number, if there is one, is the height.
    width = 3 if b"[,,]" in layout else 2
    layout = layout.replace(b"[%s]" % (b"," * (width - 1)), b"v")
    if not _LAYOUTS.fullmatch(layout):
        raise ValueError("not rings of points")
    compact = text.translate(None, _SPACES)
    # What follows would take the number before for the one that is missing.
    if any(gap in compact for gap in (b"[,", b",,", b",]")):
        raise ValueError("a number is missing")
    numbers = np.fromstring(text.translate(_BRACKETS_TO_SPACES), sep=",")
    if numbers.size != width * layout.count(b"v"):
        raise ValueError("a number is misspelt")
    points, polygons, start = numbers.reshape(-1, width)[:, :2], [], 0
    for part in layout.split(b"]],[["):
        lengths = [ring.count(b"v") for ring in part.split(b"],[")]
        stops = start + np.cumsum(lengths)
        polygons.append(np.split(points[start : stops[-1]], stops[:-1] - start))
        start = stops[-1]
    return polygons
