"""``diffpath report``: one self-contained HTML page of everything found."""

import argparse
from pathlib import Path

from diffpath_jax import report, runs
from diffpath_jax.commands.evaluate import METRICS
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.errors import ExitCode
from diffpath_jax.files import read_json
from diffpath_jax.progress import console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath report``; a set or classifier is shown under its directory's name."""
    parser.add_argument("--dataset", required=True, type=Path, help="dataset directory of the real images")
    parser.add_argument("--workdir", required=True, type=Path, help="run directory of the diffusion model")
    parser.add_argument("--samples", nargs="+", default=[], type=Path, help="sample sets")
    parser.add_argument("--classifiers", nargs="*", default=[], type=Path, help="classifier runs")
    parser.add_argument("--evals", nargs="*", default=[], type=Path, help="--out directories of `diffpath eval`")
    parser.add_argument("--out", required=True, type=Path, help="HTML file to write")


def main(arguments: argparse.Namespace) -> ExitCode:
    """Write the report.

    Raises:
        DiffpathError: an input is missing or damaged.
    """
    fix = "name the --out of `diffpath eval`"
    study = report.Study(
        dataset=open_dataset(arguments.dataset),
        run=runs.open_run(arguments.workdir),
        samples={path.name: open_dataset(path) for path in arguments.samples},
        classifiers={path.name: runs.open_run(path) for path in arguments.classifiers},
        metrics=[read_json(path / METRICS, what="metrics", fix=fix) for path in arguments.evals],
    )
    report.save(arguments.out, study)
    console.print(f"{arguments.out.resolve()}", soft_wrap=True)
    return ExitCode.OK
