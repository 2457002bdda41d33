"""What a slide shows where: labelled regions in level-0 pixels, from an annotation file or from one label.

Each format of files has a module beside this one; which one a file is in is told from its content.
"""

import codecs
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import shapely

from data_prep.annotations import asap, imagescope, outlines, qupath, safe_xml
from data_prep.annotations.class_map import ClassMap, known_class
from data_prep.slide.slides import Slide
from diffpath_jax.io.errors import DiffpathError

SUFFIXES = (".geojson", ".json", ".xml")


@dataclass(frozen=True)
class Region:
    """One annotated region: its class in the data set and its outline in level-0 pixels."""

    name: str
    shape: shapely.MultiPolygon


@dataclass(frozen=True)
class Annotated:
    """The regions of one slide, and what was not made one.

    Attributes:
        regions: within the slide, in level-0 pixels.
        ignored: number of outlines left out, by annotation class.
        outside_share: share of the outlines' area that lies outside the slide.
    """

    regions: tuple[Region, ...]
    ignored: Mapping[str, int]
    outside_share: float


def all_classes(paths: Iterable[Path], *, slide_labels: Iterable[str]) -> ClassMap:
    """A class map that uses every class of some annotation files and slide labels, in plain letters.

    Raises:
        DiffpathError: a file is missing or damaged, an area has no class, or two classes look alike in plain letters.
    """
    found = set(slide_labels)
    for path in paths:
        for number, outline in enumerate(_outlines(path)):
            if outline.name is None:
                fix = "give it a class, or give a class map as --classes"
                raise DiffpathError(f"annotation {number}", where=path, why="it has no class", fix=fix)
            found.add(outline.name)
    named: dict[str, str] = {}
    for name in sorted(found):
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
    """The annotation file of a slide: its name with a suffix of :data:`SUFFIXES`.

    Raises:
        DiffpathError: there are several.
    """
    found = [path for suffix in SUFFIXES if (path := folder / f"{slide.stem}{suffix}").is_file()]
    if len(found) > 1:
        raise DiffpathError(
            "annotations",
            where=folder,
            why=f"{' and '.join(path.name for path in found)} are both of {slide.name}",
            fix="keep one of them",
        )
    return found[0] if found else None


def of_slide(slide: Slide, path: Path | None, label: str | None, class_map: ClassMap) -> Annotated:
    """Regions of a slide, from its annotation file if there is one, else all of it under its label.

    Raises:
        DiffpathError: the file is missing or damaged, a class is unknown, or no region of a wanted class is left.
    """
    if path is None:
        return _whole_slide(slide, str(label), class_map)
    regions, ignored = read_regions(path, class_map)
    if any(slide.reader.bounds):
        regions = shift(regions, _origin(path, slide))
    return _within(path, slide, regions, ignored)


def read_regions(path: Path, class_map: ClassMap) -> tuple[tuple[Region, ...], Counter[str]]:
    """Read the annotated regions of one slide, in the pixels of the file's own frame.

    Returns:
        The regions, and how many outlines the map ignores, by annotation class.

    Raises:
        DiffpathError: the file is missing or damaged, has no polygon of a wanted class, or has a class that the
            class map neither uses nor ignores.
    """
    regions, ignored = [], Counter[str]()
    for number, outline in enumerate(_outlines(path)):
        name = known_class(outline.name, path, class_map)
        if name in class_map.ignore:
            ignored[name] += 1
            continue
        try:
            shape = outline.shape_fn()
        except (ValueError, shapely.errors.GEOSException) as error:
            raise DiffpathError(
                f"annotation {number}", where=path, why=f"not a polygon ({error})", fix="draw it again, or delete it"
            ) from error
        if not shape.is_empty:
            regions.append(Region(class_map.classes[name], shape))
    if not regions:
        raise DiffpathError(
            "annotations",
            where=path,
            why="no polygon of a wanted class",
            fix="annotate areas, or leave it out",
        )
    return tuple(regions), ignored


def shift(regions: Iterable[Region], offset: tuple[float, float]) -> tuple[Region, ...]:
    """Regions moved right and down by (x, y) pixels."""
    return tuple(Region(r.name, shapely.transform(r.shape, lambda points: points + offset)) for r in regions)


def _whole_slide(slide: Slide, label: str, class_map: ClassMap) -> Annotated:
    """One region over the whole slide; the share of tissue then decides which fields of view are kept."""
    if known_class(label, f"the label of {slide.path}", class_map) in class_map.ignore:
        why = f"its class {label!r} is ignored"
        raise DiffpathError("slide label", where=slide.path, why=why, fix="leave the slide out, or use the class")
    whole = shapely.MultiPolygon([shapely.box(0, 0, *slide.size)])
    return Annotated((Region(class_map.classes[label], whole),), {}, 0.0)


def _within(path: Path, slide: Slide, regions: tuple[Region, ...], ignored: Counter[str]) -> Annotated:
    frame = shapely.box(0, 0, *slide.size)
    inside = [Region(r.name, _cut(r.shape, frame)) for r in regions]
    area, kept = (sum(region.shape.area for region in found) for found in (regions, inside))
    if kept == 0:
        raise DiffpathError(
            "annotations",
            where=path,
            why=f"all of them lie outside the slide of {slide.size[0]} x {slide.size[1]} px",
            fix="export those of this slide, in pixels of its full resolution",
        )
    share = max(0.0, 1 - kept / area)
    return Annotated(tuple(region for region in inside if not region.shape.is_empty), ignored, share)


def _cut(shape: shapely.MultiPolygon, frame: shapely.Polygon) -> shapely.MultiPolygon:
    left, top, right, bottom = shape.bounds
    within = left >= 0 and top >= 0 and right <= frame.bounds[2] and bottom <= frame.bounds[3]
    return shape if within else outlines.polygons_of(shapely.intersection(shape, frame))


_Reader = Callable[[Path], Iterator[outlines.Outline]]


def _outlines(path: Path) -> Iterator[outlines.Outline]:
    return _reader(path)(path)


def _origin(path: Path, slide: Slide) -> tuple[float, float]:
    """Where the frame of a file begins on a slide that states bounds, in level-0 pixels."""
    reader = _reader(path)
    if reader is imagescope.read:
        raise DiffpathError(
            "annotations",
            where=path,
            why="ImageScope crops and turns slides of this kind, and the file does not say how",
            fix="export the annotations from QuPath as GeoJSON",
        )
    return slide.reader.bounds if reader is qupath.read else (0.0, 0.0)


def _reader(path: Path) -> _Reader:
    """What reads a file, by its first bytes and its outermost element."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        why = f"cannot be read ({error.strerror})"
        raise DiffpathError("annotations", where=path, why=why, fix="check the path given to --annotations") from error
    # XML may be UTF-16, where every other byte of its first words is 0.
    start = head.removeprefix(codecs.BOM_UTF8).removeprefix(codecs.BOM_UTF16_LE).removeprefix(codecs.BOM_UTF16_BE)
    start = start.lstrip(b" \t\r\n\0")
    if start[:1] in (b"{", b"["):
        return qupath.read
    if start[:1] == b"<":
        found = safe_xml.root_tag(path)
        readers: dict[str, _Reader] = {asap.ROOT: asap.read, imagescope.ROOT: imagescope.read}
        if found in readers:
            return readers[found]
        why = f"XML of {found[:80]}, and only that of {' and '.join(readers)} is known"
    else:
        why = "neither GeoJSON nor XML" if start else "the file is empty"
    raise DiffpathError(
        "annotations", where=path, why=why, fix="export them from QuPath as GeoJSON, or from ASAP or ImageScope as XML"
    )
