"""``diffpath prep``: slides and annotations in, one dataset directory out. Options, and what they mean for a job."""

import argparse
import secrets
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from data_prep import annotations, job, quality, repeats, scheduling, slides, sources, splits, tiling
from data_prep.unit import PRIVATE, Job, Source
from diffpath_jax.errors import DiffpathError, ExitCode
from diffpath_jax.files import new_directory_or_nothing, own_directory, replace_file

KEY_FILE = "hash.key"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath prep``."""
    parser.add_argument("--slides", required=True, type=Path, help="a slide, or a folder of slides")
    parser.add_argument(
        "--annotations",
        type=Path,
        help="QuPath GeoJSON, ASAP XML or ImageScope XML: one file, or a folder of SLIDE.geojson, .json or .xml",
    )
    parser.add_argument(
        "--slide_labels", type=Path, help="CSV with the columns slide,class: for slides without an annotation file"
    )
    parser.add_argument(
        "--classes", type=Path, help="class map (JSON): used and ignored classes, overlaps (default: use all)"
    )
    parser.add_argument("--out", required=True, type=Path, help="dataset directory to write")
    parser.add_argument("--name", default="patches", help="dataset name (default: %(default)s)")
    parser.add_argument("--patients", type=Path, help="CSV with the columns slide,patient")
    parser.add_argument("--mpp_csv", type=Path, help="CSV with the columns slide,mpp: um per level-0 pixel")
    parser.add_argument("--fov_um", type=float, help="side of a field of view in um")
    parser.add_argument("--patch_px", type=int, help="side of the stored image in px")
    parser.add_argument("--mpp", type=float, help="um per px of the stored image")
    parser.add_argument("--stride_um", type=float, help="step of the grid in um (default: the field of view)")
    parser.add_argument("--roi_min", type=float, default=0.75, help="least share of a field in its class's regions")
    parser.add_argument("--tissue_min", type=float, default=0.5, help="least share of tissue in a field")
    parser.add_argument(
        "--blur_max",
        type=float,
        default=0.65,
        help="most blur of a stored image, 0 (sharp) to 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--saturation_min", type=float, default=0.03, help="least saturation of a stored image (default: %(default)s)"
    )
    parser.add_argument(
        "--pen_max", type=float, default=0.1, help="most ink in a stored image, as a share (default: %(default)s)"
    )
    parser.add_argument(
        "--duplicates",
        choices=repeats.RULES,
        default=repeats.RULES[0],
        help="images that are there twice are listed, or all but the first left out (default: %(default)s)",
    )
    parser.add_argument("--fractions", default="0.7,0.1,0.2", help="shares of train, val, test")
    parser.add_argument("--gap_um", type=float, help="gap of a spatial split in um (default: the field of view)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split")
    parser.add_argument("--key_file", type=Path, help="secret for slide and patient hashes (default: made once)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--workers",
        type=int,
        default=scheduling.usable_cores(),
        help="processes on this machine; 0: work in this one (default: its cores, here %(default)s)",
    )
    where.add_argument(
        "--scheduler", metavar="ADDRESS", help="run on this Dask cluster instead; local:N starts one of N workers"
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
        settings, found = _check(arguments)
        with own_directory(out), _scheduler(arguments, len(found)) as scheduler:
            return job.run(Job(out=out, **settings, key=_secret(arguments.key_file, out)), found, scheduler)


def _scheduler(arguments: argparse.Namespace, count: int) -> AbstractContextManager[scheduling.Scheduler]:
    """Where ``count`` slides are prepared."""
    if arguments.workers < 0:
        raise DiffpathError("--workers", where="the command line", why="less than 0", fix="give 0 or more")
    return scheduling.choose(workers=min(arguments.workers, count), cluster=arguments.scheduler)


def _check(arguments: argparse.Namespace) -> tuple[dict[str, Any], tuple[Source, ...]]:
    """Read and check everything but the slides themselves: settings of the job, and its slides."""
    fields = tiling.field_spec(
        fov_um=arguments.fov_um,
        patch_px=arguments.patch_px,
        mpp=arguments.mpp,
        stride_um=arguments.stride_um,
        roi_min=arguments.roi_min,
        tissue_min=arguments.tissue_min,
    )
    found = sources.find_sources(
        arguments.slides.absolute(),
        arguments.annotations.absolute() if arguments.annotations else None,
        patients=arguments.patients,
        slide_labels=arguments.slide_labels,
        scales=slides.read_scale_table(arguments.mpp_csv) if arguments.mpp_csv else {},
    )
    try:
        fractions = [float(text) for text in arguments.fractions.split(",")]
    except ValueError:
        fractions = []
    if not arguments.name.replace("_", "").isalnum():
        raise DiffpathError("--name", where="the command line", why="letters, digits and _ only", fix="rename it")
    settings = {
        "name": arguments.name,
        "class_map": (
            annotations.read_class_map(arguments.classes)
            if arguments.classes
            else annotations.all_classes(
                [source.regions for source in found if source.regions],
                slide_labels=[source.label for source in found if source.label],
            )
        ),
        "fields": fields,
        "split": splits.SplitSpec(
            fractions=splits.check_fractions(fractions),
            gap_um=fields.fov_um if arguments.gap_um is None else arguments.gap_um,
            seed=arguments.seed,
        ),
        "quality": quality.check_spec(
            quality.QualitySpec(
                blur_max=arguments.blur_max, saturation_min=arguments.saturation_min, pen_max=arguments.pen_max
            )
        ),
        "duplicates": arguments.duplicates,
    }
    return settings, found


def _secret(path: Path | None, out: Path) -> bytes:
    """The hash key: the user's own file, or one made once and kept in the dataset's private folder."""
    own = out / PRIVATE / KEY_FILE
    if path is None and not own.exists():
        with replace_file(own) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(secrets.token_hex(32))
    try:
        return (path or own).read_bytes().strip()
    except OSError as error:
        raise DiffpathError(
            "hash key", where=path or own, why=f"cannot be read ({error.strerror})", fix="check --key_file"
        ) from error
