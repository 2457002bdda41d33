"""Options of ``diffpath sample`` for images larger than those of training: windows, a map of classes, TIFF files."""

import argparse
from pathlib import Path

from diffpath_jax.config import size_checks
from diffpath_jax.data import marking
from diffpath_jax.data.manifest import Dataset
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.options import ranged
from diffpath_jax.ranges import Side
from diffpath_jax.render.pyramid import write_pyramid
from diffpath_jax.runs import run as runs
from diffpath_jax.sampling.field import FieldOptions, read_class_map


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """Options that cover an image with windows, and write it as a slide."""
    text = "cover each image with windows of this side, --batch_size at once, and draw images one by one"
    parser.add_argument("--window_px", type=ranged(Side), help=text)
    text = "most pixels from one window to the next (default: half of --window_px)"
    parser.add_argument("--window_stride_px", type=ranged(Side), help=text)
    text = "image of any size whose grey values are numbers of classes, for the windows there; 255: the image's own"
    parser.add_argument("--class_map", type=Path, metavar="FILE", help=text)
    parser.add_argument("--tiff", action="store_true", help="write every image as a pyramidal TIFF file too")


def field(arguments: argparse.Namespace, run: runs.DiffusionModelRun, image_px: tuple[int, int]) -> FieldOptions | None:
    """Returns how images are covered with windows; none where the network sees them whole.

    Raises:
        DiffpathError: a side or a stride that does not fit, or a map of other classes.
    """
    if arguments.window_px is None:
        for option in ("window_stride_px", "class_map"):
            if getattr(arguments, option) is not None:
                raise _unfit(option, "there are no windows", "add --window_px")
        fix = "choose a multiple of it with --patch_px"
        size_checks.check_image_size(run.config, image_px, first_stage=run.latents, where="the command line", fix=fix)
        return None
    side, stride = arguments.window_px, arguments.window_stride_px or max(1, arguments.window_px // 2)
    factor = run.latents.network.factor if run.latents else 1
    if side > min(image_px):
        raise _unfit("window_px", f"{side} px are more than the {min(image_px)} of an image", "lower it")
    if stride > side:
        raise _unfit("window_stride_px", f"{stride} px leave gaps between windows of {side}", "lower it")
    if any(px % factor for px in image_px):
        raise _unfit("patch_px", f"{image_px[1]} px are no multiple of {factor}, as latents need", "change it")
    fix = "choose a multiple of it with --window_px"
    size_checks.check_image_size(run.config, (side, side), first_stage=run.latents, where="the command line", fix=fix)
    classes = read_class_map(arguments.class_map, len(run.classes)) if arguments.class_map else None
    return FieldOptions(side, stride, arguments.batch_size, classes)


def _unfit(option: str, why: str, fix: str) -> DiffpathError:
    return DiffpathError(f"--{option}", where="the command line", why=why, fix=fix)


def write_slides(dataset: Dataset, split: str) -> None:
    """Write the images of a set as slides that say what they are."""
    for record in dataset.read(split):
        name = dataset.schema.classes[record.label]
        about = "; ".join(f"{keyword}: {text}" for keyword, text in marking.about(record.slide).items())
        words = f"{name}, image {record.index} of {dataset.name}; {about}"
        path = dataset.directory / "tiff" / name / f"{record.index:07d}.tiff"
        write_pyramid(path, record.image, mpp=record.mpp, words=words)
