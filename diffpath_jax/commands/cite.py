"""``diffpath cite``: BibTeX of the works whose methods were used."""

import argparse
from pathlib import Path

from diffpath_jax import citations
from diffpath_jax.io.errors import DiffpathError, ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``diffpath cite``."""
    text = "runs, sample sets, evaluations or studies, and all that lies below them (default: every work)"
    parser.add_argument("directories", nargs="*", type=Path, metavar="DIRECTORY", help=text)


def main(arguments: argparse.Namespace) -> ExitCode:
    """Prints the entries, in the order of their keys.

    Raises:
        DiffpathError: a directory does not exist, holds nothing to cite, or is damaged.
    """
    entries = citations.bibliography()
    works: set[str] = set() if arguments.directories else set(entries)
    for directory in arguments.directories:
        if not directory.is_dir():
            raise DiffpathError("directory", where=directory, why="there is none", fix="check the path")
        used = citations.of_directory(directory)
        if not used:
            fix = "name a run, a sample set, an evaluation or a study"
            raise DiffpathError("directory", where=directory, why="no method was used in it", fix=fix)
        works |= used
    print("\n\n".join(entries[key] for key in sorted(works)))
    return ExitCode.OK
