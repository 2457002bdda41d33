"""``diffpath sample``: draw a set of images from a trained run; the same command resumes."""

import argparse
import dataclasses
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from data_prep import card
from diffpath_jax import build, config, hardware, pictures, runs, sample, sections, sharding
from diffpath_jax.data.manifest import Dataset
from diffpath_jax.errors import DiffpathError, ExitCode
from diffpath_jax.files import new_directory_or_nothing, own_directory
from diffpath_jax.progress import console

GRID_COLUMNS = 12
FILM_FRAMES = 10
MAX_IMAGES = 10_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath sample``."""
    parser.add_argument("--workdir", required=True, type=Path, help="run directory of a diffusion model")
    parser.add_argument("--out", required=True, type=Path, help="dataset directory to write")
    parser.add_argument("--name", default="generated", help="dataset name (default: %(default)s)")
    parser.add_argument("--num_per_class", required=True, type=int, help="images of each class")
    parser.add_argument("--sampler", default="ddpm", help="ddpm, ddim, ddpm_author_code (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=250, help="denoising steps (default: %(default)s)")
    parser.add_argument("--variance", default="auto", help="of DDPM: small, large, learned (default: as trained)")
    parser.add_argument("--eta", type=float, default=0.0, help="DDIM's noise, 0 to 1 (default: %(default)s)")
    parser.add_argument("--eps_scale", type=float, default=1.0, help="epsilon scaling, lambda (default: none)")
    parser.add_argument("--eps_slope", type=float, default=0.0, help="growth of lambda a step (default: none)")
    parser.add_argument("--guidance", type=float, default=0.0, help="classifier-free weight w (default: none)")
    parser.add_argument("--unclipped", dest="clip_x0", action="store_false", help="do not clip estimates of the image")
    parser.add_argument("--patch_px", type=int, help="side of the images (default: as in training)")
    parser.add_argument("--batch_size", type=int, default=64, help="images a device (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all noise (default: %(default)s)")
    parser.add_argument("--checkpoint", default="latest", help="latest, best, or a step (default: %(default)s)")
    parser.add_argument("--raw_parameters", action="store_true", help="not the moving average")
    parser.add_argument("--png", action="store_true", help="write every image as a PNG file too")
    parser.add_argument("--grid", action="store_true", help="write a sheet of the first images, by class")
    parser.add_argument("--film", action="store_true", help="write a strip of the denoising, by class")


def main(arguments: argparse.Namespace) -> ExitCode:
    """Draw a sample set.

    Raises:
        DiffpathError: not a diffusion run, a number out of range, or a directory of another job.
    """
    hardware.use_compilation_cache()
    run = runs.open_run(arguments.workdir)
    job = _job(arguments, run)
    step = checkpoint_step(arguments.checkpoint)
    trained = runs.load_parameters(run, averaged=not arguments.raw_parameters, step=step)
    with new_directory_or_nothing(job.out), own_directory(job.out):
        dataset = sample.run_job(job, run, trained, sharding.make_mesh())
        if arguments.png:
            _write_images(dataset)
        if arguments.grid:
            _write_grid(dataset)
        if arguments.film:
            _write_film(job, run, trained)
    console.print(card.summary(dataset))
    console.print(f"  {run.mpp:g} um/px, field of view {job.image_px[1] * run.mpp:g} um")
    return ExitCode.OK


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


def _job(arguments: argparse.Namespace, run: runs.Run) -> sample.SampleJob:
    if run.config.diffusion is None:
        raise DiffpathError("run", where=run.workdir, why="not a diffusion model", fix="name one with --workdir")
    sampler = config.convert(
        sections.SamplerConfig,
        {field.name: getattr(arguments, field.name) for field in dataclasses.fields(sections.SamplerConfig)},
        where="the command line",
    )
    respaced = build.sampling_schedule(build.schedule(run.config.diffusion), sampler)
    build.step_rule(run.config, sampler, respaced)
    for name, value, most in (
        ("--num_per_class", arguments.num_per_class, MAX_IMAGES),
        ("--batch_size", arguments.batch_size, MAX_IMAGES),
    ):
        if not 0 < value <= most:
            why = f"{value} is not from 1 to {most}"
            raise DiffpathError(name, where="the command line", why=why, fix="change it")
    side = arguments.patch_px
    image_px = run.image_px if side is None else (side, side)
    stride = build.network_config(run.config, num_classes=len(run.classes)).stride
    if image_px[0] <= 0 or image_px[0] % stride:
        raise DiffpathError(
            "--patch_px",
            where="the command line",
            why=f"{side} is not a multiple of the network's stride",
            fix=f"choose a multiple of {stride}",
        )
    return sample.SampleJob(
        out=arguments.out,
        name=arguments.name,
        num_per_class=arguments.num_per_class,
        sampler=sampler,
        image_px=image_px,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
    )


def _write_images(dataset: Dataset) -> None:
    for record in dataset.read(sample.SPLIT):
        name = dataset.schema.classes[record.label]
        pictures.write_png(dataset.directory / "png" / name / f"{record.index:07d}.png", record.image)


def _write_grid(dataset: Dataset) -> None:
    by_class: dict[int, list[np.ndarray]] = {i: [] for i in range(len(dataset.schema.classes))}
    for record in dataset.read(sample.SPLIT):
        if len(by_class[record.label]) < GRID_COLUMNS:
            by_class[record.label].append(record.image)
    images = np.stack([image for found in by_class.values() for image in found])
    pictures.write_png(
        dataset.directory / "qa" / "grid.png", pictures.tile(images, columns=len(images) // len(by_class))
    )


def _write_film(job: sample.SampleJob, run: runs.Run, trained: runs.Trained) -> None:
    """The estimate of the clean image at a few moments, noisiest left, for the first image of each class."""
    mesh = sharding.make_mesh()
    draw = sample.make_draw(run, job.sampler, image_px=job.image_px, mesh=mesh, film_frames=FILM_FRAMES)
    count = len(run.classes)
    indices = np.resize(np.arange(count), -(-count // jax.device_count()) * jax.device_count())
    _, film = draw(
        trained.params,
        trained.model_state,
        jax.random.key(job.seed),
        jnp.asarray(indices),
        jnp.asarray(sample.class_of(indices, count)),
    )
    frames = np.asarray(film)[:, :count].swapaxes(0, 1).reshape(-1, *film.shape[2:])
    pictures.write_png(job.out / "qa" / "film.png", pictures.tile(frames, columns=FILM_FRAMES))
