"""``diffpath train``: a config and a work directory in, a run out; the same command resumes it."""

import argparse
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from diffpath_jax.commands import dry_run
from diffpath_jax.config import checks, sections, size_checks
from diffpath_jax.config import files as config_files
from diffpath_jax.config.first_stage import FirstStage
from diffpath_jax.config.tasks import make_task
from diffpath_jax.data import mixture, validation
from diffpath_jax.data.crops import Crops
from diffpath_jax.data.manifest import Dataset
from diffpath_jax.data.pipeline import TRAIN, training_batches, training_source
from diffpath_jax.data.records import Schema
from diffpath_jax.devices import hardware, processes, sharding
from diffpath_jax.evaluation import hooks
from diffpath_jax.io import packaged
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.options import ranged
from diffpath_jax.io.progress import console
from diffpath_jax.latents import first_stage
from diffpath_jax.networks.conditions import readers
from diffpath_jax.ranges import Positive, PositiveFraction, PositiveReal
from diffpath_jax.runs import run as runs
from diffpath_jax.runs import topology, warm_start
from diffpath_jax.runs.cost import Plan, plan, shapes_of
from diffpath_jax.runs.topology import GIB
from diffpath_jax.training.loggers import check_installed
from diffpath_jax.training.loop import Trainer
from diffpath_jax.training.metrics_log import METRICS, read_metrics
from diffpath_jax.training.recorder import TrainConfig
from diffpath_jax.training.tasks.task import Task

# What `--dry_run` assumes where no data set is named: the paper's.
PAPER_PX, PAPER_CLASSES = 128, 5
# Images of a class below which that is said.
FEW_IMAGES = 50
# How much more often images of the smallest class may be drawn than those of the largest before that is said.
MANY_TIMES = 10
SIZE_FIX = "choose fewer levels in network.channel_mult, or prepare patches of another size"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath train``; every other word is a ``--config.a.b=c`` override."""
    names = ", ".join(packaged.config_names(studies=False))
    text = f"config file, FILE.py or FILE.py:VARIANT; diffpath:NAME or diffpath:NAME:VARIANT for one of {names}"
    parser.add_argument("--config", required=True, help=text)
    parser.add_argument("--workdir", type=Path, help="run directory; an existing run is resumed")
    parser.add_argument("--allow_change", action="append", default=[], help="config key that may differ on resume")
    processes.add_arguments(parser)
    dry = parser.add_argument_group("dry run")
    dry.add_argument("--dry_run", action="store_true", help="print size and cost, train nothing")
    dry.add_argument("--devices", type=ranged(Positive), help="devices to plan for (default: those of this machine)")
    dry.add_argument("--peak_tflops", type=ranged(PositiveReal), help="peak of one device (default: measured here)")
    dry_run.add_topology(dry, what="the step")
    dry.add_argument(
        "--share", type=ranged(PositiveFraction), default=0.4, help="share of the peak to expect (default: %(default)s)"
    )
    parser.set_defaults(takes_overrides=True)


def main(arguments: argparse.Namespace, overrides: Sequence[str]) -> ExitCode:
    """Train or resume.

    Raises:
        DiffpathError: bad config or data, another run in the directory, divergence, SIGTERM.
    """
    content = config_files.load(arguments.config, overrides, checks.with_defaults)
    settings = checks.run_config(content, where=arguments.config)
    dry_run.check(arguments)
    if arguments.dry_run:
        _describe(settings, arguments)
        return ExitCode.OK
    if arguments.workdir is None:
        raise DiffpathError("--workdir", where="the command line", why="missing", fix="name a run directory")
    check_installed(settings.train.loggers)
    hardware.use_compilation_cache()
    processes.start_if_asked(arguments)
    datasets = checks.datasets(settings, where=arguments.config)
    checks.check_devices(settings, jax.device_count(), where=arguments.config)
    watched = validation.open_validation(settings.data.val, datasets)
    checks.check_augmentation(settings, [*datasets, watched])
    checks.check_beside(settings, [*datasets, watched], where=arguments.config)
    counts = mixture.total(mixture.mixture_counts(datasets, TRAIN, settings.data.mixture))
    for hint in _hints(counts, datasets[0].schema.classes, settings.data.batch_size, balanced=_is_balanced(settings)):
        console.print(f"note: {hint}", markup=False, soft_wrap=True)
    stage = first_stage.prepare(settings, [*datasets, watched], workdir=arguments.workdir, where=arguments.config)
    image_px = datasets[0].schema.image_px
    size_checks.check_image_size(settings, image_px, first_stage=stage, where=arguments.config, fix=SIZE_FIX)
    size_checks.check_crops(settings, image_px, first_stage=stage, where=arguments.config)
    perceptual = first_stage.perceptual(settings)
    task = make_task(settings, num_classes=len(counts), first_stage=stage, perceptual=perceptual, class_counts=counts)
    if processes.is_first() and checks.is_chosen_by_validation(settings):
        for doubt in validation.doubts(watched, datasets):
            console.print(f"warning: {doubt}", markup=False, soft_wrap=True)
    with processes.own_directory(arguments.workdir):
        done = _train(settings, task, stage, datasets, watched, arguments)
    if processes.is_first():
        total = settings.train.num_steps
        early = f" ({_early_end(settings.train)})" if done < total else ""
        console.print(f"{arguments.workdir}: step {done} of {total}, complete{early}")
    return ExitCode.OK


def _early_end(config: TrainConfig) -> str:
    """Returns what ends a run before its last step."""
    ends = [f"no better {config.keep_best} for {config.patience} looks"] if config.patience else []
    return " or ".join([*ends, *([f"{config.minutes:g} minutes are over"] if config.minutes else [])])


def _is_balanced(settings: sections.RunConfig) -> bool:
    """Returns true where every class is drawn equally often."""
    return settings.data.balanced or settings.classifier.balance == "draw"


def _hints(counts: np.ndarray, classes: Sequence[str], batch_size: int, *, balanced: bool) -> Iterator[str]:
    """Yields what speaks against so few training images."""
    if counts.sum() < batch_size:
        yield f"{int(counts.sum())} training images fill no batch of {batch_size}: each batch repeats some"
    few = [f"{name} {int(count)}" for name, count in zip(classes, counts, strict=True) if count < FEW_IMAGES]
    if few:
        yield f"fewer than {FEW_IMAGES} training images of {', '.join(few)}"
    there = {int(count): name for name, count in zip(classes, counts, strict=True) if count}
    least, most = min(there), max(there)
    if balanced and most >= MANY_TIMES * least:
        yield (
            f"classes are drawn equally often, so each image of {there[least]} {most / least:.3g} times as often as "
            f"one of {there[most]}: it may be learnt by heart"
        )


def _train(
    settings: sections.RunConfig,
    task: Task,
    stage: FirstStage | None,
    datasets: Sequence[Dataset],
    watched: Dataset,
    arguments: argparse.Namespace,
) -> int:
    run = runs.create_or_resume(
        arguments.workdir,
        settings,
        datasets,
        validation=watched if settings.data.val else None,
        latents=stage,
        allow_change=arguments.allow_change,
    )
    mesh = sharding.make_mesh(fsdp=settings.train.fsdp)

    source = training_source(
        datasets,
        amounts=settings.data.mixture,
        balanced=_is_balanced(settings),
        seed=settings.seed,
        read=readers(settings.network),
    )

    crops = _crops(settings, datasets[0].schema)

    def batches(start: int) -> Iterator[dict[str, np.ndarray]]:
        return training_batches(
            source,
            batch_size=settings.data.batch_size,
            seed=settings.seed,
            augment=settings.data.augment,
            workers=settings.data.workers,
            crops=crops,
            start=start,
            process=(jax.process_index(), jax.process_count()),
        )

    trainer = Trainer(
        task=task,
        optim=settings.optim,
        config=settings.train,
        batches=batches,
        batch_size=settings.data.batch_size,
        seed=settings.seed,
        workdir=arguments.workdir,
        mesh=mesh,
        hooks=tuple(hooks.hooks(run, task, datasets[0], watched, mesh)),
        start=lambda: warm_start.starting_point(settings, num_classes=len(run.classes)),
        peak=hardware.measured_peak(jnp.dtype(settings.dtype)) * mesh.size,
        compatibility_digest=run.compatibility_digest,
    )
    return int(trainer.fit().step)


def _crops(settings: sections.RunConfig, schema: Schema) -> Crops | None:
    """Returns the sides that batches are cut to, of stored latents in their places; none for whole images."""
    data = settings.data
    factor = schema.image_px[0] // schema.latent_shape[0] if schema.latent_shape else 1
    sides = tuple(side // factor for side in data.crop_px)
    return Crops(sides, data.crop_steps, settings.seed) if sides else None


def _named_first_stage(settings: sections.RunConfig) -> FirstStage | None:
    """The first stage that a config names; none where it names none."""
    if settings.codec is None or not settings.codec.first_stage:
        return None
    return first_stage.open_first_stage(Path(settings.codec.first_stage))


def _describe(settings: sections.RunConfig, arguments: argparse.Namespace) -> None:
    """Print what a run would be, without allocating it."""
    slice_devices = dry_run.slice_devices(arguments.topology)
    datasets = checks.datasets(settings, where=arguments.config) if settings.data.train else []
    if datasets:
        watched = validation.open_validation(settings.data.val, datasets)
        checks.check_beside(settings, [*datasets, watched], where=arguments.config)
        schema = datasets[0].schema
        image_px, num_classes = schema.image_px, len(schema.classes)
        images = int(mixture.total(mixture.mixture_counts(datasets, TRAIN, settings.data.mixture)).sum())
        data = f"{images:,} images of {image_px[0]} px, {num_classes} classes"
    else:
        image_px, num_classes, images = (PAPER_PX, PAPER_PX), PAPER_CLASSES, 0
        data = f"none named: {PAPER_PX} px and {PAPER_CLASSES} classes assumed"
    devices = len(slice_devices) or arguments.devices or jax.device_count()
    checks.check_devices(settings, devices, where=arguments.config)
    stored = bool(datasets) and datasets[0].schema.latent_shape is not None
    stage = _named_first_stage(settings)
    size_checks.check_image_size(settings, image_px, first_stage=stage, where=arguments.config, fix=SIZE_FIX)
    size_checks.check_crops(settings, image_px, first_stage=stage, where=arguments.config)
    cost = plan(settings, image_px=image_px, num_classes=num_classes, devices=devices, first_stage=stage, stored=stored)
    rows = {"data": data, "parameters": f"{cost.parameters:,}"}
    if slice_devices:
        mesh = sharding.make_mesh(slice_devices, fsdp=settings.train.fsdp)
        run = shapes_of(settings, image_px=image_px, num_classes=num_classes, first_stage=stage, stored=stored)
        compiled = topology.compile_step(settings, run, mesh)
        program = topology.describe(compiled, mesh, accumulate=settings.optim.accumulate)
        rows |= {"mesh": _mesh(settings, devices)}
        rows |= dry_run.compiled(program, images=settings.data.batch_size, given="state and batch")
    else:
        rows |= _planned(cost, settings, arguments, devices=devices, images=images)
    console.print(cost.overview, markup=False, soft_wrap=True)
    dry_run.show(rows)


def _mesh(settings: sections.RunConfig, devices: int) -> str:
    """Returns how devices share a step."""
    return f"{devices} devices: data {devices // settings.train.fsdp} x fsdp {settings.train.fsdp}"


def _planned(
    cost: Plan, settings: sections.RunConfig, arguments: argparse.Namespace, *, devices: int, images: int
) -> dict[str, str]:
    """Returns size and length of a run, as counted."""
    measured = not arguments.peak_tflops
    peak = hardware.measured_peak(jnp.dtype(settings.dtype)) if measured else arguments.peak_tflops * 1e12
    hours = cost.hours(flop_per_second=devices * peak * arguments.share)
    seen = settings.train.num_steps * settings.data.batch_size
    source = f"measured on {jax.devices()[0].device_kind}" if measured else "as given"
    return {
        "forward pass": f"{cost.forward_flop / 1e9:.4g} GFLOP an image",
        "memory": f"{cost.device_bytes / GIB:.3g} GiB a device: state {cost.state_bytes / GIB:.3g}, gradients "
        f"{cost.gradient_bytes / GIB:.3g}, kept for the backward pass {cost.saved_bytes / GIB:.3g} at most",
        "mesh": _mesh(settings, devices),
        "steps": f"{settings.train.num_steps:,} of {settings.data.batch_size} images: {seen:,} images"
        + (f", {seen / images:.3g} times each" if images else ""),
        **_affordable(settings, arguments.workdir, images_per_second=seen / max(hours, 1e-9) / 3600),
        "time": f"{hours:.3g} hours at {arguments.share:.0%} of {peak / 1e12:.4g} TFLOP/s a device ({source}): "
        f"{seen / max(hours, 1e-9) / 3600:.4g} img/s",
    }


def _affordable(settings: sections.RunConfig, workdir: Path | None, *, images_per_second: float) -> dict[str, str]:
    """Returns the steps that ``train.minutes`` are enough for: as a run's log measured them, else as counted.

    Args:
        settings: of the run.
        workdir: run directory that may have a log.
        images_per_second: speed as counted.
    """
    minutes = settings.train.minutes
    if not minutes:
        return {}
    rows = read_metrics(workdir, tolerant=True) if workdir and (workdir / METRICS).exists() else []
    measured = [row["images_per_second"] for row in rows if "images_per_second" in row]
    # The first line of a log holds what happens once.
    speed = statistics.median(measured[1:] or measured) if measured else images_per_second
    source = f"as {workdir} measured" if measured else "as counted below"
    steps = int(60 * minutes * speed / settings.data.batch_size)
    ends = "the last step comes first" if steps >= settings.train.num_steps else "less for compiling and looks"
    return {"budget": f"{minutes:g} minutes: {steps:,} steps at {speed:.4g} img/s, {source}; {ends}"}
