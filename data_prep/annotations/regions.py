"""Labelled regions of a slide in level-0 pixels, from an annotation file or from one label.

Formats of files are in :mod:`data_prep.annotations.registry`; which one a file is in is told from its content.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import shapely

from data_prep.annotations import outlines, registry
from data_prep.annotations.class_map import ClassMap, known_class
from data_prep.slide.readers.registry import KnowsCentre
from data_prep.slide.slides import Slide
from data_prep.tables import files_of, list_files
from diffpath_jax.io.errors import DiffpathError


@dataclass(frozen=True)
class Region:
    """One annotated region: its class in the data set and its outline in level-0 pixels."""

    name: str
    shape: shapely.MultiPolygon


@dataclass(frozen=True)
class FileRegions:
    """The regions of an annotation file, and what was not made one.

    Attributes:
        regions: in pixels of the file's own frame.
        ignored: number of outlines of ignored classes, by annotation class.
        cut_out: number of outlines that were cut out of the others, by annotation class.
        left_out: number of outlines that are no regions, by reason.
    """

    regions: tuple[Region, ...]
    ignored: Mapping[str, int] = field(default_factory=dict)
    cut_out: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Annotated:
    """The regions of one slide.

    Attributes:
        source: the regions within the slide, in level-0 pixels, and what was not made one.
        outside_share: share of the outlines' area that lies outside the slide.
    """

    source: FileRegions
    outside_share: float

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions within the slide, in level-0 pixels."""
        return self.source.regions


def all_classes(paths: Iterable[Path], *, slide_labels: Iterable[str]) -> ClassMap:
    """A class map that uses every class of some annotation files and slide labels, in plain letters.

    Raises:
        DiffpathError: a file is missing or damaged, an area has no class, or two classes look alike in plain letters.
    """
    names = set(slide_labels)
    for path in paths:
        for number, outline in enumerate(_outlines(path)):
            if outline.left_out or (outline.name is None and _encloses_nothing(outline)):
                continue
            if outline.name is None:
                fix = "give it a class, or give a class map as --classes"
                raise DiffpathError(f"annotation {number}", where=path, why="it has no class", fix=fix)
            names.add(outline.name)
    named: dict[str, str] = {}
    for name in sorted(names):
        short = "_".join(re.findall(r"[a-z0-9]+", name.lower()))[:64] or "class"
        if short in named:
            raise DiffpathError(
                f"annotation class {name!r}",
                where="the annotations",
                why=f"in plain letters it is {short}, as is {named[short]!r}",
                fix="name the classes of the data set in a class map, as --classes",
            )
        named[short] = name
    return ClassMap({name: short for short, name in named.items()}, frozenset())


def find_file(folder: Path, slide: Path) -> Path | None:
    """Returns the annotation file of a slide: named as it or without its suffix, then a suffix of a format.

    Raises:
        DiffpathError: there are several.
    """
    files = files_of(slide, list_files(folder, registry.suffixes()), registry.suffixes())
    if len(files) > 1:
        raise DiffpathError(
            "annotations",
            where=folder,
            why=f"{' and '.join(path.name for path in files)} are both of {slide.name}",
            fix="keep one of them",
        )
    return files[0] if files else None


def of_slide(slide: Slide, path: Path | None, label: str | None, class_map: ClassMap) -> Annotated:
    """Returns the regions of a slide, from its annotation file if there is one, else all of it under its label.

    Raises:
        DiffpathError: the file is missing or damaged, a class is unknown, or no region of a wanted class is left.
    """
    if path is None:
        return _whole_slide(slide, str(label), class_map)
    stored = read_regions(path, class_map)
    if registry.format_of(path).origin == "centre":
        stored = replace(stored, regions=_from_centre(path, slide, stored.regions))
    elif any(slide.reader.bounds):
        stored = replace(stored, regions=shift(stored.regions, _origin(path, slide)))
    return _within(path, slide, stored)


def read_regions(path: Path, class_map: ClassMap) -> FileRegions:
    """Read the annotated regions of one slide, in the pixels of the file's own frame.

    Raises:
        DiffpathError: the file is missing or damaged, has no polygon of a wanted class, or has a class that the
            class map does not know.
    """
    wanted = list[tuple[int, str, outlines.Outline]]()
    ignored, cut_out, left_out = Counter[str](), Counter[str](), Counter[str]()
    for number, outline in enumerate(_outlines(path)):
        if outline.left_out:
            left_out[outline.left_out] += 1
        elif (name := _class_of(outline, path, class_map)) is None:
            left_out[_degenerate("of no class that is known")] += 1
        elif name in class_map.ignore:
            ignored[name or "without a class"] += 1
        else:
            wanted.append((number, name, outline))
    regions, excluded = list[Region](), list[shapely.MultiPolygon]()
    drawn = outlines.draw([outline for _, _, outline in wanted])
    for (number, name, _), shape in zip(wanted, drawn, strict=True):
        if isinstance(shape, outlines.DegenerateOutline):
            left_out[_degenerate(str(shape))] += 1
        elif isinstance(shape, ValueError):
            what, fix = f"annotation {number}", "draw it again, or delete it"
            raise DiffpathError(what, where=path, why=f"not a polygon ({shape})", fix=fix) from shape
        elif name in class_map.exclude:
            cut_out[name or "without a class"] += 1
            excluded.append(shape)
        else:
            regions.append(Region(class_map.classes[name], shape))
    if not regions:
        also = "".join(f"; {count} {reason}" for reason, count in left_out.items())
        why = f"no polygon of a wanted class{also}"
        raise DiffpathError("annotations", where=path, why=why, fix="annotate areas, or leave it out")
    return FileRegions(_cut_out(regions, excluded), dict(ignored), dict(cut_out), dict(left_out))


def _degenerate(why: str) -> str:
    """Returns the reason for which something that encloses nothing is left out."""
    return f"{outlines.DEGENERATE}, not a polygon ({why})"


def _class_of(outline: outlines.Outline, path: Path, class_map: ClassMap) -> str | None:
    """Returns the class of an outline, which the map knows; None for a stray click of another or, mostly, of none.

    Raises:
        DiffpathError: the map does not know that of an area.
    """
    try:
        return known_class(outline.name, path, class_map)
    except DiffpathError:
        if _encloses_nothing(outline):
            return None
        raise


def _encloses_nothing(outline: outlines.Outline) -> bool:
    """Returns whether an outline has no area; what cannot be drawn for another reason may have one."""
    return isinstance(next(outlines.draw([outline])), outlines.DegenerateOutline)


def _cut_out(regions: Sequence[Region], excluded: Sequence[shapely.MultiPolygon]) -> tuple[Region, ...]:
    """Returns regions without what is excluded; those that it covers are gone."""
    if not excluded:
        return tuple(regions)
    hole = shapely.union_all(excluded)
    shapely.prepare(hole)
    meets = shapely.intersects([region.shape for region in regions], hole)
    left = [
        replace(region, shape=outlines.polygons_of(shapely.difference(region.shape, hole))) if meet else region
        for region, meet in zip(regions, meets.tolist(), strict=True)
    ]
    return tuple(region for region in left if not region.shape.is_empty)


def shift(regions: Sequence[Region], offset: tuple[float, float]) -> tuple[Region, ...]:
    """Returns regions moved right and down by (x, y) pixels."""
    return _moved(regions, lambda points: points + offset)


def _moved(regions: Sequence[Region], move: Callable[[np.ndarray], np.ndarray]) -> tuple[Region, ...]:
    """Returns regions with all their points moved at once."""
    shapes = shapely.transform(np.array([region.shape for region in regions], object), move)
    return tuple(replace(region, shape=shape) for region, shape in zip(regions, shapes, strict=True))


def _whole_slide(slide: Slide, label: str, class_map: ClassMap) -> Annotated:
    """One region over the whole slide; the share of tissue then decides which fields of view are kept."""
    if known_class(label, f"the label of {slide.path}", class_map) not in class_map.classes:
        why = f"its class {label!r} is ignored"
        raise DiffpathError("slide label", where=slide.path, why=why, fix="leave the slide out, or use the class")
    outline = shapely.MultiPolygon([shapely.box(0, 0, *slide.size)])
    return Annotated(FileRegions((Region(class_map.classes[label], outline),)), 0.0)


def _within(path: Path, slide: Slide, stored: FileRegions) -> Annotated:
    shapes = [region.shape for region in stored.regions]
    inside = _cut(shapes, slide.size)
    area, kept = (shapely.area(each).sum() for each in (shapes, inside))
    if kept == 0:
        raise DiffpathError(
            "annotations",
            where=path,
            why=f"all of them lie outside the slide of {slide.size[0]} x {slide.size[1]} px, or are cut out",
            fix="export those of this slide, in pixels of its full resolution",
        )
    left = zip(stored.regions, inside, strict=True)
    regions = tuple(replace(region, shape=shape) for region, shape in left if not shape.is_empty)
    return Annotated(replace(stored, regions=regions), max(0.0, float(1 - kept / area)))


def _cut(shapes: Sequence[shapely.MultiPolygon], size: tuple[int, int]) -> list[shapely.MultiPolygon]:
    """Returns what of each shape lies within (width, height)."""
    left, top, right, bottom = shapely.bounds(shapes).T
    is_over = (left < 0) | (top < 0) | (right > size[0]) | (bottom > size[1])
    frame = shapely.box(0, 0, *size)
    return [
        outlines.polygons_of(shapely.intersection(shape, frame)) if over else shape
        for shape, over in zip(shapes, is_over.tolist(), strict=True)
    ]


def _outlines(path: Path) -> Iterator[outlines.Outline]:
    return registry.format_of(path).read(path)


def _from_centre(path: Path, slide: Slide, regions: Sequence[Region]) -> tuple[Region, ...]:
    """Returns regions in level-0 pixels that are stated in um from the centre of the glass.

    Raises:
        DiffpathError: the slide does not say where that is.
    """
    centre = slide.reader.centre_um if isinstance(slide.reader, KnowsCentre) else None
    if centre is None:
        why = f"it counts from the centre of the glass, and {slide.path.name} does not say where that is"
        fix = "give the NDPI file that they were drawn on, or export them from QuPath as GeoJSON"
        raise DiffpathError("annotations", where=path, why=why, fix=fix)
    scale, middle = np.array([slide.scale.x, slide.scale.y]), np.array(slide.size) / 2
    return _moved(regions, lambda um: (um - centre) / scale + middle)


def _origin(path: Path, slide: Slide) -> tuple[float, float]:
    """Returns where the frame of a file begins on a slide that states bounds, in level-0 pixels."""
    form = registry.format_of(path)
    if form.origin == "unknown":
        raise DiffpathError(
            "annotations",
            where=path,
            why=f"a program that writes {form.name} crops and turns slides of this kind, and the file does not say how",
            fix="export the annotations from QuPath as GeoJSON",
        )
    return slide.reader.bounds if form.origin == "bounds" else (0.0, 0.0)
