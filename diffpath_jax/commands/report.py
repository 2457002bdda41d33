"""``diffpath report``: one self-contained HTML page of everything found."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from diffpath_jax import report
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.evaluation import record
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import own_file
from diffpath_jax.io.path_names import short_names
from diffpath_jax.io.progress import console
from diffpath_jax.runs import run as runs

T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath report``; a set or classifier is shown under the end of its path that no other has."""
    parser.add_argument("--dataset", required=True, type=Path, help="dataset directory of the real images")
    parser.add_argument("--workdir", required=True, type=Path, help="run directory of the diffusion model")
    parser.add_argument("--autoencoder", type=Path, help="run directory of the autoencoder of a latent model")
    parser.add_argument("--reconstructions", type=Path, help="--out directory of `diffpath reconstruct` with it")
    parser.add_argument("--samples", nargs="+", default=[], type=Path, help="sample sets")
    parser.add_argument("--classifiers", nargs="*", default=[], type=Path, help="classifier runs")
    parser.add_argument("--evals", nargs="*", default=[], type=Path, help="--out directories of `diffpath eval`")
    parser.add_argument("--out", required=True, type=Path, help="HTML file to write")


def main(arguments: argparse.Namespace) -> ExitCode:
    """Write the report.

    Raises:
        DiffpathError: an input is missing or damaged, or the output is something else than a report.
    """
    if (arguments.autoencoder is None) != (arguments.reconstructions is None):
        missing = "--reconstructions" if arguments.autoencoder else "--autoencoder"
        raise DiffpathError(missing, where="the command line", why="missing", fix="give both, or neither")
    study = report.Study(
        dataset=open_dataset(arguments.dataset),
        run=runs.open_run(arguments.workdir),
        first_stage=_first_stage(arguments),
        samples=_named(arguments.samples, open_dataset),
        classifiers=_named(arguments.classifiers, runs.open_run),
        evaluations=[record.read(path / record.METRICS) for path in arguments.evals],
    )
    with own_file(arguments.out):
        _refuse_foreign(arguments.out)
        report.save(arguments.out, study)
    console.print(f"{arguments.out.resolve()}", soft_wrap=True)
    return ExitCode.OK


def _named(paths: Sequence[Path], read: Callable[[Path], T]) -> dict[str, T]:
    """Returns what lies at some paths, by their names."""
    return {name: read(path) for name, path in zip(short_names(paths), paths, strict=True)}


def _refuse_foreign(path: Path) -> None:
    """Refuse to write over what is no report.

    Raises:
        DiffpathError: there is another file (exit code 4).
    """
    if path.exists() and not (path.is_file() and b"<title>diffpath report" in path.read_bytes()[:4096]):
        why = "there is something else, no report of this command"
        raise DiffpathError("--out", where=path, why=why, fix="name another file", code=ExitCode.REFUSED)


def _first_stage(arguments: argparse.Namespace) -> report.AutoencoderStudy | None:
    if arguments.autoencoder is None:
        return None
    study = report.AutoencoderStudy(runs.open_run(arguments.autoencoder), open_dataset(arguments.reconstructions))
    if study.reconstructions.details.reconstruction is None:
        fix = "name the --out of `diffpath reconstruct`"
        raise DiffpathError("--reconstructions", where=arguments.reconstructions, why="another kind of set", fix=fix)
    return study
