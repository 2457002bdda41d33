"""Which slides a job has: each with its annotations or its label, and whose it is."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from data_prep import tables
from data_prep.annotations import regions as annotations
from data_prep.annotations import registry as formats
from data_prep.slide.readers import registry
from data_prep.slide.readers.registry import ReaderKind
from data_prep.sources.slide import SlideSource
from data_prep.splits.patients import Owner, PatientTable
from diffpath_jax.io.errors import DiffpathError


def find_sources(
    slide_path: Path,
    annotation_path: Path | None,
    *,
    patients: PatientTable | None,
    slide_labels: Path | None,
    scales: Mapping[str, float],
) -> tuple[SlideSource, ...]:
    """Pair slides with annotations or labels, with patients, and with um/px that they do not state themselves.

    Raises:
        DiffpathError: no slide, a slide without annotations and label, or several slides without a patient table.
    """
    readers = _find_readers(slide_path)
    found = list(readers)
    if len(found) > 1 and not patients:
        raise DiffpathError(
            "patients",
            where="the command line",
            why=f"{len(found)} slides and no table that says whose they are",
            fix="give a CSV with the columns slide,patient as --patients",
        )
    labels = tables.read_table(slide_labels, columns=("slide", "class")) if slide_labels else {}
    sources = []
    for slide, (regions, label) in zip(found, _find_regions(found, annotation_path, labels), strict=True):
        owner = patients.owner(slide.name, (slide.name, slide.stem)) if patients else Owner(slide.stem, None)
        mpp = scales.get(slide.name, scales.get(slide.stem))
        sources.append(SlideSource(slide, readers[slide], regions, label, owner.patient, owner.split, mpp))
    return tuple(sources)


def _find_readers(slide_path: Path) -> dict[Path, ReaderKind]:
    """Returns a slide, or the slides of a folder in the order of their names, with what reads each.

    Raises:
        DiffpathError: there is none.
    """
    if not slide_path.exists():
        why, fix = "no such file or directory", "check the path given to --slides"
        raise DiffpathError("slides", where=slide_path, why=why, fix=fix)
    files = sorted(slide_path.iterdir()) if slide_path.is_dir() else [slide_path]
    kinds = {path: registry.kind_of(path) for path in files if not path.name.startswith(".")}
    readers = {path: kind for path, kind in kinds.items() if kind}
    if not readers:
        why = f"no file of a known kind ({' '.join(registry.suffixes())})"
        raise DiffpathError("slides", where=slide_path, why=why, fix="check the path given to --slides")
    return readers


def _find_regions(
    found: Sequence[Path], annotation_path: Path | None, labels: Mapping[str, str]
) -> Iterator[tuple[Path | None, str | None]]:
    """For each slide its annotation file, or else its label."""
    if annotation_path is None and not labels:
        fix = "give --annotations, or --slide_labels with the columns slide,class"
        raise DiffpathError("annotations", where="the command line", why="neither regions nor labels", fix=fix)
    if annotation_path and not annotation_path.exists():
        fix = "check the path given to --annotations"
        raise DiffpathError("annotations", where=annotation_path, why="no such file or directory", fix=fix)
    if annotation_path and len(found) > 1 and not annotation_path.is_dir():
        raise DiffpathError(
            "annotations",
            where=annotation_path,
            why=f"one file for {len(found)} slides",
            fix="give a folder with one SLIDE.geojson a slide",
        )
    for slide in found:
        folder = annotation_path if annotation_path and annotation_path.is_dir() else None
        regions = annotations.find_file(folder, slide) if folder else annotation_path
        label = labels.get(slide.name, labels.get(slide.stem))
        if regions is None and label is None:
            raise DiffpathError(
                "annotations",
                where=folder or "the table of --slide_labels",
                why=f"nothing for {slide.name}",
                fix=f"add {slide.stem}{formats.suffixes()[0]}, or a row for it to the table of --slide_labels",
            )
        yield regions, None if regions else label
