"""Previews and measurements while a run trains: hooks of :class:`diffpath_jax.training.loop.Trainer`.

Every hook draws with fixed keys, so a resumed run measures the same again.
"""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffpath_jax.config import sections
from diffpath_jax.data import marking
from diffpath_jax.data.manifest import Dataset
from diffpath_jax.data.pipeline import read_arrays
from diffpath_jax.data.validation import VAL
from diffpath_jax.devices import processes, sharding
from diffpath_jax.devices.batched import batched
from diffpath_jax.evaluation.features.classifier import predictor
from diffpath_jax.evaluation.features.open import open_extractor
from diffpath_jax.latents import first_stage
from diffpath_jax.metrics import fid, stain
from diffpath_jax.metrics.classification import confusion_matrix, summarise
from diffpath_jax.metrics.reconstruction import codebook_usage, count_codes, psnr, ssim
from diffpath_jax.networks.autoencoder import AutoencoderConfig
from diffpath_jax.networks.conditions import LABEL, readers
from diffpath_jax.render import image_grid
from diffpath_jax.runs import run as runs
from diffpath_jax.sampling import draw as draws
from diffpath_jax.shapes import Tree
from diffpath_jax.training.recorder import Hook, TrainConfig
from diffpath_jax.training.step import TrainState
from diffpath_jax.training.tasks.task import CODEC, NETWORK, Task

PREVIEW_PER_CLASS = 8
PREVIEW_STEPS = 25
# Real images that stand for the data set's colours.
STAIN_IMAGES = 512
VALIDATION_LIMIT = 2000
# Latents turned into images at once.
DECODED_AT_ONCE = 64
# Images on a preview of an autoencoder, above what it makes of them.
PREVIEW_COLUMNS = 12
# As published FIDs are measured.
FD_RESIZE = "tf_bilinear"


def hooks(run: runs.Run, task: Task, trained_on: Dataset, watched: Dataset, mesh: Mesh) -> list[Hook]:
    """The hooks that a run's config asks for.

    Args:
        run: the run.
        task: what it learns.
        trained_on: the first of its data sets: its training images are what samples are compared with.
        watched: the data set whose validation split is looked at.
        mesh: devices.
    """
    if not run.config.train.eval_every:
        return []
    if run.config.task == "classification":
        return [validation_accuracy(run, watched)]
    if isinstance(run.config, sections.AutoencodingRun):
        return [reconstruction(run, run.config.network, watched)]
    codec = jax.tree.map(
        lambda array: sharding.from_host(np.asarray(array), sharding.replicated(mesh)), task.frozen_params
    )
    loss = validation_loss(run, task, watched, mesh, codec)
    if not isinstance(run, runs.DiffusionModelRun):
        return [loss]
    wanted = [preview(run, trained_on, mesh, codec), loss]
    if run.config.train.fd_images:
        wanted.append(frechet(run, trained_on, mesh, codec))
    return wanted


def real_images(run: runs.Run, dataset: Dataset, split: str, codec: Tree, *, limit: int) -> np.ndarray:
    """Images of a split; where latents are stored instead, what their autoencoder makes of them."""
    arrays = read_arrays(dataset, split, limit=limit)
    if "image" in arrays:
        return arrays["image"]
    functions = run.codec
    decode = jax.jit(
        lambda weights, part, key: functions.decode(weights, functions.encode(weights, {"latent": part}, key))
    )
    starts = range(0, limit, DECODED_AT_ONCE)
    parts = [arrays["latent"][start : start + DECODED_AT_ONCE] for start in starts]
    return np.concatenate([decode(codec[CODEC], part, jax.random.key(0)) for part in parts if len(part)])


def averaged(state: TrainState) -> Tree:
    """The parameters that samples are drawn with: the moving average where there is one."""
    return (state.ema or state.params)[NETWORK]


def draw_balanced(
    run: runs.DiffusionModelRun, mesh: Mesh, codec: Tree, per_class: int, *, batch_size: int
) -> Callable[[TrainState], np.ndarray]:
    """A function of the state that draws ``per_class`` images of each class, class by class.

    ``codec`` holds the parameters of the codec on the devices, under its name.
    """
    sampler = sections.SamplerConfig("ddim", min(PREVIEW_STEPS, run.config.noise.num_steps), spacing="trailing")
    draw = draws.make_draw(draws.Recipe(run, sampler, run.image_px), mesh=mesh)
    labels = np.repeat(np.arange(len(run.classes), dtype=np.int32), per_class)
    size = -(-min(batch_size, len(labels)) // mesh.size) * mesh.size

    def images(state: TrainState) -> np.ndarray:
        drawn = []
        for start in range(0, len(labels), size):
            indices = np.resize(np.arange(start, min(start + size, len(labels))), size)
            batch, _ = draw(
                {
                    draws.DENOISER: (averaged(state), state.model_state[NETWORK]),
                    draws.CODEC: codec.get(CODEC, {}),
                },
                jax.random.key(0),
                jnp.asarray(indices),
                {LABEL.name: jnp.asarray(labels[indices])},
                {},
            )
            drawn.append(sharding.to_host(batch))
        return np.concatenate(drawn)[: len(labels)]

    return images


def preview(run: runs.DiffusionModelRun, dataset: Dataset, mesh: Mesh, codec: Tree) -> Hook:
    """A grid of samples under ``previews/``, one row a class, and how far their stain is from that of real images."""
    draw = draw_balanced(run, mesh, codec, PREVIEW_PER_CLASS, batch_size=PREVIEW_PER_CLASS * len(run.classes))
    real = stain.stain_statistics(real_images(run, dataset, "train", codec, limit=STAIN_IMAGES))

    def look(state: TrainState) -> dict[str, float]:
        images = draw(state)
        if processes.is_first():
            sheet = image_grid.tile(images, columns=PREVIEW_PER_CLASS)
            image_grid.write_png(_preview_path(run, state), sheet, marking.about())
        drift = stain.stain_drift(stain.stain_statistics(images), real)
        return {f"stain/{name}": value for name, value in drift.items()}

    return look


def _preview_path(run: runs.Run, state: TrainState) -> Path:
    return run.workdir / "previews" / f"step-{int(state.step):07d}.png"


def validation_loss(run: runs.Run, task: Task, dataset: Dataset, mesh: Mesh, frozen_params: Tree) -> Hook:
    """The training loss on held-out images, with the same noise every time.

    ``frozen_params`` are the task's, on the devices.
    """
    if VAL not in dataset.splits:
        return lambda state: {}
    data = read_arrays(dataset, VAL, limit=VALIDATION_LIMIT, read=readers(run.config.network))
    size = min(run.config.data.batch_size, len(data["label"]) // mesh.size * mesh.size)
    if not size:
        return lambda state: {}
    split = sharding.batch_sharding(mesh)
    starts = range(0, len(data["label"]) - size + 1, size)

    @jax.jit
    def loss(frozen: Tree, params: Tree, model_state: Tree, batch: Tree, key: jax.Array) -> jax.Array:
        return task.losses[NETWORK]({**frozen, **params}, model_state, batch, key)[0]

    def validate(state: TrainState) -> dict[str, float]:
        values = []
        for number, start in enumerate(starts):
            part = {name: array[start : start + size] for name, array in data.items()}
            batch = {name: sharding.from_host(array, split) for name, array in part.items()}
            key = jax.random.fold_in(jax.random.key(0), number)
            values.append(float(loss(frozen_params, state.ema or state.params, state.model_state, batch, key)))
        return {"val_loss": float(np.mean(values))}

    return validate


def frechet(run: runs.DiffusionModelRun, dataset: Dataset, mesh: Mesh, codec: Tree) -> Hook:
    """Frechet distance of ``train.fd_images`` samples from the training images, in ``train.fd_features``."""
    count = run.config.train.fd_images
    per_class = -(-count // len(run.classes))
    draw = draw_balanced(run, mesh, codec, per_class, batch_size=run.config.data.batch_size)
    distance = distance_from(real_images(run, dataset, "train", codec, limit=count), run.config.train)
    return lambda state: distance(draw(state))


def distance_from(real: np.ndarray, config: TrainConfig) -> Callable[[np.ndarray], dict[str, float]]:
    """Returns a function of images: their Frechet distance from ``real`` in ``config.fd_features``, by its name."""
    extractor = open_extractor(Path(config.fd_features), resize=FD_RESIZE)
    reference = fid.fit_gaussian(extractor.extract(real))

    def distance(images: np.ndarray) -> dict[str, float]:
        return {extractor.frechet_name: fid.frechet_distance(fid.fit_gaussian(extractor.extract(images)), reference)}

    return distance


def reconstruction(run: runs.Run, network: AutoencoderConfig, dataset: Dataset) -> Hook:
    """Held-out images beside what an autoencoder makes of them, under ``previews/``, and how near they come back."""
    if VAL not in dataset.splits:
        return lambda state: {}
    real = read_arrays(dataset, VAL, limit=VALIDATION_LIMIT)["image"]
    reconstruct = batched(first_stage.round_trip(network, run.config.dtype))
    colours = stain.stain_statistics(real)
    count = run.config.train.fd_images
    distance = distance_from(real[:count], run.config.train) if count else lambda images: {}

    def look(state: TrainState) -> dict[str, float]:
        images, codes = reconstruct(jax.tree.map(sharding.to_host, averaged(state)), real)
        if processes.is_first():
            columns = np.linspace(0, len(real) - 1, min(PREVIEW_COLUMNS, len(real))).astype(int)
            sheet = image_grid.tile(np.concatenate([real[columns], images[columns]]), columns=len(columns))
            image_grid.write_png(_preview_path(run, state), sheet, marking.about())
        drift = stain.stain_drift(stain.stain_statistics(images), colours)
        usage = {} if codes is None else codebook_usage(count_codes(codes, network.codebook_size))
        return {
            "val_psnr": float(psnr(images, real).mean()),
            "val_ssim": float(ssim(images, real).mean()),
            **{f"r{name}": value for name, value in distance(images[:count]).items()},
            **{f"val_{name}": value for name, value in usage.items()},
            **{f"stain/{name}": value for name, value in drift.items()},
        }

    return look


def validation_accuracy(run: runs.Run, dataset: Dataset) -> Hook:
    """Share of held-out images whose class a classifier tells, and its mean over the classes that occur."""
    if VAL not in dataset.splits:
        return lambda state: {}
    data = read_arrays(dataset, VAL, limit=VALIDATION_LIMIT)
    predict = predictor(run.network)

    def validate(state: TrainState) -> dict[str, float]:
        weights = jax.tree.map(sharding.to_host, (averaged(state), state.model_state[NETWORK]))
        told = predict(weights, data["image"])[0].argmax(axis=-1)
        scores = summarise(confusion_matrix(data["label"], told, len(run.classes)))
        return {f"val_{name}": value for name, value in scores.items()}

    return validate
