"""QuPath's GeoJSON: a FeatureCollection, a bare list of features, or one feature.

The class is ``properties.classification``: ``{"name": "Tumor: Positive"}``, or in newer versions
``{"names": ["Tumor", "Positive"]}``; other programs make text of it. Objects may lie within others
(``childObjects``). Points are pixels of what QuPath shows, which is the slide within its bounds.

Python's lists would take ten times the size of the file. So the coordinates are cut out of the text before it is
parsed, read as arrays, and only for the features that are used.
"""

import functools
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.annotations.outlines import NO_AREA, Outline, Ring, left_out
from data_prep.annotations.registry import FORMATS, AnnotationFormat, FileStart, open_plain
from diffpath_jax.io.errors import DiffpathError

_FIX = "export the annotations from QuPath as GeoJSON again"
_AREAS = ("Polygon", "MultiPolygon")
# QuPath exports what it detected beside what a person drew; names without all but letters, those of 0.2 last.
_NO_REGIONS = {
    **dict.fromkeys("cell detection tile pathcellobject pathdetectionobject pathtileobject".split(), "detections"),
    **dict.fromkeys("tmacore tmacoreobject".split(), "cores of a tissue array"),
    **dict.fromkeys("root pathrootobject".split(), "whole images"),
}
# Everything else (measurements, mostly) is dropped while the text is parsed.
_KEYS = frozenset(
    "type features geometry geometries coordinates plane z properties classification name names "
    "id objectType object_type childObjects".split()
)
# The key cannot stand inside a string: its quotes would be escaped. The value ends where an object goes on or ends.
_COORDINATES = re.compile(rb'(?<!\\)"coordinates"\s*:\s*(\[[\s\[\]0-9eE+.,-]*\])(?=\s*(?:\}|,\s*"))')
# A file of a million cells takes a tenth of it.
_MOST_BYTES = 4 * 2**30
_SPACES = b" \t\r\n"
_NUMBERS = b"0123456789eE+-." + _SPACES
_BRACKETS_TO_SPACES = bytes.maketrans(b"[]", b"  ")
# Brackets and commas of coordinates, each point written as v.
_POLYGON = rb"\[\[v(?:,v)*+\](?:,\[v(?:,v)*+\])*+\]"
_LAYOUTS = re.compile(rb"%(p)s|\[%(p)s(?:,%(p)s)*+\]" % {b"p": _POLYGON})


def read(path: Path) -> Iterator[Outline]:
    """Yields the outlines of a file, in its order; what QuPath detected by itself is left out.

    Raises:
        DiffpathError: the file cannot be read, or is no GeoJSON.
    """
    try:
        text = _unpacked(path)
        places: list[tuple[int, int]] = []

        def cut_out(match: re.Match[bytes]) -> bytes:
            places.append(match.span(1))
            return b'"coordinates":%d' % (len(places) - 1)

        skeleton = _COORDINATES.sub(cut_out, text).decode("utf-8-sig")
        # QuPath writes NaN among its measurements, which JSON does not know.
        content = json.loads(skeleton, object_pairs_hook=_keep, parse_constant=lambda name: None)
    except (OSError, ValueError, RecursionError, EOFError, zlib.error) as error:
        why = f"cannot be read as JSON ({getattr(error, 'msg', error)})"
        raise DiffpathError("annotations", where=path, why=why, fix=_FIX) from error
    for item in _features(path, content):
        reason = _why_left_out(item)
        if reason:
            yield left_out(reason)
        else:
            yield Outline(_class_name(item), functools.partial(_all_polygons, text, places, item["geometry"]))


def _unpacked(path: Path) -> bytes:
    """Returns the content of a file, which may be packed by gzip.

    Raises:
        ValueError: it unpacks to more than any annotations take.
    """
    with open_plain(path) as file:
        text = file.read(_MOST_BYTES + 1)
    if len(text) > _MOST_BYTES:
        raise ValueError(f"it holds more than {_MOST_BYTES // 2**30} GiB")
    return text


def _keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in pairs if key in _KEYS}


def _features(path: Path, content: Any) -> Iterator[dict]:
    """Yields every feature with a place for a geometry, those within others after them."""
    if isinstance(content, dict):
        content = content.get("features", []) if content.get("type") == "FeatureCollection" else [content]
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise DiffpathError("annotations", where=path, why="not a GeoJSON feature list", fix=_FIX)
    for item in content:
        if "geometry" in item:
            yield item
        for children in (item.get("childObjects"), _properties(item).get("childObjects")):
            if children:
                yield from _features(path, children)


def _properties(item: dict) -> dict:
    properties = item.get("properties")
    return properties if isinstance(properties, dict) else {}


def _why_left_out(item: dict) -> str:
    """Returns why a feature is no region; empty if it is one."""
    geometry, properties = item["geometry"], _properties(item)
    # QuPath 0.4, 0.3 and 0.2; later versions write a random number as id.
    for text in (properties.get("objectType"), properties.get("object_type"), item.get("id")):
        if isinstance(text, str) and (reason := _NO_REGIONS.get(re.sub(r"[^a-z]", "", text.lower()))):
            return reason
    if not isinstance(geometry, dict):
        return "objects without an outline"
    plane = geometry.get("plane")
    if isinstance(plane, dict) and plane.get("z") not in (None, 0):
        return "areas on other z planes"
    return "" if _is_area(geometry) else NO_AREA


def _is_area(geometry: dict) -> bool:
    return geometry.get("type") in _AREAS or any(_is_area(part) for part in _parts(geometry))


def _parts(geometry: dict) -> list[dict]:
    """Returns the members of a collection of geometries."""
    members = geometry.get("geometries") if geometry.get("type") == "GeometryCollection" else None
    return [part for part in members if isinstance(part, dict)] if isinstance(members, list) else []


def _class_name(item: dict) -> str | None:
    classification = _properties(item).get("classification")
    if isinstance(classification, str):
        classification = _of_text(classification)
    if not isinstance(classification, dict):
        return None
    names = classification.get("names", [classification.get("name")])
    valid = isinstance(names, list) and all(isinstance(name, str) for name in names) and any(map(str.strip, names))
    # JSON can spell half of a character, which UTF-8 cannot.
    return ": ".join(names).encode(errors="backslashreplace").decode() if valid else None


def _of_text(text: str) -> dict | None:
    """Returns a classification that another program has written as text: as JSON, or by its name alone."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {"name": text.strip()} if text.strip() else None
    return content if isinstance(content, dict) else {"name": text.strip()}


def _all_polygons(text: bytes, places: list[tuple[int, int]], geometry: dict) -> list[list[Ring]]:
    """Returns the polygons of an area, or of all areas of a collection."""
    if geometry.get("type") not in _AREAS:
        areas = [part for part in _parts(geometry) if _is_area(part)]
        return [polygon for part in areas for polygon in _all_polygons(text, places, part)]
    index = geometry.get("coordinates")
    if not isinstance(index, int) or not 0 <= index < len(places):
        raise ValueError("coordinates that are not numbers")
    start, stop = places[index]
    return _polygons(text[start:stop])


def _polygons(text: bytes) -> list[list[Ring]]:
    """Rings of each polygon in the coordinates of a Polygon or a MultiPolygon."""
    compact = text.translate(None, _SPACES)
    if b"[]" in compact:
        text = compact = _without_empty(compact)
        if not text:
            return []
    layout = text.translate(None, _NUMBERS)
    # A third number, if there is one, is the height.
    width = 3 if b"[,,]" in layout else 2
    layout = layout.replace(b"[%s]" % (b"," * (width - 1)), b"v")
    if not _LAYOUTS.fullmatch(layout):
        raise ValueError("not rings of points")
    # What follows would take the number before for the one that is missing.
    if any(gap in compact for gap in (b"[,", b",,", b",]")):
        raise ValueError("a number is missing")
    numbers = np.fromstring(text.translate(_BRACKETS_TO_SPACES), sep=",")
    if numbers.size != width * layout.count(b"v"):
        raise ValueError("a number is misspelt")
    points, polygons, start = numbers.reshape(-1, width)[:, :2], [], 0
    for part in layout.split(b"]],[["):
        rings = []
        for ring in part.split(b"],["):
            stop = start + ring.count(b"v")
            rings.append(points[start:stop])
            start = stop
        polygons.append(rings)
    return polygons


def _without_empty(compact: bytes) -> bytes:
    """Returns coordinates without rings and polygons that have no points."""
    while b"[]" in compact:
        compact = compact.replace(b"[],", b"").replace(b",[]", b"").replace(b"[]", b"")
    return compact


def is_own(start: FileStart) -> bool:
    """Returns whether a file begins as JSON does."""
    return start.text[:1] in (b"{", b"[")


FORMATS.register(
    AnnotationFormat("QuPath GeoJSON", (".geojson", ".json", ".geojson.gz", ".json.gz"), is_own, read, "bounds")
)
