"""Region annotations as labelled polygons in level-0 pixels.

QuPath exports GeoJSON as a FeatureCollection, a bare list of features or one feature; each carries its class in
``properties.classification.name``.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shapely
import shapely.geometry

from diffpath_jax.errors import DiffpathError
from diffpath_jax.files import read_json

_EXPORT = "export the annotations from QuPath as GeoJSON again"


@dataclass(frozen=True)
class ClassMap:
    """Which annotation classes are used, under which name, and which are left out on purpose.

    Attributes:
        classes: annotation class -> class of the data set.
        ignore: annotation classes that are known and not used.
    """

    classes: Mapping[str, str]
    ignore: frozenset[str]

    @property
    def names(self) -> tuple[str, ...]:
        """Classes of the data set, in the order the map first names them; a label is an index into these."""
        return tuple(dict.fromkeys(self.classes.values()))


@dataclass(frozen=True)
class Region:
    """One annotated region: its class in the data set and its outline in level-0 pixels."""

    name: str
    shape: shapely.MultiPolygon


def read_class_map(path: Path) -> ClassMap:
    """Read ``{"classes": {"Annotation class": "data set class"}, "ignore": ["Annotation class"]}``.

    Raises:
        DiffpathError: the file is missing or says something else.
    """
    example = 'write {"classes": {"Tumour": "tumour"}, "ignore": ["Pen"]}'
    content = read_json(path, what="class map", fix=example)
    classes: Any = content.get("classes") if isinstance(content, dict) else None
    ignore: Any = content.get("ignore", []) if isinstance(content, dict) else None
    valid = (
        isinstance(classes, dict)
        and classes
        and isinstance(ignore, list)
        and set(content) <= {"classes", "ignore"}
        and all(isinstance(name, str) for name in (*classes.values(), *ignore))
    )
    if not valid:
        raise DiffpathError("class map", where=path, why="it does not map classes to names", fix=example)
    for name in classes.values():
        # Class names become file and folder names.
        if not name.replace("_", "").replace("-", "").isalnum() or len(name) > 64:
            raise DiffpathError(
                f"class {name!r}",
                where=path,
                why="names may hold letters, digits, - and _ only",
                fix="choose another name",
            )
    return ClassMap(classes, frozenset(ignore))


def all_classes(paths: Iterable[Path]) -> ClassMap:
    """A class map that uses every class of some annotation files under its own name, in plain letters.

    Raises:
        DiffpathError: a file is missing or damaged, or an area has no class.
    """
    found = set()
    for path in paths:
        for number, feature in enumerate(_features(path, read_json(path, what="annotations", fix=_EXPORT))):
            name = _class_name(feature)
            if name is None:
                fix = "give it a class in QuPath, or give a class map as --classes"
                raise DiffpathError(f"annotation {number}", where=path, why="it has no class", fix=fix)
            found.add(name)
    plain = {name: "_".join(re.findall(r"[a-z0-9]+", name.lower())) or "class" for name in sorted(found)}
    return ClassMap(plain, frozenset())


def read_regions(path: Path, class_map: ClassMap) -> tuple[Region, ...]:
    """Read the annotated regions of one slide from QuPath GeoJSON, leaving out the ignored classes.

    Raises:
        DiffpathError: the file is missing or damaged, has no polygon of a wanted class, or has a class that the
            class map neither uses nor ignores.
    """
    content = read_json(path, what="annotations", fix=_EXPORT)
    regions = []
    for number, feature in enumerate(_features(path, content)):
        name = _class_name(feature)
        if name in class_map.ignore:
            continue
        if name is None or name not in class_map.classes:
            known = sorted({*class_map.classes, *class_map.ignore})
            raise DiffpathError(
                f"annotation class {name!r}",
                where=path,
                why=f"the class map knows only {known}",
                fix='add it to "classes" or to "ignore" in the file given to --classes',
            )
        shape = _polygons(path, number, feature)
        if not shape.is_empty:
            regions.append(Region(class_map.classes[name], shape))
    if not regions:
        raise DiffpathError(
            "annotations",
            where=path,
            why="no polygon of a wanted class",
            fix="annotate areas, or leave it out",
        )
    return tuple(regions)


def _features(path: Path, content: Any) -> Iterator[dict]:
    if isinstance(content, dict):
        content = content.get("features", []) if content.get("type") == "FeatureCollection" else [content]
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise DiffpathError("annotations", where=path, why="not a GeoJSON feature list", fix=_EXPORT)
    for item in content:
        # QuPath writes cells and points as features too: only areas can hold a field of view.
        geometry = item.get("geometry")
        if isinstance(geometry, dict) and geometry.get("type") in ("Polygon", "MultiPolygon"):
            yield item


def _class_name(feature: dict) -> str | None:
    properties = feature.get("properties")
    classification = properties.get("classification") if isinstance(properties, dict) else None
    name = classification.get("name") if isinstance(classification, dict) else None
    return name if isinstance(name, str) else None


def _polygons(path: Path, number: int, feature: dict) -> shapely.MultiPolygon:
    """The feature's area; self-crossing outlines (bow-ties) are repaired by the even-odd rule."""
    try:
        shape = shapely.from_geojson(json.dumps(feature["geometry"], allow_nan=False))
    except (shapely.errors.GEOSException, ValueError, TypeError) as error:
        raise DiffpathError(f"annotation {number}", where=path, why=f"not a polygon ({error})", fix=_EXPORT) from error
    parts = [part for part in shapely.get_parts(shapely.make_valid(shape)) if isinstance(part, shapely.Polygon)]
    return shapely.MultiPolygon(parts)
