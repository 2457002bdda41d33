"""Short names of directories, as their user would tell them apart."""

import os
from collections.abc import Sequence
from pathlib import Path


def short_names(paths: Sequence[Path]) -> list[str]:
    """Returns the shortest ends of paths that no other of them has: ``resnet``, or ``a/resnet`` beside ``b/resnet``.

    A path that is there twice has one name. Links are not followed: a name is the user's own.
    """
    absolute = [Path(os.path.abspath(path)) for path in paths]
    return [_shortest(path, set(absolute) - {path}) for path in absolute]


def _shortest(path: Path, others: set[Path]) -> str:
    lengths = range(1, len(path.parts) + 1)
    ends = (
        path.parts[-length:] for length in lengths if all(path.parts[-length:] != o.parts[-length:] for o in others)
    )
    return str(Path(*next(ends)))
