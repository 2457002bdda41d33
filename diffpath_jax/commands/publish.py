"""``diffpath publish``: weights or images with their card, to a folder or to the Hugging Face hub."""

import argparse
import re
import tempfile
from pathlib import Path
from typing import Literal

from diffpath_jax.commands.sample import checkpoint_step
from diffpath_jax.data.manifest import MANIFEST, open_dataset
from diffpath_jax.evaluation import record
from diffpath_jax.exchange import hub, publication
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import new_folder
from diffpath_jax.io.progress import console
from diffpath_jax.runs import run as runs

_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath publish``."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="a run directory, a data set or a sample set")
    parser.add_argument("--to", required=True, help=f"a new folder, or {hub.PREFIX}OWNER/NAME")
    parser.add_argument("--license", required=True, help="its licence, an SPDX identifier: cc-by-4.0, ...")
    parser.add_argument(
        "--evals", nargs="+", default=[], type=Path, help="evaluations of it: their numbers and audits go on the card"
    )
    parser.add_argument("--checkpoint", default="latest", help="of a run: latest, best or a step (%(default)s)")
    parser.add_argument(
        "--despite_copies", action="store_true", help="even where an audit found copies; the card then shows it"
    )


def main(arguments: argparse.Namespace) -> ExitCode:
    """Publish.

    Raises:
        DiffpathError: nothing that can be published, evaluations of something else, an audit that found copies, or a
            hub that refuses.
    """
    if not re.fullmatch(r"[\w.+-]{2,64}", arguments.license):
        fix = "give an SPDX identifier, e.g. cc-by-4.0 or apache-2.0"
        raise DiffpathError("--license", where="the command line", why="it names no licence", fix=fix)
    evaluations = tuple(record.read(path / record.METRICS) for path in arguments.evals)
    terms = publication.Terms(arguments.license.lower(), evaluations, arguments.despite_copies)
    if not arguments.to.startswith(hub.PREFIX):
        with new_folder(Path(arguments.to)) as folder:
            _write(arguments, terms, folder)
        console.print(f"{arguments.to}: written", soft_wrap=True, markup=False)
        return ExitCode.OK
    repository = arguments.to.removeprefix(hub.PREFIX)
    if not _REPOSITORY.fullmatch(repository):
        raise DiffpathError("--to", where="the command line", why="no OWNER/NAME", fix=f"write {hub.PREFIX}OWNER/NAME")
    with tempfile.TemporaryDirectory() as folder:
        kind = _write(arguments, terms, Path(folder))
        console.print(hub.upload(Path(folder), repository, kind), soft_wrap=True, markup=False)
    return ExitCode.OK


def _write(arguments: argparse.Namespace, terms: publication.Terms, folder: Path) -> Literal["model", "dataset"]:
    """Write what is published, and return what it is."""
    if (arguments.directory / MANIFEST).exists():
        return publication.publish_set(open_dataset(arguments.directory), terms, folder)
    run = runs.open_run(arguments.directory)
    trained = runs.load_parameters(run, step=checkpoint_step(arguments.checkpoint))
    return publication.publish_run(run, trained, terms, folder)
