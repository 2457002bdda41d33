"""Options of ``diffpath sample`` that start from images instead of noise, and keep parts of them."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from diffpath_jax.commands.sample_counts import as_options
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.options import ranged
from diffpath_jax.ranges import AtLeastTwo
from diffpath_jax.runs import run as runs
from diffpath_jax.sampling.starts import Starts, open_starts


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """Options that name images and what becomes of them."""
    text = "data set of images to start from, by class: variations with --start_level, repair with --inpaint"
    parser.add_argument("--start", type=Path, metavar="DATASET", help=text)
    parser.add_argument("--start_split", default="test", help="of --start (default: %(default)s)")
    text = "images of the size of --start: white is painted anew, black stays to the bit; taken in turn"
    parser.add_argument("--inpaint", type=Path, nargs="+", metavar="MASK", default=[], help=text)
    text = "images from each one of --start to the next of its class, in even steps from the same noise"
    parser.add_argument("--between", type=ranged(AtLeastTwo), metavar="N", help=text)
    text = "let --start be images that the model was trained on, which every record and page then says"
    parser.add_argument("--allow_training_references", action="store_true", help=text)


def starts(
    arguments: argparse.Namespace, run: runs.Run, *, counts: Sequence[int], image_px: tuple[int, int], mpp: float
) -> Starts | None:
    """Returns the images to start from, of the size and the um/px that are drawn; none where no data set is named.

    Raises:
        DiffpathError: it does not fit, or is what the model was trained on (exit code 4).
    """
    if arguments.start is None:
        for option in ("inpaint", "between", "allow_training_references"):
            if getattr(arguments, option):
                why, fix = "there is no image to start from", "add --start"
                raise DiffpathError(f"--{option}", where="the command line", why=why, fix=fix)
        return None
    try:
        return open_starts(
            arguments.start,
            arguments.start_split,
            run,
            counts=counts,
            image_px=image_px,
            mpp=mpp,
            seed=arguments.seed,
            between=arguments.between or 0,
            masks=arguments.inpaint,
            allow_training=arguments.allow_training_references,
        )
    except DiffpathError as error:
        fix = as_options(error.fix)
        raise DiffpathError(error.what, where=error.where, why=error.why, fix=fix, code=error.code) from error
