"""``diffpath demo``: the first part of the demo's study: from a real slide to pages, in minutes on a CPU."""

import argparse
import time
from pathlib import Path

from diffpath_jax.commands import study as study_command
from diffpath_jax.config import files as config_files
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.progress import console
from diffpath_jax.study.config import study_config, with_defaults
from diffpath_jax.study.rows import reports
from diffpath_jax.study.rows.catalogue import ROWS

CONFIG = "diffpath:study_demo"
# `diffpath study` in the same directory goes on with the others.
FIRST_ROWS = ("F1", "F4", "F6", "T3", "Q", "R")
PIXELS, LATENTS = "fov_48", "fov_64"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``diffpath demo``."""
    parser.add_argument("--slide", type=Path, help="your own slide, instead of the public one")
    parser.add_argument("--annotations", type=Path, help="annotations of your slide; every class in it is used")
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="directory (default: %(default)s)")
    parser.add_argument("--latent", action="store_true", help="a latent diffusion model too")
    parser.add_argument("--debug", action="store_true", help="tiny networks and sets: does everything run?")


def main(arguments: argparse.Namespace) -> ExitCode:
    """Runs the demo; what an interrupted demo finished is not done again.

    Raises:
        DiffpathError: no slide can be had.
    """
    if (arguments.slide is None) != (arguments.annotations is None):
        missing = "--annotations" if arguments.slide else "--slide"
        raise DiffpathError(missing, where="the command line", why="missing", fix="give both, or neither")
    start = time.monotonic()
    name = f"{CONFIG}:debug" if arguments.debug else CONFIG
    measured = (PIXELS, LATENTS) if arguments.latent else (PIXELS,)
    content = {**config_files.load(name, [], with_defaults), "measured": measured}
    if arguments.slide:
        content |= {"slides": str(arguments.slide), "annotations": str(arguments.annotations)}
    study = study_command.open_study(study_config(content, where=name), arguments.out)
    code = study_command.run_study(study, [ROWS[key] for key in FIRST_ROWS])
    pages = " and ".join(str(step.out.resolve()) for step in reports.reports(study) if step.out.exists())
    minutes = (time.monotonic() - start) / 60
    console.print(f"Done in {minutes:.1f} minutes. A page for each model: [bold]{pages}[/bold]", soft_wrap=True)
    return code
