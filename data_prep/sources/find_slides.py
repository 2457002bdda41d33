"""The slides of a job: each with its annotations or its label, and its patient; and what no slide was found for."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep import tables
from data_prep.annotations import regions as annotations
from data_prep.annotations import registry as formats
from data_prep.annotations import tissue_masks
from data_prep.fields.coordinates import find_file, list_files
from data_prep.slide.readers import registry
from data_prep.slide.readers.registry import ReaderKind
from data_prep.sources.slide import SlideSource
from data_prep.splits.patients import Owner, PatientTable
from diffpath_jax.io.errors import DiffpathError


@dataclass(frozen=True)
class FoundSlides:
    """The slides of a job.

    Attributes:
        sources: in the order of their names.
        notes: what lies beside them and is not used, for a person to read.
    """

    sources: tuple[SlideSource, ...]
    notes: tuple[str, ...]


def find_sources(
    slide_path: Path,
    annotation_path: Path | None,
    *,
    patients: PatientTable | None,
    slide_labels: Path | None,
    scales: Mapping[str, float],
    masks: Path | None = None,
    coordinates: Path | None = None,
) -> FoundSlides:
    """Pair slides with annotations or labels, with patients, and with um/px that they do not state themselves.

    Raises:
        DiffpathError: no slide, a slide without annotations and label or without a mask in ``masks`` or places in
            ``coordinates``, several slides without a patient table, one file for two slides, or two rows of a table
            that differ for one.
    """
    readers = find_readers(slide_path)
    slides = list(readers)
    _check_patients(slides, patients)
    labels = tables.read_table(slide_labels, columns=("slide", "class")) if slide_labels else {}
    places = list_files(coordinates) if coordinates else {}
    sources, owners = list[SlideSource](), dict[Path, Path]()
    for slide, (regions, label) in zip(slides, _find_regions(slides, annotation_path, labels), strict=True):
        names = tables.names_of(slide)
        owner = patients.owner(slide.name, names) if patients else Owner(slide.stem, None)
        mpp = tables.lookup(scales, names, what="um/px", where="--mpp_csv")
        mask = tissue_masks.find_mask(masks, slide) if masks else None
        boxes = find_file(places, slide) if coordinates else None
        _check_once(owners, {"tissue mask": mask, "coordinates": boxes}, slide)
        sources.append(SlideSource(slide, readers[slide], regions, label, owner.patient, owner.split, mpp, mask, boxes))
    rows = {"--patients": patients.owners if patients else {}, "--slide_labels": labels, "--mpp_csv": scales}
    files = {
        "annotation files": _files(annotation_path, formats.suffixes()),
        "tissue masks": _files(masks, tissue_masks.SUFFIXES),
        "files of coordinates": list(places.values()),
    }
    unused = [*_unread_files(slide_path, slides), *_shared_names(slides, rows), *_unmatched_rows(slides, rows)]
    return FoundSlides(tuple(sources), (*unused, *_unmatched_files(files, sources)))


def _check_patients(slides: Sequence[Path], patients: PatientTable | None) -> None:
    """Refuse several slides of which nobody says whose they are.

    Raises:
        DiffpathError: it is so.
    """
    if len(slides) > 1 and not patients:
        raise DiffpathError(
            "patients",
            where="the command line",
            why=f"{len(slides)} slides and no table that says whose they are",
            fix="give a CSV with the columns slide,patient as --patients",
        )


def _check_once(owners: dict[Path, Path], files: Mapping[str, Path | None], slide: Path) -> None:
    """Refuse a file that two slides would share, as ``A.json`` of ``A.svs`` and ``A.tif``.

    Args:
        owners: slide of each file that has one; these are added.
        files: what each file of the slide is, and where it lies.
        slide: the slide.

    Raises:
        DiffpathError: it is another slide's already.
    """
    for what, file in files.items():
        if file and owners.setdefault(file, slide) != slide:
            why, fix = f"it is of {owners[file].name} and of {slide.name}", "name it by the slide's whole file name"
            raise DiffpathError(what, where=file, why=why, fix=fix)


def _files(folder: Path | None, suffixes: Sequence[str]) -> Sequence[Path]:
    return tables.list_files(folder, suffixes) if folder and folder.is_dir() else ()


def find_readers(slide_path: Path) -> dict[Path, ReaderKind]:
    """Returns a slide, or the slides of a folder in the order of their names, with what reads each.

    Of a slide that lies in several files the first stands for all.

    Raises:
        DiffpathError: there is none.
    """
    if not slide_path.exists():
        why, fix = "no such file or directory", "check the path given to --slides"
        raise DiffpathError("slides", where=slide_path, why=why, fix=fix)
    files = sorted(slide_path.iterdir()) if slide_path.is_dir() else [slide_path]
    kinds = {path: registry.kind_of(path) for path in files if not path.name.startswith(".")}
    readers, seen = dict[Path, ReaderKind](), set[str]()
    for path, kind in kinds.items():
        slide = kind.slide_of(path) if kind else None
        if kind and slide not in seen:
            readers[path] = kind
            seen |= {slide} if slide else set()
    if not readers:
        why = f"no file of a known kind ({' '.join(registry.suffixes())})"
        raise DiffpathError("slides", where=slide_path, why=why, fix="check the path given to --slides")
    return readers


def _shared_names(slides: Sequence[Path], rows: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    """Yields notes on rows that stand for two slides, as ``A`` does for ``A.svs`` and ``A.tif``."""
    counts = Counter(name for slide in slides for name in tables.names_of(slide))
    for option, table in rows.items():
        if shared := [name for name in table if counts[name] > 1]:
            yield f"rows of {option} that stand for several slides each: {tables.listed(shared)}"


def _find_regions(
    slides: Sequence[Path], annotation_path: Path | None, labels: Mapping[str, str]
) -> Iterator[tuple[Path | None, str | None]]:
    """Yields for each slide its annotation file, or else its label."""
    if annotation_path is None and not labels:
        fix = "give --annotations, or --slide_labels with the columns slide,class"
        raise DiffpathError("annotations", where="the command line", why="neither regions nor labels", fix=fix)
    if annotation_path and not annotation_path.exists():
        fix = "check the path given to --annotations"
        raise DiffpathError("annotations", where=annotation_path, why="no such file or directory", fix=fix)
    if annotation_path and len(slides) > 1 and not annotation_path.is_dir():
        raise DiffpathError(
            "annotations",
            where=annotation_path,
            why=f"one file for {len(slides)} slides",
            fix="give a folder with one SLIDE.geojson a slide",
        )
    folder = annotation_path if annotation_path and annotation_path.is_dir() else None
    owners: dict[Path, Path] = {}
    for slide in slides:
        regions = annotations.find_file(folder, slide) if folder else annotation_path
        label = tables.lookup(labels, tables.names_of(slide), what="class", where="the table of --slide_labels")
        _check_once(owners, {"annotations": regions}, slide)
        if regions is None and label is None:
            raise DiffpathError(
                "annotations",
                where=folder or "the table of --slide_labels",
                why=f"nothing for {slide.name}",
                fix=f"add {slide.stem} with one of {' '.join(formats.suffixes())}, or a row for it to the table of "
                "--slide_labels",
            )
        yield regions, None if regions else label


def _unread_files(folder: Path, slides: Sequence[Path]) -> Iterator[str]:
    """Yields notes on files beside the slides that are no slides of their own, and on slides in folders below."""
    if not folder.is_dir():
        return
    beside = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    others = [path for path in beside if path.is_file() and path not in slides]
    unknown = [path.name for path in others if not registry.kind_of(path)]
    if parts := [path.name for path in others if registry.kind_of(path)]:
        yield f"files that are read as a part of another one's slide: {tables.listed(parts)}"
    if unknown:
        yield f"files of other formats in {folder} are left out: {tables.listed(unknown)}"
    # The pixels of a slide of some formats lie in a folder of its name.
    own = {slide.stem for slide in slides}
    folders = [path for path in beside if path.is_dir() and path.name not in own]
    below = [path for inner in folders for path in sorted(inner.rglob("*")) if path.is_file()]
    passed_over = [str(path.relative_to(folder)) for path in below if registry.kind_of(path)]
    if passed_over:
        yield f"slides in folders below {folder} are left out: {tables.listed(passed_over)}"


def _unmatched_rows(slides: Sequence[Path], rows: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    """Yields notes on rows of tables that name no slide."""
    known = {name for slide in slides for name in tables.names_of(slide)}
    for option, table in rows.items():
        if unmatched := [name for name in table if name not in known]:
            yield f"rows of {option} that match no slide: {tables.listed(unmatched)}"


def _unmatched_files(found: Mapping[str, Sequence[Path]], sources: Sequence[SlideSource]) -> Iterator[str]:
    """Yields notes on files that belong to slides and match none, of each kind."""
    used = {file for source in sources for file in (source.regions, source.tissue_mask, source.coordinates)}
    for what, files in found.items():
        if unmatched := [file.name for file in files if file not in used]:
            yield f"{what} that match no slide: {tables.listed(unmatched)}"
