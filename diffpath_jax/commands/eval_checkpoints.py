"""``diffpath eval --workdir``: draw from the checkpoints of a run and measure each; rerun to resume."""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from diffpath_jax.commands import sample, sample_counts
from diffpath_jax.data.manifest import Dataset
from diffpath_jax.devices import hardware, processes, sharding
from diffpath_jax.evaluation import audit, checkpoint_curve, checkpoint_page, page
from diffpath_jax.evaluation.feature_cache import FeatureStore
from diffpath_jax.evaluation.image_sets import ImageSet
from diffpath_jax.evaluation.job import Evaluation
from diffpath_jax.evaluation.record import SkippedAudit
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.options import ranged
from diffpath_jax.io.progress import console
from diffpath_jax.ranges import AverageLength, Positive
from diffpath_jax.runs import run as runs
from diffpath_jax.sampling import job as sampling_job
from diffpath_jax.sampling.draw import Model
from diffpath_jax.sampling.told import for_each_class

ALL = "all"
SAMPLES = "samples"
# What a checkpoint of a diffusion model draws with; `diffpath sample` has more.
SAMPLER_OPTIONS = ("sampler", "steps", "eta", "eps_scale", "guidance")


@dataclass(frozen=True)
class Measures:
    """Settings of ``diffpath eval``, as functions of the set.

    Attributes:
        evaluation: the reference, features and classifiers.
        audit_of: what it is searched for copies of.
        floor_of: real images beside it.
    """

    evaluation: Callable[[ImageSet], Evaluation]
    audit_of: Callable[[ImageSet], audit.Sources | SkippedAudit]
    floor_of: Callable[[ImageSet], ImageSet | None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that are there for checkpoints alone."""
    group = parser.add_argument_group("checkpoints of a run, in place of --generated")
    group.add_argument(
        "--checkpoints", default=ALL, help="steps, latest, best or all, separated by commas (default: %(default)s)"
    )
    group.add_argument("--num_per_class", help="images that each draws of each class: N, or CLASS=N,CLASS=N,...")
    group.add_argument(
        "--batch_size", type=ranged(Positive), default=64, help="images a device draws at once (default: %(default)s)"
    )
    text = "each draws with the average of this length, as a share of training up to it, made of optim.ema_lengths"
    group.add_argument("--ema_length", type=ranged(AverageLength), help=text)
    sample.add_sampler_arguments(group, SAMPLER_OPTIONS)


def asked_for(arguments: argparse.Namespace) -> str:
    """Returns the first of these options that is not at its default; empty for none."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    defaults = vars(parser.parse_args([]))
    return next((f"--{name}" for name, value in defaults.items() if getattr(arguments, name) != value), "")


def main(arguments: argparse.Namespace, measures: Measures) -> ExitCode:
    """Draws and measures; ``measures`` are those that the other options ask for.

    Raises:
        DiffpathError: no diffusion run, a checkpoint that is not there, or sets that cannot be compared.
    """
    hardware.use_compilation_cache()
    run = runs.diffusion_model(runs.open_run(arguments.workdir))
    steps = runs.find_steps(run, _checkpoints(arguments.checkpoints))
    base = measures.evaluation(checkpoint_curve.undrawn(run))
    jobs = {step: _job(arguments, run, step) for step in steps}
    with processes.own_directory(arguments.out):
        curve = checkpoint_curve.measure_curve(
            base,
            run,
            _drawn(run, jobs, ema_length=arguments.ema_length),
            audit_of=measures.audit_of,
            floor_of=measures.floor_of,
            store=FeatureStore(arguments.cache),
        )
        checkpoint_curve.write(arguments.out, curve.record)
        checkpoint_page.write_page(arguments.out, curve)
    for line in checkpoint_curve.lines(curve.record):
        console.print(line, soft_wrap=True, markup=False)
    console.print(f"{(arguments.out / page.PAGE).resolve()}", soft_wrap=True, markup=False)
    return ExitCode.OK


def _checkpoints(text: str) -> list[int | Literal["all", "latest", "best"]]:
    """Returns the checkpoints that ``--checkpoints`` names."""
    words = [word for word in text.split(",") if word]
    if not words:
        raise DiffpathError("--checkpoints", where="the command line", why="it names none", fix=f"write {ALL}")
    return ["all" if word == ALL else sample.checkpoint_step(word, option="--checkpoints") for word in words]


def _job(arguments: argparse.Namespace, run: runs.DiffusionModelRun, step: int) -> sampling_job.SampleJob:
    """Returns what a checkpoint draws: as ``diffpath sample`` would with the same options."""
    options: dict[str, Any] = {name: getattr(arguments, name) for name in SAMPLER_OPTIONS}
    sample_counts.check_batch_size(arguments.batch_size)
    return sampling_job.SampleJob(
        out=arguments.out / SAMPLES / str(step),
        name="generated",
        conditions=for_each_class(run),
        counts=sample_counts.stated_counts(arguments.num_per_class, run),
        sampler=sample.sampler_of(options, run),
        image_px=run.image_px,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
    )


def _drawn(
    run: runs.DiffusionModelRun, jobs: dict[int, sampling_job.SampleJob], *, ema_length: float | None
) -> Iterator[Dataset]:
    """Yields what each checkpoint draws; what lies there already is taken as it is."""
    for number, (step, job) in enumerate(jobs.items(), 1):
        console.print(f"[bold]{number} of {len(jobs)}: {checkpoint_curve.step_name(step)}[/bold]", soft_wrap=True)
        trained = runs.load_parameters(run, step=step, ema_length=ema_length)
        yield sampling_job.run_job(job, Model(run, trained), sharding.local_mesh())
