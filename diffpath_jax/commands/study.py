"""``diffpath study``: every table and figure of the paper, and what it leaves open, from one config; rerun to go on."""

import argparse
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax

from diffpath_jax import cli
from diffpath_jax.commands import sample
from diffpath_jax.config import checks
from diffpath_jax.config import files as config_files
from diffpath_jax.config.sections import SamplerConfig
from diffpath_jax.io import packaged
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import own_directory, write_text
from diffpath_jax.io.options import ranged
from diffpath_jax.io.progress import console
from diffpath_jax.ranges import PositiveFraction, PositiveReal
from diffpath_jax.study import estimate, page, public_slide, runner, snakemake
from diffpath_jax.study.config import StudyConfig, study_config, with_defaults
from diffpath_jax.study.results import Results
from diffpath_jax.study.row import Row
from diffpath_jax.study.rows.catalogue import ROWS
from diffpath_jax.study.rows.verdict import verdicts
from diffpath_jax.study.step import Step, in_order
from diffpath_jax.study.steps import StudySteps

# Options of `diffpath prep` of which it needs one.
_SOURCES = {"--slides", "--images", "--tfds"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``diffpath study``; every other word is a ``--config.a.b=c`` override."""
    parser.epilog = "Rows: " + "; ".join(f"{row.key}: {row.title} ({row.source})" for row in ROWS.values())
    names = ", ".join(packaged.config_names(studies=True))
    text = f"study config, FILE.py or FILE.py:VARIANT; diffpath:NAME or diffpath:NAME:VARIANT for one of {names}"
    parser.add_argument("--config", required=True, help=text)
    parser.add_argument("--workdir", required=True, type=Path, help="directory; an existing study goes on there")
    parser.add_argument("--only", help="rows, separated by commas, such as T3,T5a (default: all)")
    parser.add_argument("--dry_run", action="store_true", help="print steps, hours and disk; run nothing")
    parser.add_argument(
        "--peak_tflops", type=ranged(PositiveReal), default=989.0, help="of one device, for hours (an H100's bf16)"
    )
    parser.add_argument(
        "--share", type=ranged(PositiveFraction), default=0.4, help="share of the peak to expect (default: %(default)s)"
    )
    parser.add_argument("--snakemake", type=Path, metavar="FILE", help="write the steps as a Snakemake workflow")
    parser.add_argument("--step", help="run one step (what a workflow calls)")
    parser.add_argument("--page", action="store_true", help="write the page of what is done; run nothing")
    parser.set_defaults(takes_overrides=True)


def main(arguments: argparse.Namespace, overrides: Sequence[str]) -> ExitCode:
    """Runs a study, or what is left of it.

    Raises:
        DiffpathError: a bad config, an unknown row, or an interrupted step.
    """
    content = config_files.load(arguments.config, overrides, with_defaults)
    study = open_study(study_config(content, where=arguments.config), arguments.workdir)
    rows = _chosen_rows(arguments.only)
    steps = in_order(step for row in rows for step in row.steps(study))
    unsourced = [step for step in steps if step.command[:1] == ("prep",) and not _SOURCES & set(step.command)]
    check_steps(step for step in steps if step not in unsourced)
    if arguments.dry_run:
        for line in estimate.lines(study, steps, peak=1e12 * arguments.peak_tflops * arguments.share):
            console.print(line, markup=False, soft_wrap=True)
        return ExitCode.OK
    if unsourced:
        why, fix = "the study names none", "give --config.slides=SLIDES (and --config.annotations=ANNOTATIONS)"
        raise DiffpathError("slides", where=f"step {unsourced[0].name}", why=why, fix=fix)
    if arguments.snakemake:
        write_text(
            arguments.snakemake, snakemake.workflow(steps, arguments.workdir, _own_command(arguments, overrides))
        )
        console.print(f"{arguments.snakemake}: {len(steps)} steps", markup=False, soft_wrap=True)
        return ExitCode.OK
    if arguments.step:
        return _one_step(arguments, study, steps)
    return run_study(study, rows, run_steps=not arguments.page)


def check_steps(steps: Iterable[Step]) -> None:
    """Refuses words that a command would refuse, before the first one runs for hours.

    Raises:
        DiffpathError: naming the step.
    """
    for step in steps:
        if step.command:
            try:
                arguments, overrides = cli.parse(step.command)
                if step.command[0] == "train":
                    content = config_files.load(arguments.config, overrides, checks.with_defaults)
                    checks.run_config(content, where=arguments.config)
                elif step.command[0] == "sample":
                    options = sample.sampler_options(arguments)
                    config_files.convert(SamplerConfig, options, where="the command line")
            except DiffpathError as error:
                raise DiffpathError(error.what, where=f"step {step.name}", why=error.why, fix=error.fix) from error


def open_study(config: StudyConfig, workdir: Path) -> StudySteps:
    """Returns a study with the options that name its slides."""
    if config.slides == public_slide.NAME:
        return StudySteps(config, workdir, tuple(public_slide.prep_options(workdir)))
    named = {"--slides": config.slides, "--annotations": config.annotations}
    return StudySteps(config, workdir, tuple(word for pair in named.items() if pair[1] for word in pair))


def run_study(study: StudySteps, rows: Sequence[Row], *, run_steps: bool = True) -> ExitCode:
    """Runs the steps of some rows and writes the page.

    Args:
        study: the study.
        rows: its rows.
        run_steps: false to show what is done and run nothing.
    """
    steps = in_order(step for row in rows for step in row.steps(study))
    with own_directory(study.workdir):
        if run_steps:
            _prepare(study)
            outcome = runner.run(steps, study.workdir, call, console.print)
        else:
            outcome = runner.finished_steps(steps, study.workdir)
        results = Results(study.workdir)
        shown = page.show(rows, study, results, outcome)
        answers = verdicts(study, results)
        path = page.write(study, shown, answers, steps, outcome)
    for line in page.lines(answers, outcome):
        console.print(line, markup=False, soft_wrap=True)
    console.print(str(path.resolve()), markup=False, soft_wrap=True)
    return ExitCode.PARTIAL if outcome.failed else ExitCode.OK


def _prepare(study: StudySteps) -> None:
    """Gets the public slide where the study is of it, and keeps compiled programs from step to step."""
    if study.config.slides == public_slide.NAME:
        public_slide.fetch_slide(public_slide.place(study.workdir))
    # Dozens of classifiers need not compile the same programs again.
    jax.config.update("jax_compilation_cache_dir", str((study.workdir / ".compiled").resolve()))


def call(words: Sequence[str]) -> int:
    """Runs a command line as a user would.

    Returns:
        Its exit code.
    """
    console.print(f"[bold]$ diffpath {shlex.join(words)}[/bold]", soft_wrap=True)
    try:
        return cli.main(words)
    except SystemExit as stop:
        # SIGTERM ends the study; argparse's own refusals end a step.
        if stop.code == int(ExitCode.BAD_INPUT):
            return int(ExitCode.BAD_INPUT)
        raise


def _one_step(arguments: argparse.Namespace, study: StudySteps, steps: Iterable[Step]) -> ExitCode:
    by_name = {step.name: step for step in steps}
    if arguments.step not in by_name:
        fix = "name one of those that --dry_run prints"
        raise DiffpathError("--step", where="the command line", why=f"there is no step {arguments.step!r}", fix=fix)
    _prepare(study)
    outcome = runner.run(in_order([by_name[arguments.step]]), study.workdir, call, console.print)
    return ExitCode(next(iter(outcome.failed.values()), ExitCode.OK))


def _chosen_rows(text: str | None) -> list[Row]:
    """Returns the rows that ``--only`` names.

    Raises:
        DiffpathError: there is no such row.
    """
    if text is None:
        return list(ROWS.values())
    keys = [key for key in text.split(",") if key]
    if unknown := [key for key in keys if key not in ROWS]:
        fix = f"name some of {', '.join(ROWS)}"
        raise DiffpathError("--only", where="the command line", why=f"there is no row {unknown[0]!r}", fix=fix)
    return [row for key, row in ROWS.items() if key in keys]


def _own_command(arguments: argparse.Namespace, overrides: Sequence[str]) -> list[str]:
    """Returns the words that run this study again."""
    only = ["--only", arguments.only] if arguments.only else []
    words = [
        sys.executable,
        "-m",
        "diffpath_jax.cli",
        "study",
        "--config",
        arguments.config,
        "--workdir",
        str(arguments.workdir),
    ]
    return [*words, *only, *overrides]
