"""Denoising losses of single images at fixed levels of noise, each image with noise of its own that it always gets."""

import zlib
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8, UInt32

from diffpath_jax.config import noise
from diffpath_jax.config.sections import DiffusionRun
from diffpath_jax.data.pipeline import Source
from diffpath_jax.devices.batched import BATCH, batched
from diffpath_jax.diffusion.schedule import NoiseSchedule, q_sample, split_variance, training_target
from diffpath_jax.io.progress import track
from diffpath_jax.runs.run import DiffusionModelRun
from diffpath_jax.sampling.draw import CODEC, DENOISER, Model
from diffpath_jax.shapes import Tree
from diffpath_jax.training.tasks.losses import squared_error

# Shares of noise in the variance of a noised image; the nearest timestep of a run's schedule stands for each.
NOISE_SHARES = (0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class NoiseLevels:
    """Levels of noise, increasing.

    Attributes:
        timesteps: t of a schedule.
        noise: share of noise in the variance there, ``1 - abar_t``.
    """

    timesteps: Int[np.ndarray, "levels"]
    noise: Float[np.ndarray, "levels"]


def noise_levels(config: DiffusionRun) -> NoiseLevels:
    """Returns the levels that losses are measured at, in a run's own schedule."""
    noise_of_step = 1 - noise.schedule(config.noise).alpha_bar
    nearest = np.abs(noise_of_step - np.array(NOISE_SHARES)[:, None]).argmin(axis=1)
    timesteps = np.unique(nearest)
    return NoiseLevels(timesteps, noise_of_step[timesteps])


def image_key(image: UInt8[np.ndarray, "h w 3"]) -> int:
    """Returns the number that an image's noise is drawn from: the same wherever the image lies."""
    return zlib.crc32(image.tobytes())


def denoising_losses(
    model: Model, items: Source, timesteps: Int[np.ndarray, "levels"], *, draws: int, seed: int, title: str
) -> Float[np.ndarray, "n levels"]:
    """Returns the mean squared error of the network's prediction for each image at each level, over several draws.

    The prediction is the run's own (eps, x_0 or v); at one level they differ by a factor. Nothing is dropped out, and
    every image has the conditions of its record.

    Args:
        model: the diffusion model.
        items: images with the conditions that the network takes.
        timesteps: levels of noise.
        draws: noise draws; an image has the same at each level.
        seed: random seed of the noise.
        title: of the progress bar.
    """
    run = batched(_losses(model.run, timesteps, draws=draws, seed=seed))
    weights, parts = model.weights, []
    with track(title, total=len(items), unit="img") as progress:
        for start in range(0, len(items), BATCH * jax.local_device_count()):
            chosen = range(start, min(start + BATCH * jax.local_device_count(), len(items)))
            parts.append(run(weights, _rows([items[index] for index in chosen])))
            progress.advance(len(chosen))
    return np.concatenate(parts).astype(np.float64)


def _rows(items: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    keys = np.array([image_key(item["image"]) for item in items], np.uint32)
    return {"key": keys, **{name: np.stack([item[name] for item in items]) for name in items[0]}}


def _losses(run: DiffusionModelRun, timesteps: Int[np.ndarray, "levels"], *, draws: int, seed: int) -> Any:
    """Returns (weights, rows) -> (b, levels)."""
    schedule: NoiseSchedule = noise.schedule(run.config.noise)
    form, codec, network = run.config.diffusion.prediction, run.codec, run.network

    def encode(weights: Tree, image: UInt8[Array, "h w 3"], key: jax.Array) -> Float[Array, "h2 w2 c"]:
        return codec.encode(weights, {"image": image[None]}, key)[0]

    def losses(weights: Tree, rows: dict[str, jax.Array]) -> Float[Array, "b levels"]:
        params, state = weights[DENOISER]
        conditions = {name: rows[name] for name in run.config.network.conditions}
        keys = _keys(rows["key"], seed)
        x_0 = jax.vmap(encode, in_axes=(None, 0, 0))(weights[CODEC], rows["image"], keys)

        def loss(level: tuple[jax.Array, jax.Array]) -> Float[Array, "b"]:
            step, draw = level
            t = jnp.full(len(keys), step)
            own = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, draw)
            eps = jax.vmap(lambda key: jax.random.normal(key, x_0.shape[1:]))(own)
            x_t = q_sample(schedule, x_0, t, eps)
            output, _ = network.apply(params, state, x_t, t, conditions)
            prediction, _ = split_variance(output, x_0.shape[-1])
            return squared_error(prediction, training_target(form, schedule, x_0, t, eps))

        steps, numbers = np.repeat(timesteps, draws), np.tile(np.arange(draws), len(timesteps))
        errors = jax.lax.map(loss, (jnp.asarray(steps, jnp.int32), jnp.asarray(numbers, jnp.int32)))
        return errors.reshape(len(timesteps), draws, -1).mean(axis=1).T

    return losses


def _keys(numbers: UInt32[Array, "b"], seed: int) -> jax.Array:
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(seed), numbers)
