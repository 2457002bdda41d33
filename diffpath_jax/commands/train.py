"""``diffpath train``: a config and a work directory in, a run out; the same command resumes it."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffpath_jax import build, config, pictures, runs, sample, sharding
from diffpath_jax.data.manifest import Dataset
from diffpath_jax.data.pipeline import Records, read_arrays, training_batches
from diffpath_jax.errors import DiffpathError, ExitCode
from diffpath_jax.files import new_directory_or_nothing, own_directory
from diffpath_jax.metrics.classification import predict
from diffpath_jax.networks.pure import count_parameters
from diffpath_jax.progress import console
from diffpath_jax.task import NETWORK
from diffpath_jax.train import Hook, TrainState, fit

PREVIEW_PER_CLASS = 8
PREVIEW_STEPS = 25
VALIDATION_LIMIT = 2000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath train``; every other word is a ``--config.a.b=c`` override."""
    parser.add_argument("--config", required=True, help="config file, FILE.py or FILE.py:VARIANT")
    parser.add_argument("--workdir", required=True, type=Path, help="run directory; an existing run is resumed")
    parser.add_argument("--allow_change", action="append", default=[], help="config key that may differ on resume")
    parser.add_argument("--dry_run", action="store_true", help="print size and cost, train nothing")
    parser.set_defaults(takes_overrides=True)


def main(arguments: argparse.Namespace, overrides: Sequence[str]) -> ExitCode:
    """Train or resume.

    Raises:
        DiffpathError: bad config or data, another run in the directory, divergence, SIGTERM.
    """
    settings = build.run_config(config.load(arguments.config, overrides), where=arguments.config)
    datasets = build.datasets(settings, where=arguments.config)
    if settings.data.batch_size % jax.device_count():
        raise DiffpathError(
            "key 'data.batch_size'",
            where=arguments.config,
            why=f"{settings.data.batch_size} cannot be divided over {jax.device_count()} devices",
            fix="choose a multiple",
        )
    if arguments.dry_run:
        _describe(settings, datasets)
        return ExitCode.OK
    with new_directory_or_nothing(arguments.workdir), own_directory(arguments.workdir):
        run = runs.begin(arguments.workdir, settings, datasets, allow_change=arguments.allow_change)
        mesh = sharding.make_mesh()
        batches = training_batches(
            Records(datasets, "train"),
            batch_size=settings.data.batch_size,
            seed=settings.seed,
            augment=settings.data.augment,
            workers=settings.data.workers,
            process=(jax.process_index(), jax.process_count()),
        )
        state = fit(
            build.task(settings, num_classes=len(run.classes)),
            settings.optim,
            settings.train,
            batches=batches,
            batch_size=settings.data.batch_size,
            seed=settings.seed,
            workdir=arguments.workdir,
            mesh=mesh,
            hooks=[_hook(run, datasets, mesh)] if settings.train.eval_every else [],
        )
    console.print(f"{arguments.workdir}: step {int(state.step)} of {settings.train.num_steps}, complete")
    return ExitCode.OK


def _hook(run: runs.Run, datasets: Sequence[Dataset], mesh: Mesh) -> Hook:
    """What is looked at during training: previews of a diffusion model, validation accuracy of a classifier."""
    if run.config.task == "diffusion":
        return _preview_hook(run, mesh)
    return _validation_hook(run, datasets[0])


def _preview_hook(run: runs.Run, mesh: Mesh) -> Hook:
    sampler = build.SamplerConfig("ddim", min(PREVIEW_STEPS, run.config.diffusion.num_steps))  # type: ignore[union-attr]
    draw = sample.make_draw(run, sampler, image_px=run.image_px, mesh=mesh)
    labels = np.repeat(np.arange(len(run.classes), dtype=np.int32), PREVIEW_PER_CLASS)
    padded = np.resize(labels, -(-len(labels) // jax.device_count()) * jax.device_count())

    def preview(state: TrainState) -> dict[str, float]:
        params = state.ema or state.params
        indices = jnp.arange(len(padded))
        images, _ = draw(params[NETWORK], state.model_state[NETWORK], jax.random.key(0), indices, jnp.asarray(padded))
        grid = pictures.tile(np.asarray(images)[: len(labels)], columns=PREVIEW_PER_CLASS)
        pictures.write_png(run.workdir / "previews" / f"step-{int(state.step):07d}.png", grid)
        return {}

    return preview


def _validation_hook(run: runs.Run, dataset: Dataset) -> Hook:
    if "val" not in dataset.splits:
        return lambda state: {}
    data = read_arrays(dataset, "val", limit=VALIDATION_LIMIT)
    network = build.network(run.config, num_classes=len(run.classes))

    def validate(state: TrainState) -> dict[str, float]:
        params = state.ema or state.params
        logits, _ = predict(network, params[NETWORK], state.model_state[NETWORK], data["image"])
        return {"val_accuracy": float((logits.argmax(axis=-1) == data["label"]).mean())}

    return validate


def _describe(settings: build.RunConfig, datasets: Sequence[Dataset]) -> None:
    """Print what a run would be, without allocating it."""
    schema = datasets[0].schema
    network = build.network(settings, num_classes=len(schema.classes))
    params, model_state = jax.eval_shape(network.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, *schema.image_px, 3), jnp.float32)
    number = jax.ShapeDtypeStruct((1,), jnp.int32)
    inputs = (image, number, number) if settings.task == "diffusion" else (image,)
    options = {} if settings.task == "diffusion" else {"train": False}
    lowered = jax.jit(lambda p, s, *x: network.apply(p, s, *x, **options)[0]).lower(params, model_state, *inputs)
    cost = lowered.cost_analysis() or {}
    count = count_parameters(network)
    copies = 4 if settings.optim.ema_decay else 3
    images = sum(dataset.count("train") for dataset in datasets)
    seen = settings.train.num_steps * settings.data.batch_size
    for name, value in {
        "parameters": f"{count:,}",
        "forward pass": f"{cost.get('flops', float('nan')) / 1e9:.3g} GFLOP an image",
        "training state": f"{count * 4 * copies / 2**30:.3g} GiB a device (float32; activations come on top)",
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}, batch split over them",
        "steps": f"{settings.train.num_steps:,} of {settings.data.batch_size} images: {seen:,} images, "
        f"{seen / images:.3g} times each of {images:,}",
    }.items():
        console.print(f"{name:15s} {value}")
