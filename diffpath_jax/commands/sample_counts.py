"""Numbers of images that ``diffpath sample`` and ``diffpath eval`` are asked for; errors in the words of options."""

import argparse
import contextlib
import math
import re
from collections.abc import Iterator
from pathlib import Path

from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.data.pipeline import TRAIN
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.runs import run as runs
from diffpath_jax.sampling.draw import check_classes

MAX_IMAGES = 10_000_000


def check_batch_size(batch_size: int) -> None:
    """Refuse a number of images that no device draws at once.

    Raises:
        DiffpathError: it is out of range.
    """
    if not 0 < batch_size <= MAX_IMAGES:
        why = f"{batch_size} is not from 1 to {MAX_IMAGES}"
        raise DiffpathError("--batch_size", where="the command line", why=why, fix="change it")


@contextlib.contextmanager
def by_option() -> Iterator[None]:
    """Errors that name parameters of the library name the options of this command instead."""
    try:
        yield
    except DiffpathError as error:
        why, fix = as_options(error.why), as_options(error.fix)
        raise DiffpathError(f"--{error.what}", where="the command line", why=why, fix=fix) from error


def as_options(text: str) -> str:
    """Returns words of the library with parameters in backquotes as options instead."""
    return re.sub(r"`(\w+)`", r"--\1", text)


def counts(arguments: argparse.Namespace, run: runs.Run) -> tuple[int, ...]:
    """Returns how many images of each class are drawn, as the one of the options that was given says.

    Raises:
        DiffpathError: no number from 1 on, an unknown class, or a data set of other classes.
    """
    if arguments.num_per_class is not None:
        if arguments.less or arguments.times != 1.0:
            fix = "leave --times and --less out, or give --counts_of"
            raise DiffpathError("--num_per_class", where="the command line", why="it is a number already", fix=fix)
        return stated_counts(arguments.num_per_class, run)
    there = _training_counts(arguments.counts_of, run)
    less = _training_counts(arguments.less, run) if arguments.less else (0,) * len(there)
    wanted = tuple(max(math.ceil(arguments.times * count) - own, 0) for count, own in zip(there, less, strict=True))
    if not 0 < sum(wanted) <= MAX_IMAGES:
        why, fix = f"that makes {sum(wanted)} images", f"change --times or --less so that 1 to {MAX_IMAGES} are drawn"
        raise DiffpathError("--counts_of", where=arguments.counts_of, why=why, fix=fix)
    return wanted


def _training_counts(path: Path, run: runs.Run) -> tuple[int, ...]:
    """Training images of each of the run's classes in a data set."""
    counts = open_dataset(path, verify=False).class_counts.get(TRAIN, {})
    if unknown := sorted(set(counts) - set(run.classes)):
        why, fix = f"{unknown} are not among {list(run.classes)}", "name a data set of the model's classes"
        raise DiffpathError("classes", where=path, why=why, fix=fix)
    return tuple(counts.get(name, 0) for name in run.classes)


def stated_counts(text: str, run: runs.Run) -> tuple[int, ...]:
    """Images of each class: ``N``, or ``CLASS=N,CLASS=N`` for some of them.

    Raises:
        DiffpathError: an unknown class, or no number from 1 on.
    """

    def number(word: str) -> int:
        if not word.isdecimal() or not 0 < int(word) <= MAX_IMAGES:
            why = f"{word!r} is not from 1 to {MAX_IMAGES}"
            raise DiffpathError("--num_per_class", where="the command line", why=why, fix="change it")
        return int(word)

    if "=" not in text:
        return (number(text),) * len(run.classes)
    wanted = dict(part.rpartition("=")[::2] for part in text.split(","))
    with by_option():
        check_classes(wanted, run)
    counts = {name: number(word) for name, word in wanted.items()}
    return tuple(counts.get(name, 0) for name in run.classes)
