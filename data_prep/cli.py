"""``diffpath prep``: slides with annotations, or patches, in; one dataset directory out. Options and their meaning."""

import argparse
import dataclasses
import math
import secrets
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from data_prep.annotations import regions as annotations
from data_prep.annotations import registry as formats
from data_prep.annotations import tissue_masks
from data_prep.annotations.class_map import ClassMap, known_class, read_class_map
from data_prep.fields import caps, quality, tiling
from data_prep.fields import sizes as field_sizes
from data_prep.job import duplicates, job, scheduling
from data_prep.slide import colour, scales, slides
from data_prep.slide.readers import registry
from data_prep.sources import find_slides, image_folder, stored_images, tfds_images
from data_prep.sources.images import ImageBatch, are_generated, table_notes, usual_side
from data_prep.sources.slide import SlideSource
from data_prep.sources.source import PRIVATE, Job, Source
from data_prep.splits import splits
from data_prep.splits.patients import PatientTable, read_patients
from diffpath_jax.io import options
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import new_directory_or_nothing, own_directory, replace_file
from diffpath_jax.io.options import ranged
from diffpath_jax.io.progress import console, track
from diffpath_jax.ranges import Fraction, NonNegativeReal, Positive, PositiveReal, Seed, Share, Side, Workers

KEY_FILE = "hash.key"
# What only slides have.
SLIDE_OPTIONS = (
    *("annotations", "slide_labels", "tissue_masks", "coordinates", "mpp_csv", "fov_um", "read_px", "at_mpp", "preset"),
    *("stride_um", "overlap", "origin_um", "roi_min", "tissue_min", "tissue_fold_max", "gap_um", "block_um"),
    "max_per_slide",
)
ROI_MIN, TISSUE_MIN, FOLD_MAX = 0.75, 0.5, 1.0
LIMITS = quality.QualitySpec(blur_max=0.65, saturation_min=0.03, pen_max=0.1)
# Someone has chosen patches that exist already: they are judged, but rejected only where it is asked for.
NO_LIMITS = quality.QualitySpec(blur_max=1.0, saturation_min=0.0, pen_max=1.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath prep``."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--slides", type=Path, help=f"a slide, or a folder of slides ({' '.join(registry.suffixes())})")
    what.add_argument(
        "--images",
        type=Path,
        help="patches instead: a folder with a folder of images for each class, or for each split with these in it; an "
        ".npz file of arr_0 and arr_1; a folder of a Hugging Face set in Parquet files",
    )
    what.add_argument("--tfds", metavar="NAME", help="patches instead: a TFDS data set (ArrayRecord), or its directory")
    parser.add_argument(
        "--annotations",
        type=Path,
        help=f"{formats.names()}: one file, or a folder of SLIDE with one of {' '.join(formats.suffixes())}",
    )
    parser.add_argument(
        "--slide_labels", type=Path, help="CSV with the columns slide,class: for slides without an annotation file"
    )
    parser.add_argument(
        "--tissue_masks",
        type=Path,
        help=f"folder of SLIDE with one of {' '.join(tissue_masks.SUFFIXES)}: where tissue is, instead of an estimate",
    )
    parser.add_argument(
        "--coordinates",
        type=Path,
        help="where fields of view are, instead of a grid: an HDF5 file of CLAM, TRIDENT or AtlasPatch, or a folder of "
        "SLIDE.h5",
    )
    parser.add_argument(
        "--classes", type=Path, help="class map (JSON): used, ignored and excluded classes, overlaps (default: use all)"
    )
    parser.add_argument("--out", required=True, type=Path, help="dataset directory to write")
    parser.add_argument("--name", type=options.name, default="patches", help="dataset name (default: %(default)s)")
    parser.add_argument(
        "--patients",
        type=Path,
        help="CSV with the columns slide,patient or image,patient, and perhaps split; or image,split",
    )
    parser.add_argument("--mpp_csv", type=Path, help="CSV with the columns slide,mpp: um per level-0 pixel")
    _add_field_arguments(parser)
    _add_limit_arguments(parser)
    parser.add_argument("--fractions", help="shares of train, val, test (default: 0.7,0.1,0.2)")
    parser.add_argument(
        "--folds", type=ranged(splits.FoldCount), default=0, help="folds for cross-validation, instead of --fractions"
    )
    text = "of one patient's slide: blocks of this side in um stand in for patients, so that there are some at toy size"
    parser.add_argument("--block_um", type=ranged(PositiveReal), help=text)
    parser.add_argument(
        "--gap_um", type=ranged(NonNegativeReal), help="gap of a spatial split in um (default: the field of view)"
    )
    parser.add_argument("--seed", type=ranged(Seed), default=0, help="seed of the split and of the caps")
    parser.add_argument("--key_file", type=Path, help="secret for slide and patient hashes (default: made once)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--workers",
        type=ranged(Workers),
        default=scheduling.usable_cores(),
        help="processes on this machine; 0: work in this one (default: its cores, here %(default)s)",
    )
    where.add_argument(
        "--scheduler", metavar="ADDRESS", help="run on this Dask cluster instead; local:N starts one of N workers"
    )


def _add_field_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the size of fields, of their places, and of how many are kept."""
    parser.add_argument("--fov_um", type=ranged(PositiveReal), help="side of a field of view in um")
    parser.add_argument(
        "--read_px", type=ranged(PositiveReal), help="side of a field of view in px of --at_mpp, instead of --fov_um"
    )
    parser.add_argument("--at_mpp", type=ranged(PositiveReal), help="um per px of --read_px")
    parser.add_argument("--patch_px", type=ranged(Side), help="side of the stored image in px")
    parser.add_argument(
        "--mpp", type=ranged(PositiveReal), help="um per px of the stored image; that of the files for patches"
    )
    parser.add_argument(
        "--preset",
        choices=list(field_sizes.PRESETS),
        help="a reading of the paper's fields of view, instead of the five above (docs/SLIDES.md, docs/DEVIATIONS.md)",
    )
    parser.add_argument(
        "--stride_um", type=ranged(PositiveReal), help="step of the grid in um (default: the field of view)"
    )
    parser.add_argument(
        "--overlap", type=ranged(Share), help="share that neighbours have in common, instead of --stride_um"
    )
    parser.add_argument(
        "--origin_um", metavar="X,Y", help="where a field begins, in um from the slide's corner (default: 0,0)"
    )
    parser.add_argument(
        "--max_per_slide",
        type=ranged(Positive),
        help="most fields of each class from one slide, drawn among those that pass",
    )
    parser.add_argument(
        "--max_per_class", type=ranged(Positive), help="most fields of each class in all, before duplicates are dropped"
    )


def _add_limit_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the limits that a field and its image must keep."""
    for name, what, default in (
        ("--roi_min", "least share of a field in its class's regions", ROI_MIN),
        ("--tissue_min", "least share of tissue in a field", TISSUE_MIN),
        ("--tissue_fold_max", "most of a field in folds of the tissue, as a share; 1 does not look for them", FOLD_MAX),
        ("--blur_max", "most blur of a stored image, from 0 (sharp) to 1", LIMITS.blur_max),
        ("--saturation_min", "least saturation of a stored image; 0 with --stain other", LIMITS.saturation_min),
        ("--pen_max", "most ink in a stored image, as a share", LIMITS.pen_max),
    ):
        less = "" if name.removeprefix("--") in SLIDE_OPTIONS else "; no limit for patches"
        parser.add_argument(name, type=ranged(Fraction), help=f"{what} (default: {default}{less})")
    parser.add_argument(
        "--stain",
        choices=list(colour.STAINS),
        default=colour.HE,
        help="what colours tissue has, and what is a pen's ink: haematoxylin and eosin (PAS, Congo red too); brown "
        "diaminobenzidine with haematoxylin; any other (trichrome, Alcian blue, silver), where no colour is taken for "
        "ink, and what has no texture is no tissue (default: %(default)s)",
    )
    parser.add_argument(
        "--duplicates",
        choices=duplicates.RULES,
        default=duplicates.RULES[0],
        help="images that are there twice are listed, or all but the first left out (default: %(default)s)",
    )


def main(arguments: argparse.Namespace) -> ExitCode:
    """Run ``diffpath prep``.

    Returns:
        ``OK``, or ``PARTIAL`` when some slides failed and the others are done.

    Raises:
        DiffpathError: bad input; nothing is left behind.
    """
    # Workers may start in another directory.
    out = arguments.out.absolute()
    with new_directory_or_nothing(out):
        settings, sources = _check(arguments)
        with own_directory(out), _scheduler(arguments, len(sources)) as scheduler:
            return job.run(Job(out=out, **settings, key=_secret(arguments.key_file, out)), sources, scheduler)


def _scheduler(arguments: argparse.Namespace, count: int) -> AbstractContextManager[scheduling.Scheduler]:
    """Returns the scheduler on which ``count`` slides are prepared."""
    return scheduling.choose(workers=min(arguments.workers, count), cluster=arguments.scheduler)


def _check(arguments: argparse.Namespace) -> tuple[dict[str, Any], tuple[Source, ...]]:
    """Read and check everything but the slides or images themselves: settings of the job, and its sources."""
    spec = _split_spec(arguments)
    column = "slide" if arguments.slides else "image"
    table = read_patients(arguments.patients, column=column, splits=spec.names) if arguments.patients else None
    sources: tuple[Source, ...]
    if arguments.slides:
        fields = _fields(arguments)
        sources, class_map = _slides(arguments, table)
        generated = False
    else:
        batches, class_map = _patches(arguments, table)
        sources, fields, generated = batches, _patch_fields(arguments, batches), are_generated(batches)
    gap_um = fields.fov_um if arguments.gap_um is None else arguments.gap_um
    _check_split(arguments, spec, sources)
    settings = {
        "name": arguments.name,
        "class_map": class_map,
        "fields": fields,
        "caps": caps.check_caps(caps.CapSpec(arguments.max_per_slide, arguments.max_per_class)),
        "split": dataclasses.replace(spec, gap_um=gap_um),
        "quality": _limits(arguments, LIMITS if arguments.slides else NO_LIMITS),
        "duplicates": arguments.duplicates,
        "stain": arguments.stain,
        "fold_max": FOLD_MAX if arguments.tissue_fold_max is None else arguments.tissue_fold_max,
        "block_um": _block_um(arguments, sources),
        "generated": generated,
    }
    return settings, sources


def _block_um(arguments: argparse.Namespace, sources: Sequence[Source]) -> float:
    """Returns the side of the blocks that stand in for patients; 0 for none.

    Raises:
        DiffpathError: it is no length, or there are patients.
    """
    if arguments.block_um is None:
        return 0.0
    if not 0 < arguments.block_um < math.inf:
        why = f"{arguments.block_um} is no length in um"
        raise DiffpathError("--block_um", where="the command line", why=why, fix="give a number above 0")
    if len({source.patient for source in sources if isinstance(source, SlideSource)}) > 1:
        why = "there are several patients, and none of them needs a stand-in"
        raise DiffpathError("--block_um", where="the command line", why=why, fix="leave it out")
    return arguments.block_um


def _limits(arguments: argparse.Namespace, default: quality.QualitySpec) -> quality.QualitySpec:
    if colour.STAINS[arguments.stain].is_grey:
        default = dataclasses.replace(default, saturation_min=0.0)
    options = {name: getattr(arguments, name) for name in dataclasses.asdict(default)}
    return quality.check_spec(
        dataclasses.replace(default, **{name: value for name, value in options.items() if value is not None})
    )


def _split_spec(arguments: argparse.Namespace) -> splits.SplitSpec:
    folds = splits.check_folds(arguments.folds)
    fractions = list(splits.DEFAULT_FRACTIONS)
    if arguments.fractions is not None:
        if folds:
            fix = "give one of them"
            raise DiffpathError("--folds", where="the command line", why="--fractions is given too", fix=fix)
        try:
            fractions = [float(text) for text in arguments.fractions.split(",")]
        except ValueError:
            fractions = []
    return splits.SplitSpec(splits.check_fractions(fractions), gap_um=0.0, seed=arguments.seed, folds=folds)


def _check_split(arguments: argparse.Namespace, spec: splits.SplitSpec, sources: Sequence[Source]) -> None:
    """Refuse, before anything is read, what cannot be split as it should be."""
    if any(source.split for source in sources):
        if arguments.fractions is not None:
            why, fix = "the splits are given already", "leave it out, or the column split in the table of --patients"
            raise DiffpathError("--fractions", where="the command line", why=why, fix=fix)
        return
    patients = {source.patient for source in sources if isinstance(source, SlideSource)}
    if len(patients) > 1 or (patients and spec.folds):
        splits.check_enough(len(patients), spec)


def _slides(arguments: argparse.Namespace, table: PatientTable | None) -> tuple[tuple[SlideSource, ...], ClassMap]:
    """The slides, and the classes of their regions and labels."""
    cohort = find_slides.find_sources(
        arguments.slides.absolute(),
        arguments.annotations.absolute() if arguments.annotations else None,
        patients=table,
        slide_labels=arguments.slide_labels,
        scales=slides.read_scale_table(arguments.mpp_csv) if arguments.mpp_csv else {},
        masks=arguments.tissue_masks.absolute() if arguments.tissue_masks else None,
        coordinates=arguments.coordinates.absolute() if arguments.coordinates else None,
    )
    _print_notes(cohort.notes)
    if arguments.classes:
        return cohort.sources, read_class_map(arguments.classes)
    regions = [source.regions for source in cohort.sources if source.regions]
    labels = [source.label for source in cohort.sources if source.label]
    with track("annotations", total=len(regions), unit="files") as progress:
        return cohort.sources, annotations.all_classes(progress.each(regions), slide_labels=labels)


def _patches(arguments: argparse.Namespace, table: PatientTable | None) -> tuple[tuple[ImageBatch, ...], ClassMap]:
    """The images of a folder, a file of many or a TFDS data set, and their classes."""
    if of_slides := [name for name in SLIDE_OPTIONS if getattr(arguments, name) is not None]:
        why = "it says how slides are read, and patches are not cut from one"
        raise DiffpathError(f"--{of_slides[0]}", where="the command line", why=why, fix="leave it out")
    mpp = _mpp_of_patches(arguments.mpp)
    anew = arguments.fractions is not None or bool(arguments.folds)
    if arguments.images:
        path = arguments.images.absolute()
        kind = stored_images.kind_of(path)
        find = partial(stored_images.find_batches, kind) if kind else image_folder.find_batches
        batches = find(path, table, mpp=mpp, keep_splits=not anew)
        _print_notes([] if kind else image_folder.notes(path, batches))
        _print_notes(table_notes(table, batches) if table else [])
    elif table:
        why, fix = "a TFDS data set names no files", f"leave it out; its feature {tfds_images.PATIENT!r} is used"
        raise DiffpathError("--patients", where="the command line", why=why, fix=fix)
    else:
        batches = tfds_images.find_batches(arguments.tfds, mpp=mpp, keep_splits=not anew)
    labels = sorted({label for batch in batches for label in batch.images.labels})
    if not arguments.classes:
        return batches, annotations.all_classes([], slide_labels=labels)
    class_map = read_class_map(arguments.classes)
    for label in labels:
        known_class(label, arguments.images or arguments.tfds, class_map)
    return batches, class_map


def _print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)


def _mpp_of_patches(mpp: float | None) -> float:
    low, high = scales.PLAUSIBLE_MPP
    if mpp is None or not low <= mpp <= high:
        why = "image files do not state it" if mpp is None else f"{mpp} is not from {low} to {high}"
        raise DiffpathError("um/px", where="--mpp", why=why, fix="state the um per px of the files, e.g. --mpp 0.5")
    return mpp


def _patch_fields(arguments: argparse.Namespace, batches: Sequence[ImageBatch]) -> tiling.FieldSpec:
    """The field of view that every image shows.

    Raises:
        DiffpathError: it would be enlarged.
    """
    side = usual_side(batches)
    if arguments.patch_px is not None and arguments.patch_px > side:
        why = f"images of {side} px would be enlarged to {arguments.patch_px}"
        raise DiffpathError("--patch_px", where="the command line", why=why, fix=f"give {side} or less")
    patch_px = side if arguments.patch_px is None else arguments.patch_px
    fov_um = side * arguments.mpp
    size = field_sizes.FieldSize(fov_um, patch_px, fov_um / patch_px)
    return tiling.field_spec(size, stride_um=fov_um, origin_um=(0.0, 0.0), roi_min=0.0, tissue_min=0.0)


def _fields(arguments: argparse.Namespace) -> tiling.FieldSpec:
    """Size and grid of the fields of view.

    Raises:
        DiffpathError: an option that cannot be, or one of the grid where there is none.
    """
    of_grid = [name for name in ("stride_um", "overlap", "origin_um") if getattr(arguments, name) is not None]
    if arguments.coordinates and of_grid:
        why = "it is of the grid, and --coordinates say where fields are"
        raise DiffpathError(f"--{of_grid[0]}", where="the command line", why=why, fix="leave one of the two out")
    options = {name: getattr(arguments, name) for name in ("fov_um", "read_px", "at_mpp", "patch_px", "mpp")}
    size = field_sizes.from_options(field_sizes.of_preset(arguments.preset, options) if arguments.preset else options)
    return tiling.field_spec(
        size,
        stride_um=field_sizes.stride(size.fov_um, stride_um=arguments.stride_um, overlap=arguments.overlap),
        origin_um=field_sizes.read_origin("0,0" if arguments.origin_um is None else arguments.origin_um),
        roi_min=ROI_MIN if arguments.roi_min is None else arguments.roi_min,
        tissue_min=TISSUE_MIN if arguments.tissue_min is None else arguments.tissue_min,
    )


def _secret(path: Path | None, out: Path) -> bytes:
    """The hash key: the user's own file, or one made once and kept in the dataset's private folder."""
    own = out / PRIVATE / KEY_FILE
    if path is None and not own.exists():
        with replace_file(own) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(secrets.token_hex(32))
    try:
        key = (path or own).read_bytes().strip()
    except OSError as error:
        raise DiffpathError(
            "hash key", where=path or own, why=f"cannot be read ({error.strerror})", fix="check --key_file"
        ) from error
    if not key:
        fix = "put a long random text into it: whoever has it can tell slides from their hashes"
        raise DiffpathError("hash key", where=path or own, why="it is empty, and no secret", fix=fix)
    return key
