"""Options of ``diffpath sample`` that name images: to start from instead of noise, or to be like."""

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from diffpath_jax.commands.sample_counts import as_options
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.options import ranged
from diffpath_jax.ranges import AtLeastTwo
from diffpath_jax.runs import run as runs
from diffpath_jax.sampling.likes import Likes, open_likes
from diffpath_jax.sampling.references import refer
from diffpath_jax.sampling.starts import Starts, open_starts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that name images and what becomes of them."""
    start = parser.add_argument_group("images to start from")
    text = "data set of images to start from, by class: variations with --start_level, repair with --inpaint"
    start.add_argument("--start", type=Path, metavar="DATASET", help=text)
    start.add_argument("--start_split", default="test", help="of --start (default: %(default)s)")
    text = "images of the size of --start: white is painted anew, black stays to the bit; taken in turn"
    start.add_argument("--inpaint", type=Path, nargs="+", metavar="MASK", default=[], help=text)
    text = "images from each one of --start to the next of its class, in even steps from the same noise"
    start.add_argument("--between", type=ranged(AtLeastTwo), metavar="N", help=text)
    like = parser.add_argument_group("images to be like, for a model that is told features")
    text = "data set of `diffpath encode --features`: each sample is told the features of one of its images, by class"
    like.add_argument("--like", type=Path, metavar="DATASET", help=text)
    like.add_argument("--like_split", default="test", help="of --like (default: %(default)s)")
    text = "features of no image: drawn from the normal distribution of those of each class in --like"
    like.add_argument("--like_drawn", action="store_true", help=text)
    text = "let --start or --like be images that the model was trained on, which every record and page then says"
    like.add_argument("--allow_training_references", action="store_true", help=text)


def check(arguments: argparse.Namespace) -> None:
    """Refuse options that need images where none are named.

    Raises:
        DiffpathError: naming the option.
    """
    start, like = arguments.start is not None, arguments.like is not None
    for option, there, fix in (
        ("inpaint", start, "add --start"),
        ("between", start, "add --start"),
        ("like_drawn", like, "add --like"),
        ("allow_training_references", start or like, "add --start or --like"),
    ):
        if getattr(arguments, option) and not there:
            why = "there is no image to be like" if fix == "add --like" else "there is no image to start from"
            raise DiffpathError(f"--{option}", where="the command line", why=why, fix=fix)


def starts(
    arguments: argparse.Namespace, run: runs.Run, *, counts: Sequence[int], image_px: tuple[int, int], mpp: float
) -> Starts | None:
    """Returns the images to start from, of the size and the um/px that are drawn; none where no data set is named.

    Raises:
        DiffpathError: it does not fit, or is what the model was trained on (exit code 4).
    """
    if arguments.start is None:
        return None
    with _as_options():
        dataset = open_dataset(arguments.start)
        references = refer(
            dataset,
            arguments.start_split,
            run,
            option="start",
            counts=counts,
            least=2 if arguments.between else 1,
            seed=arguments.seed,
            allow_training=arguments.allow_training_references,
        )
        between, masks = arguments.between or 0, arguments.inpaint
        return open_starts(references, dataset, image_px=image_px, mpp=mpp, between=between, masks=masks)


def likes(arguments: argparse.Namespace, run: runs.Run, *, counts: Sequence[int]) -> Likes | None:
    """Returns the images that samples are to be like; none where no data set is named.

    Raises:
        DiffpathError: the model or the data set has no features, or those of another encoder; or the model was trained
            on the images (exit code 4).
    """
    if arguments.like is None:
        return None
    with _as_options():
        return open_likes(
            open_dataset(arguments.like),
            arguments.like_split,
            run,
            counts=counts,
            seed=arguments.seed,
            drawn=arguments.like_drawn,
            allow_training=arguments.allow_training_references,
        )


@contextlib.contextmanager
def _as_options() -> Iterator[None]:
    """Errors whose remedy names parameters of the library name options instead."""
    try:
        yield
    except DiffpathError as error:
        fix = as_options(error.fix)
        raise DiffpathError(error.what, where=error.where, why=error.why, fix=fix, code=error.code) from error
