"""``diffpath sample``: draw a set of images from a trained run, or one for each point of a sweep; rerun to resume."""

import argparse
import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from diffpath_jax.commands import dry_run, sample_dry_run, sample_fields, sample_references
from diffpath_jax.commands.sample_counts import by_option, check_batch_size, counts
from diffpath_jax.config import files as config_files
from diffpath_jax.config import sampling as samplers
from diffpath_jax.config import sections
from diffpath_jax.data import card, marking
from diffpath_jax.data.manifest import Dataset
from diffpath_jax.devices import hardware, processes, sharding
from diffpath_jax.diffusion.samplers.catalogue import SAMPLERS
from diffpath_jax.diffusion.samplers.ddpm import VARIANCES
from diffpath_jax.diffusion.samplers.spacing import SPACINGS
from diffpath_jax.diffusion.samplers.thresholding import THRESHOLDINGS
from diffpath_jax.exchange.class_folders import write_class_folders
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.options import check_memory, ranged
from diffpath_jax.io.options import name as named
from diffpath_jax.io.progress import console
from diffpath_jax.latents.first_stage import open_first_stage
from diffpath_jax.networks.conditions import CONDITIONS, LABEL
from diffpath_jax.ranges import AverageLength, Positive, PositiveReal, Seed, Side
from diffpath_jax.render import image_grid
from diffpath_jax.runs import run as runs
from diffpath_jax.sampling import guide, sweep, weights_file
from diffpath_jax.sampling import job as sampling_job
from diffpath_jax.sampling.draw import Model
from diffpath_jax.sampling.told import Told, drawn_mpp, for_each_class, told_of

GRID_COLUMNS = 12
TRAJECTORY_FRAMES = 10
# Options that are fields of SamplerConfig, with their help; types and defaults are the fields' own.
_SAMPLER_HELP = {
    "steps": "denoising steps",
    "eta": "DDIM's noise, 0 to 1",
    "eps_scale": "epsilon scaling, lambda",
    "eps_slope": "growth of lambda a step",
    "guidance": "classifier-free weight w",
    "guidance_of": "weights of single conditions besides, NAME=W+NAME=W",
    "guidance_from": "lowest share of the trained schedule at which w applies, 0 clean to 1 noise",
    "guidance_to": "highest such share",
    "guide_weight": "autoguidance's weight w, away from --guide",
    "guide_from": "lowest share of the trained schedule at which --guide applies",
    "guide_to": "highest such share",
    "classifier_scale": "of the gradient of --classifier",
    "percentile": "share of values that --thresholding dynamic leaves uncut",
    "start_level": "share of the trained schedule that --start is noised to, 0 itself to 1 noise",
    "repeats": "times that each step is made where --inpaint keeps a part",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath sample``."""
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--workdir", type=Path, help="run directory of a diffusion model")
    text = "the model instead: a safetensors file of `diffpath convert` (adm, ldm) or `diffpath export`"
    model.add_argument("--weights", type=Path, metavar="FILE", help=text)
    _add_file_arguments(parser.add_argument_group("what --weights may not say of itself"))
    parser.add_argument("--out", required=True, type=Path, help="dataset directory to write")
    parser.add_argument("--name", type=named, default="generated", help="dataset name (default: %(default)s)")
    counts = parser.add_mutually_exclusive_group(required=True)
    counts.add_argument("--num_per_class", help="images of each class: N, or CLASS=N,CLASS=N,...")
    text = "as many images of each class as this data set has for training, times --times, less those of --less"
    counts.add_argument("--counts_of", type=Path, metavar="DATASET", help=text)
    parser.add_argument(
        "--times", type=ranged(PositiveReal), default=1.0, help="factor of --counts_of (default: %(default)s)"
    )
    parser.add_argument(
        "--less", type=Path, metavar="DATASET", help="data set that --counts_of is to be topped up from"
    )
    others = ", ".join(kind.name for kind in CONDITIONS.values() if kind.parse and kind is not LABEL)
    told = f"NAME=VALUE, of what the model is told besides the class ({others}, columns of a table); repeatable"
    parser.add_argument("--condition", action="append", default=[], help=told)
    sampler = parser.add_argument_group("sampler")
    add_sampler_arguments(sampler, (*_SAMPLER_HELP, *_choices()))
    sampler.add_argument(
        "--guidance_scale", type=ranged(PositiveReal), help="the same as s = 1 + w, as in latent diffusion"
    )
    sampler.add_argument("--classifier", type=Path, help="run directory of a noisy classifier that guides")
    text = "weaker model that guides: run directory, RUN or RUN@STEP (or RUN@best), which may be that of --workdir"
    sampler.add_argument("--guide", metavar="RUN[@STEP]", help=text)
    sampler.add_argument("--unconditional", action="store_true", help="do not tell the network the class")
    sampler.add_argument("--sweep", action="append", help='a set for each point of "OPTION=A,B OPTION=C,D"; repeatable')
    sample_references.add_arguments(parser)
    parser.add_argument("--patch_px", type=ranged(Side), help="side of the images (default: as in training)")
    sample_fields.add_arguments(parser.add_argument_group("larger images"))
    parser.add_argument(
        "--batch_size", type=ranged(Positive), default=64, help="images a device (default: %(default)s)"
    )
    parser.add_argument("--seed", type=ranged(Seed), default=0, help="random seed for all noise (default: %(default)s)")
    parser.add_argument("--shared_noise", action="store_true", help="the same noise for all classes")
    parser.add_argument("--checkpoint", default="latest", help="latest, best, or a step (default: %(default)s)")
    average = parser.add_mutually_exclusive_group()
    average.add_argument("--raw_parameters", action="store_true", help="not the moving average")
    text = "draw with the average of this length, as a share of training, made of optim.ema_lengths"
    average.add_argument("--ema_length", type=ranged(AverageLength), help=text)
    parser.add_argument("--png", action="store_true", help="write every image as a PNG file too")
    parser.add_argument("--grid", action="store_true", help="write a sheet of the first images, by class")
    parser.add_argument("--trajectory", action="store_true", help="write how the first images emerge, by class")
    processes.add_arguments(parser)
    sample_dry_run.add_arguments(parser.add_argument_group("dry run"))
    _add_old_names(parser)


def _add_file_arguments(parser: argparse._ActionsContainer) -> None:
    """Options that say of a file of parameters what a run directory would."""
    parser.add_argument("--classes", default="", help="how many classes, or their names: A,B,... (default: by number)")
    parser.add_argument("--mpp", type=ranged(PositiveReal), help="um per px of its images; 1 where they have none")
    parser.add_argument("--first_stage", type=Path, help="autoencoder of its latents: a run, or a safetensors file")


def add_sampler_arguments(parser: argparse._ActionsContainer, names: Collection[str]) -> None:
    """Options that are fields of SamplerConfig, those of some names."""
    texts = {**_SAMPLER_HELP, **_choices()}
    for field in dataclasses.fields(sections.SamplerConfig):
        if field.name in names:
            text = f"{texts[field.name]} (default: %(default)s)"
            parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default, help=text)


def _add_old_names(parser: argparse.ArgumentParser) -> None:
    """Options by the names that they had in earlier versions; help does not show them."""
    old: dict[str, Any] = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
    parser.add_argument("--limit", dest="thresholding", **old)
    parser.add_argument("--twins", dest="shared_noise", action="store_true", **old)
    parser.add_argument("--film", dest="trajectory", action="store_true", **old)


def _choices() -> dict[str, str]:
    """Returns the help of the options that are names, from the rows that they name."""

    def listed(kinds: Mapping[str, Any]) -> str:
        return "; ".join(f"{kind.name}: {kind.summary}" for kind in kinds.values()).replace("%", "%%")

    return {
        "sampler": listed(SAMPLERS),
        "spacing": f"steps visited, by default the sampler's own. {listed(SPACINGS)}; N,N,...: steps of equal sections",
        "thresholding": f"of estimates of the image, by default clip for pixels. {listed(THRESHOLDINGS)}",
        "variance": f"of DDPM, by default as trained. {listed(VARIANCES)}",
    }


def main(arguments: argparse.Namespace) -> ExitCode:
    """Draw a sample set, or several.

    Raises:
        DiffpathError: not a diffusion run, a number out of range, or a directory of another job.
    """
    dry_run.check(arguments)
    devices = dry_run.slice_devices(arguments.topology)
    hardware.use_compilation_cache()
    processes.start_if_asked(arguments)
    run = _run(arguments)
    jobs = _jobs(arguments, run)
    trained = _trained(arguments, run)
    classifier = guide.open_classifier(arguments.classifier, run) if arguments.classifier else None
    model = Model(run, trained, classifier, _guide(arguments, run, list(jobs.values())))
    if arguments.dry_run:
        sample_dry_run.describe(jobs, model, sharding.make_mesh(devices or jax.devices()))
        return ExitCode.OK
    mesh = sharding.local_mesh()
    with processes.own_directory(arguments.out):
        if arguments.sweep:
            sweep.run(jobs, model, mesh, out=arguments.out, finish=lambda *done: _finish(arguments, *done))
            return ExitCode.OK
        (job,) = jobs.values()
        dataset = sampling_job.run_job(job, model, mesh)
        _finish(arguments, job, model, dataset)
    return ExitCode.OK


def _run(arguments: argparse.Namespace) -> runs.DiffusionModelRun:
    """The model, of a run directory or of a file.

    Raises:
        DiffpathError: it is none, or an option belongs to the other of the two.
    """
    of_run = {
        "checkpoint": arguments.checkpoint != "latest",
        **{name: getattr(arguments, name) for name in ("raw_parameters", "ema_length")},
    }
    of_file = {name: getattr(arguments, name) for name in ("classes", "mpp", "first_stage")}
    if foreign := [name for name, value in (of_run if arguments.weights else of_file).items() if value]:
        why = "a file holds one set of parameters" if arguments.weights else "a run directory says it itself"
        raise DiffpathError(f"--{foreign[0]}", where="the command line", why=why, fix="leave it out")
    if arguments.weights:
        stage = open_first_stage(arguments.first_stage) if arguments.first_stage else None
        untold = weights_file.Untold(arguments.classes, arguments.patch_px, arguments.mpp, stage)
        return weights_file.run_of_file(arguments.weights, untold)
    return runs.diffusion_model(runs.open_run(arguments.workdir))


def _trained(arguments: argparse.Namespace, run: runs.DiffusionModelRun) -> runs.Weights:
    """The model's parameters."""
    if arguments.weights:
        return weights_file.weights_of_file(run)
    step = checkpoint_step(arguments.checkpoint)
    averaged = not arguments.raw_parameters
    return runs.load_parameters(run, use_ema=averaged, step=step, ema_length=arguments.ema_length)


def _guide(
    arguments: argparse.Namespace, run: runs.DiffusionModelRun, jobs: Sequence[sampling_job.SampleJob]
) -> tuple[runs.DiffusionModelRun, runs.Weights] | None:
    """Returns the weaker model that ``--guide`` names.

    Raises:
        DiffpathError: no job is guided by it, or it does not belong to the run.
    """
    if arguments.guide is None:
        return None
    if not any(job.sampler.guide_weight for job in jobs):
        raise DiffpathError("--guide", where="the command line", why="its weight is 0", fix="add --guide_weight")
    workdir, mark, step = arguments.guide.rpartition("@")
    if not mark or Path(arguments.guide).is_dir():
        workdir, step = arguments.guide, "latest"
    return guide.open_guide(
        Path(workdir),
        run,
        step=checkpoint_step(step, option="--guide"),
        image_px=jobs[0].image_px,
        needs_null=any(job.sampler.guidance > 0 or job.sampler.unconditional for job in jobs),
    )


def _finish(arguments: argparse.Namespace, job: sampling_job.SampleJob, model: Model, dataset: Dataset) -> None:
    """Write the pictures of a finished set that were asked for, and print a summary of it."""
    if not processes.is_first():
        return
    if arguments.png:
        write_class_folders(dataset, sampling_job.SPLIT, dataset.directory / "png")
    if arguments.tiff:
        sample_fields.write_slides(dataset, sampling_job.SPLIT)
    if arguments.grid:
        _write_grid(dataset)
    if arguments.trajectory:
        _write_trajectory(job, model)
    console.print(card.summary(dataset))
    mpp, sampling = dataset.details.mpp, dataset.details.sampling or {}
    field = f"{job.image_px[1]} px at {mpp:.4g} um/px: field of view {job.image_px[1] * mpp:.4g} um"
    calls = f"{sampling['evaluations']} evaluations of the network an image"
    if why := dataset.details.references:
        console.print(f"  {card.WARNING}: its images {why}", soft_wrap=True, style="bold red")
    if "first_timestep" in sampling:
        calls += f", the first at t = {sampling['first_timestep']}"
    console.print(f"  {field}; {calls}", soft_wrap=True)


def checkpoint_step(text: str, *, option: str = "--checkpoint") -> int | Literal["latest", "best"]:
    """Returns the checkpoint that a word of an option names.

    Raises:
        DiffpathError: neither a number nor one of the two words.
    """
    if text == "latest":
        return "latest"
    if text == "best":
        return "best"
    if not text.isdecimal():
        raise DiffpathError(option, where="the command line", why=f"{text!r} is no step", fix="give a number")
    return int(text)


def sampler_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the fields of SamplerConfig from the command line."""
    options = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(sections.SamplerConfig)}
    if arguments.guidance_scale is not None:
        if options["guidance"]:
            fix = "leave one out"
            raise DiffpathError("--guidance_scale", where="the command line", why="--guidance says it too", fix=fix)
        if arguments.guidance_scale < 1:
            why = f"s = {arguments.guidance_scale} is less than 1, which is the conditional model"
            raise DiffpathError("--guidance_scale", where="the command line", why=why, fix="give 1 or more")
        options["guidance"] = arguments.guidance_scale - 1
    return options


def _jobs(arguments: argparse.Namespace, run: runs.DiffusionModelRun) -> dict[str, sampling_job.SampleJob]:
    """Returns the job of each point of a sweep, or of the one without; they differ in sampler and directory."""
    check_batch_size(arguments.batch_size)
    sample_references.check(arguments)
    at_hand = {name: getattr(arguments, name) is not None for name in ("classifier", "guide", "start")}
    samplers_at = {
        point: sampler_of(
            options,
            run,
            where=f"point {point!r} of --sweep" if point else "the command line",
            mask=bool(arguments.inpaint),
            **at_hand,
        )
        for point, options in sweep.points(arguments.sweep or [], sampler_options(arguments)).items()
    }
    shared = _job(arguments, run, next(iter(samplers_at.values())))
    return {
        point: sampling_job.as_begun(dataclasses.replace(shared, out=arguments.out / point, sampler=sampler))
        for point, sampler in samplers_at.items()
    }


def _job(
    arguments: argparse.Namespace, run: runs.DiffusionModelRun, sampler: sections.SamplerConfig
) -> sampling_job.SampleJob:
    side = arguments.patch_px
    image_px = run.image_px if side is None else (side, side)
    field = sample_fields.field(arguments, run, image_px)
    at_once = 1 if field else arguments.batch_size
    # What a sampler holds of each image at the very least: x_t, eps, x_0 and noise in float32.
    held = 4 * 4 * 3 * math.prod(image_px) * at_once
    check_memory(held, what="--batch_size", fix="lower it, or --patch_px")
    wanted, conditions = counts(arguments, run), for_each_class(run, _told(arguments.condition, run))
    mpp = drawn_mpp(run, conditions[0])
    return sampling_job.SampleJob(
        out=arguments.out,
        name=arguments.name,
        conditions=conditions,
        counts=wanted,
        sampler=sampler,
        image_px=image_px,
        batch_size=at_once,
        seed=arguments.seed,
        shared_noise=arguments.shared_noise,
        starts=sample_references.starts(arguments, run, counts=wanted, image_px=image_px, mpp=mpp),
        likes=sample_references.likes(arguments, run, counts=wanted),
        field=field,
    )


def sampler_of(
    options: Mapping[str, Any],
    run: runs.DiffusionModelRun,
    *,
    where: str = "the command line",
    **at_hand: bool,
) -> sections.SamplerConfig:
    """Returns the sampler that options describe.

    Args:
        options: fields of SamplerConfig.
        run: the model that it is to serve.
        where: where the options come from.
        **at_hand: what else there is, as ``config.sampling.check_sampler`` takes it.

    Raises:
        DiffpathError: a value is out of range, or does not fit the model.
    """
    sampler = config_files.convert(sections.SamplerConfig, options, where=where)
    with by_option():
        samplers.check_sampler(run.config, sampler, **{"classifier": False, **at_hand})
    return sampler


def _told(words: Sequence[str], run: runs.Run) -> Told:
    """Reads ``--condition NAME=VALUE``: what the model is told besides the class.

    Raises:
        DiffpathError: a condition that the model does not take, or a value that is none.
    """
    with by_option():
        return told_of(dict(word.partition("=")[::2] for word in words), run)


def _write_grid(dataset: Dataset) -> None:
    rows = image_grid.first_of_each_class(dataset.read(sampling_job.SPLIT), len(dataset.schema.classes), GRID_COLUMNS)
    columns = max(len(row) for row in rows)
    blank = np.full((*dataset.schema.image_px, 3), 255, np.uint8)
    images = [image for row in rows if row for image in row + [blank] * (columns - len(row))]
    sheet = image_grid.tile(np.stack(images), columns=columns)
    image_grid.write_png(dataset.directory / "qa" / "grid.png", sheet, marking.about())


def _write_trajectory(job: sampling_job.SampleJob, model: Model) -> None:
    """The estimate of the clean image at a few moments, noisiest left, for the first image of each class drawn."""
    draw = sampling_job.draw_of(
        job, model, sharding.make_mesh(jax.local_devices()[:1]), trajectory_frames=TRAJECTORY_FRAMES
    )
    # The first image of a class has its number, see ``image_indices``.
    first = np.flatnonzero(job.counts)
    _, trajectory = draw(model.weights, jax.random.key(job.seed), *job.inputs(first))
    frames = np.asarray(trajectory).swapaxes(0, 1).reshape(-1, *trajectory.shape[2:])
    sheet = image_grid.tile(frames, columns=TRAJECTORY_FRAMES)
    image_grid.write_png(job.out / "qa" / "trajectory.png", sheet, marking.about())
