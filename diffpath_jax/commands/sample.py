"""``diffpath sample``: draw a set of images from a trained run, or one for each point of a sweep; rerun to resume."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from diffpath_jax.config import checks, sections
from diffpath_jax.config import files as config_files
from diffpath_jax.data import card
from diffpath_jax.data.manifest import Dataset
from diffpath_jax.devices import hardware, processes, sharding
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.progress import console
from diffpath_jax.render import image_grid
from diffpath_jax.runs import run as runs
from diffpath_jax.sampling import job as sampling_job
from diffpath_jax.sampling import sweep

GRID_COLUMNS = 12
FILM_FRAMES = 10
MAX_IMAGES = 10_000_000
# Options that are fields of SamplerConfig, with what --help says of them; types and defaults are the fields' own.
_SAMPLER_HELP = {
    "sampler": "ddpm, ddim, heun, dpmpp, unipc, ddpm_author_code, ddim_author_code",
    "steps": "denoising steps",
    "spacing": "steps visited: even, leading, trailing, quadratic, log_snr, karras",
    "variance": "of DDPM: small, large, learned (auto: as trained)",
    "eta": "DDIM's noise, 0 to 1",
    "eps_scale": "epsilon scaling, lambda",
    "eps_slope": "growth of lambda a step",
    "guidance": "classifier-free weight w",
    "guidance_from": "lowest share of the trained schedule at which w applies, 0 clean to 1 noise",
    "guidance_to": "highest such share",
    "classifier_scale": "of the gradient of --classifier",
    "limit": "of estimates of the image: clip, dynamic, none",
    "percentile": "share of values that --limit dynamic leaves uncut",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath sample``."""
    parser.add_argument("--workdir", required=True, type=Path, help="run directory of a diffusion model")
    parser.add_argument("--out", required=True, type=Path, help="dataset directory to write")
    parser.add_argument("--name", default="generated", help="dataset name (default: %(default)s)")
    parser.add_argument("--num_per_class", required=True, help="images of each class: N, or CLASS=N,CLASS=N,...")
    sampler = parser.add_argument_group("sampler")
    for field in dataclasses.fields(sections.SamplerConfig):
        if field.name in _SAMPLER_HELP:
            text = f"{_SAMPLER_HELP[field.name]} (default: %(default)s)"
            sampler.add_argument(f"--{field.name}", type=type(field.default), default=field.default, help=text)
    sampler.add_argument("--guidance_scale", type=float, help="the same as s = 1 + w, as in latent diffusion")
    sampler.add_argument("--classifier", type=Path, help="run directory of a noisy classifier that guides")
    sampler.add_argument("--unconditional", action="store_true", help="do not tell the network the class")
    sampler.add_argument("--sweep", action="append", help='a set for each point of "OPTION=A,B OPTION=C,D"; repeatable')
    parser.add_argument("--patch_px", type=int, help="side of the images (default: as in training)")
    parser.add_argument("--batch_size", type=int, default=64, help="images a device (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all noise (default: %(default)s)")
    parser.add_argument("--twins", action="store_true", help="the same noise for all classes")
    parser.add_argument("--checkpoint", default="latest", help="latest, best, or a step (default: %(default)s)")
    parser.add_argument("--raw_parameters", action="store_true", help="not the moving average")
    parser.add_argument("--png", action="store_true", help="write every image as a PNG file too")
    parser.add_argument("--grid", action="store_true", help="write a sheet of the first images, by class")
    parser.add_argument("--film", action="store_true", help="write a strip of the denoising, by class")
    processes.add_arguments(parser)


def main(arguments: argparse.Namespace) -> ExitCode:
    """Draw a sample set, or several.

    Raises:
        DiffpathError: not a diffusion run, a number out of range, or a directory of another job.
    """
    hardware.use_compilation_cache()
    processes.start_if_asked(arguments)
    run = runs.open_run(arguments.workdir)
    if run.config.diffusion is None:
        raise DiffpathError("run", where=run.workdir, why="not a diffusion model", fix="name one with --workdir")
    points = sweep.points(arguments.sweep or [], _sampler_options(arguments))
    jobs = {name: _job(arguments, run, options, name) for name, options in points.items()}
    step = checkpoint_step(arguments.checkpoint)
    trained = runs.load_parameters(run, averaged=not arguments.raw_parameters, step=step)
    model = sampling_job.Model(run, trained, _classifier(arguments.classifier, run))
    mesh = sharding.local_mesh()
    with processes.own_directory(arguments.out):
        if arguments.sweep:
            sweep.run(jobs, model, mesh, out=arguments.out, finish=lambda *done: _finish(arguments, *done))
            return ExitCode.OK
        (job,) = jobs.values()
        dataset = sampling_job.run_job(job, model, mesh)
        _finish(arguments, job, model, dataset)
    return ExitCode.OK


def _finish(
    arguments: argparse.Namespace, job: sampling_job.SampleJob, model: sampling_job.Model, dataset: Dataset
) -> None:
    """Pictures of a finished set, and a word on it."""
    if not processes.is_first():
        return
    if arguments.png:
        _write_images(dataset)
    if arguments.grid:
        _write_grid(dataset)
    if arguments.film:
        _write_film(job, model)
    console.print(card.summary(dataset))
    mpp, sampling = model.run.mpp, dataset.details.sampling or {}
    field = f"{job.image_px[1]} px at {mpp:.4g} um/px: field of view {job.image_px[1] * mpp:.4g} um"
    console.print(f"  {field}; {sampling['evaluations']} evaluations of the network an image", soft_wrap=True)


def checkpoint_step(text: str) -> int | Literal["latest", "best"]:
    """What ``--checkpoint`` names.

    Raises:
        DiffpathError: neither a number nor one of the two words.
    """
    if text == "latest":
        return "latest"
    if text == "best":
        return "best"
    if not text.isdecimal():
        raise DiffpathError("--checkpoint", where="the command line", why=f"{text!r} is no step", fix="give a number")
    return int(text)


def _sampler_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of SamplerConfig as the command line gives them."""
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


def _job(arguments: argparse.Namespace, run: runs.Run, options: dict[str, Any], point: str) -> sampling_job.SampleJob:
    where = f"point {point!r} of --sweep" if point else "the command line"
    sampler = config_files.convert(sections.SamplerConfig, options, where=where)
    checks.check_sampler(run.config, sampler, classifier=arguments.classifier is not None)
    if not 0 < arguments.batch_size <= MAX_IMAGES:
        why = f"{arguments.batch_size} is not from 1 to {MAX_IMAGES}"
        raise DiffpathError("--batch_size", where="the command line", why=why, fix="change it")
    side = arguments.patch_px
    image_px = run.image_px if side is None else (side, side)
    fix = "choose a multiple of it with --patch_px"
    checks.check_image_size(run.config, image_px, space=run.space, where="the command line", fix=fix)
    return sampling_job.SampleJob(
        out=arguments.out / point,
        name=arguments.name,
        counts=_counts(arguments.num_per_class, run.classes),
        sampler=sampler,
        image_px=image_px,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        twins=arguments.twins,
    )


def _counts(text: str, classes: Sequence[str]) -> tuple[int, ...]:
    """Images of each class: ``N``, or ``CLASS=N,CLASS=N`` for some of them.

    Raises:
        DiffpathError: an unknown class, or no number from 1 on.
    """

    def number(word: str) -> int:
        if not word.isdecimal() or not 0 < int(word) <= MAX_IMAGES:
            why = f"{word!r} is not from 1 to {MAX_IMAGES}"
            raise DiffpathError("--num_per_class", where="the command line", why=why, fix="change it")
        return int(word)

    if "=" not in text:
        return (number(text),) * len(classes)
    wanted = dict(part.rpartition("=")[::2] for part in text.split(","))
    unknown = [name for name in wanted if name not in classes]
    if unknown:
        why = f"unknown class {unknown[0]!r}"
        fix = f"the run knows {', '.join(classes)}"
        raise DiffpathError("--num_per_class", where="the command line", why=why, fix=fix)
    found = {name: number(word) for name, word in wanted.items()}
    return tuple(found.get(name, 0) for name in classes)


def _classifier(workdir: Path | None, run: runs.Run) -> tuple[runs.Run, runs.Trained] | None:
    """The noisy classifier that is to guide.

    Raises:
        DiffpathError: it is none, or was trained on other classes, another um/px, other noise or other latents.
    """
    if workdir is None:
        return None
    other = runs.open_run(workdir)
    if other.config.task != "noisy_classification":
        fix = "name a run with task 'noisy_classification', such as configs/noisy_classifier_pkgh224.py"
        raise DiffpathError("--classifier", where=workdir, why="not a classifier of noisy images", fix=fix)
    for what, theirs, ours in (
        ("classes", other.classes, run.classes),
        ("um/px", other.mpp, run.mpp),
        ("noise", other.config.noise, run.config.noise),
        ("space", _named(other.space), _named(run.space)),
    ):
        if theirs != ours:
            why = f"its {what} {theirs} is not the {ours} of {run.workdir}"
            raise DiffpathError("--classifier", where=workdir, why=why, fix="train one on the same data and noise")
    return other, runs.load_parameters(other)


def _named(space: sections.LatentSpace | None) -> str:
    """A space in a word or two."""
    return f"latents of {space.digest[:16]}, scale {space.scale:g}" if space else "pixels"


def _write_images(dataset: Dataset) -> None:
    for record in dataset.read(sampling_job.SPLIT):
        name = dataset.schema.classes[record.label]
        image_grid.write_png(dataset.directory / "png" / name / f"{record.index:07d}.png", record.image)


def _write_grid(dataset: Dataset) -> None:
    rows = image_grid.first_of_each_class(dataset.read(sampling_job.SPLIT), len(dataset.schema.classes), GRID_COLUMNS)
    columns = max(len(row) for row in rows)
    blank = np.full((*dataset.schema.image_px, 3), 255, np.uint8)
    images = [image for row in rows if row for image in row + [blank] * (columns - len(row))]
    image_grid.write_png(dataset.directory / "qa" / "grid.png", image_grid.tile(np.stack(images), columns=columns))


def _write_film(job: sampling_job.SampleJob, model: sampling_job.Model) -> None:
    """The estimate of the clean image at a few moments, noisiest left, for the first image of each class."""
    mesh = sharding.make_mesh(jax.local_devices()[:1])
    draw, count = sampling_job.draw_of(job, model, mesh, film_frames=FILM_FRAMES), len(model.run.classes)
    indices = np.arange(count)
    labels = sampling_job.class_of(indices, count)
    _, film = draw(model.weights, jax.random.key(job.seed), jnp.asarray(indices), jnp.asarray(labels))
    frames = np.asarray(film).swapaxes(0, 1).reshape(-1, *film.shape[2:])
    image_grid.write_png(job.out / "qa" / "film.png", image_grid.tile(frames, columns=FILM_FRAMES))
