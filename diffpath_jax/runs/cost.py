"""The cost of a training run, worked out without allocating it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from clu import parameter_overview

from diffpath_jax.config import sections
from diffpath_jax.config.first_stage import FirstStage, published_first_stage
from diffpath_jax.config.tasks import make_task
from diffpath_jax.devices import sharding
from diffpath_jax.diffusion import conditioning
from diffpath_jax.networks.codecs import LatentCodec
from diffpath_jax.networks.conditions import null_values
from diffpath_jax.networks.kinds import make_network
from diffpath_jax.shapes import Tree
from diffpath_jax.training.step import TrainState, init_state
from diffpath_jax.training.tasks.task import CODEC, NETWORK, Task

# A training step is a forward pass and a backward pass of twice its work; rematerialisation adds a forward pass.
TRAIN_FORWARDS, REMAT_FORWARDS = 3, 4


@dataclass(frozen=True)
class Plan:
    """Size and work of a run.

    Attributes:
        parameters: trained numbers.
        forward_flop: FLOP (2 x MAC) of one image's forward pass.
        step_flop: FLOP of a step, forward and backward, over all devices; the optimiser's few are left out.
        state_bytes: train state on one device: parameters, average, optimiser.
        gradient_bytes: gradients on one device.
        saved_bytes: arrays that the forward pass keeps for the backward pass on one device, before XLA's own savings.
        steps: steps of the run.
        overview: name, shape and size of everything that is trained, as a table.
    """

    parameters: int
    forward_flop: float
    step_flop: float
    state_bytes: int
    gradient_bytes: int
    saved_bytes: int
    steps: int
    overview: str

    @property
    def device_bytes(self) -> int:
        """Returns an upper estimate of a device's memory."""
        return self.state_bytes + self.gradient_bytes + self.saved_bytes

    def hours(self, *, flop_per_second: float) -> float:
        """Returns the hours of the run at a given total speed."""
        return self.steps * self.step_flop / flop_per_second / 3600


def plan(
    config: sections.RunConfig,
    *,
    image_px: tuple[int, int],
    num_classes: int,
    devices: int,
    first_stage: FirstStage | None = None,
    stored: bool = False,
) -> Plan:
    """Returns size and work of a run on ``devices`` devices; nothing is allocated or compiled.

    Args:
        config: config of the run.
        image_px: (height, width) of the images.
        num_classes: classes of the data.
        devices: to plan for.
        first_stage: of a model of latents; VQ-f4 as published where it is not known.
        stored: true where latents are read, and not made by the encoder in each step.
    """
    run = shapes_of(config, image_px=image_px, num_classes=num_classes, first_stage=first_stage, stored=stored)
    task, codec, batch, state, frozen = run.task, run.codec, run.batch, run.state, run.task.frozen_params
    split = sharding.state_shardings(state, sharding.abstract_mesh(devices, fsdp=config.train.fsdp))
    forward = _forward_flop(config, codec.shape(image_px) if codec else (*image_px, 3), num_classes)
    forwards = REMAT_FORWARDS if config.network.remat else TRAIN_FORWARDS
    part = max(config.data.batch_size // config.optim.accumulate // devices, 1)
    an_image = forwards * forward + (_encoder_flop(codec, frozen, image_px) if codec and not stored else 0.0)
    if config.task == "autoencoding":
        an_image = _gradient_flop(task, state, _first(batch, 1))
    return Plan(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        forward_flop=forward,
        step_flop=an_image * config.data.batch_size,
        state_bytes=bytes_on_one(state, split),
        gradient_bytes=bytes_on_one(state.params, split.params),
        saved_bytes=_saved_bytes(task, state, _first(batch, part)),
        steps=config.train.num_steps,
        overview=parameter_overview.get_parameter_overview(state.params, include_stats=False),
    )


@dataclass(frozen=True)
class RunShapes:
    """A run of which nothing is allocated.

    Attributes:
        task: what it learns; ``task.frozen_params`` holds shapes.
        codec: the space it works in; none for pixels.
        batch: shapes of a global batch.
        state: shapes of its train state.
    """

    task: Task
    codec: LatentCodec | None
    batch: Tree
    state: TrainState


def shapes_of(
    config: sections.RunConfig,
    *,
    image_px: tuple[int, int],
    num_classes: int,
    first_stage: FirstStage | None = None,
    stored: bool = False,
) -> RunShapes:
    """Returns the shapes of all that a run holds; the arguments are those of :func:`plan`."""
    first_stage = _with_shapes(first_stage or published_first_stage()) if config.codec else None
    codec = first_stage.codec(dtype=config.dtype) if first_stage else None
    task = make_task(config, num_classes=num_classes, first_stage=first_stage)
    frozen = task.frozen_params
    images = _shapes(config.data.batch_size, image_px)
    latents = jax.eval_shape(codec.code, frozen[CODEC], images["image"]) if codec and stored else None
    batch = images if latents is None else {"latent": latents, "label": images["label"]}
    batch |= _conditions(config, num_classes, config.data.batch_size)
    state = jax.eval_shape(
        lambda key: init_state(
            task,
            config.optim,
            key=key,
            batch=batch,
            num_steps=config.train.num_steps,
            minutes=config.train.minutes,
        ),
        jax.random.key(0),
    )
    return RunShapes(task, codec, batch, state)


def _with_shapes(first_stage: FirstStage) -> FirstStage:
    """The first stage with the shapes of its parameters in their place."""
    network = make_network(first_stage.network, dtype="float32")
    return replace(first_stage, params=network.shapes[0])


def _shapes(count: int, image_px: tuple[int, int]) -> dict[str, jax.ShapeDtypeStruct]:
    return {
        "image": jax.ShapeDtypeStruct((count, *image_px, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((count,), jnp.int32),
    }


def _conditions(config: sections.RunConfig, num_classes: int, count: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the conditions of so many images."""
    return jax.eval_shape(lambda: conditioning.null(null_values(config.network, num_classes), count))


def _first(batch: Tree, count: int) -> Tree:
    """Returns the shapes of so many images of a batch."""
    return {name: jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype) for name, leaf in batch.items()}


def _flop(function: Callable, *shapes: Any) -> float:
    """Returns the FLOP of a call, as XLA counts them before it optimises."""
    return float((jax.jit(function).lower(*shapes).cost_analysis() or {}).get("flops", float("nan")))


def _encoder_flop(codec: LatentCodec, frozen: Tree, image_px: tuple[int, int]) -> float:
    """Returns the FLOP of encoding one image."""
    return _flop(codec.code, frozen[CODEC], _shapes(1, image_px)["image"])


def _gradient_flop(task: Task, state: TrainState, batch: Tree) -> float:
    """Returns the FLOP of all losses and their gradients; two networks that judge each other share no simple rule."""

    def gradients(params: Tree, model_state: Tree, batch: Tree) -> Tree:
        def of(group: str) -> Tree:
            key, others = jax.random.key(0), {**task.frozen_params, **params}
            return jax.grad(lambda own: task.losses[group]({**others, group: own}, model_state, batch, key)[0])(
                params[group]
            )

        return {group: of(group) for group in task.losses}

    return _flop(gradients, state.params, state.model_state, batch)


def bytes_on_one(shapes: Any, places: Any) -> int:
    """Returns the bytes that one device holds of arrays of these shapes, in their places."""
    each = jax.tree.map(
        lambda leaf, place: math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize, shapes, places
    )
    return sum(jax.tree.leaves(each))


def _saved_bytes(task: Task, state: TrainState, batch: Tree) -> int:
    """Returns the bytes that a forward pass hands to its backward pass: what the gradient function closes over.

    XLA fuses and recomputes some of them, so the true number is lower; temporary buffers come on top.
    """

    def backward(params: Tree, frozen: Tree, model_state: Tree, batch: Tree) -> Callable:
        def loss(own: Tree) -> jax.Array:
            everything = {**frozen, **params, NETWORK: own}
            return task.losses[NETWORK](everything, model_state, batch, jax.random.key(0))[0]

        return jax.vjp(loss, params[NETWORK])[1]

    kept = jax.eval_shape(backward, state.params, task.frozen_params, state.model_state, batch)
    own = {(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state.params)}
    leaves = [leaf for leaf in jax.tree.leaves(kept) if (leaf.shape, leaf.dtype) not in own]
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def _forward_flop(config: sections.RunConfig, shape: tuple[int, int, int], num_classes: int) -> float:
    network = make_network(config.network_for(num_classes), dtype=config.dtype)
    params, model_state = network.shapes
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    number = jax.ShapeDtypeStruct((1,), jnp.int32)
    wanted = {
        "diffusion": (image, number, _conditions(config, num_classes, 1)),
        "noisy_classification": (image, number),
    }
    inputs = wanted.get(config.task, (image,))
    options: dict[str, Any] = {"train": False} if config.task == "classification" else {}
    return _flop(lambda p, s, *x: network.apply(p, s, *x, **options)[0], params, model_state, *inputs)
