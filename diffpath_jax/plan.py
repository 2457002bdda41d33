"""What a training run would cost, found without allocating it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from diffpath_jax import build, sections, sharding
from diffpath_jax.shapes import Tree
from diffpath_jax.task import NETWORK, Task
from diffpath_jax.train_step import TrainState, init_state

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
        saved_bytes: what the forward pass keeps for the backward pass on one device, before XLA's own savings.
        steps: steps of the run.
    """

    parameters: int
    forward_flop: float
    step_flop: float
    state_bytes: int
    gradient_bytes: int
    saved_bytes: int
    steps: int

    @property
    def device_bytes(self) -> int:
        """Upper estimate of a device's memory."""
        return self.state_bytes + self.gradient_bytes + self.saved_bytes

    def hours(self, *, flop_per_second: float) -> float:
        """Length of the run at a given total speed."""
        return self.steps * self.step_flop / flop_per_second / 3600


def plan(config: sections.RunConfig, *, image_px: tuple[int, int], num_classes: int, devices: int) -> Plan:
    """Work out a run on ``devices`` devices; nothing is allocated or compiled."""
    task = build.task(config, num_classes=num_classes)
    batch = _shapes(config.data.batch_size, image_px)
    state = jax.eval_shape(
        lambda key: init_state(task, config.optim, key=key, batch=batch, num_steps=config.train.num_steps),
        jax.random.key(0),
    )
    split = sharding.state_shardings(state, sharding.abstract_mesh(devices, fsdp=config.train.fsdp))
    forward = _forward_flop(config, image_px, num_classes)
    forwards = REMAT_FORWARDS if config.network.get("remat") else TRAIN_FORWARDS
    part = max(config.data.batch_size // config.optim.accumulate // devices, 1)
    return Plan(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        forward_flop=forward,
        step_flop=forwards * forward * config.data.batch_size,
        state_bytes=_bytes_on_one(state, split),
        gradient_bytes=_bytes_on_one(state.params, split.params),
        saved_bytes=_saved_bytes(task, state, _shapes(part, image_px)),
        steps=config.train.num_steps,
    )


def _shapes(count: int, image_px: tuple[int, int]) -> dict[str, jax.ShapeDtypeStruct]:
    return {
        "image": jax.ShapeDtypeStruct((count, *image_px, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((count,), jnp.int32),
    }


def _bytes_on_one(shapes: Any, places: Any) -> int:
    """Bytes that one device holds."""
    each = jax.tree.map(
        lambda leaf, place: math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize, shapes, places
    )
    return sum(jax.tree.leaves(each))


def _saved_bytes(task: Task, state: TrainState, batch: Tree) -> int:
    """Bytes that a forward pass hands to its backward pass: the arrays that the gradient function closes over.

    XLA fuses and recomputes some of them, so the true number is lower; temporary buffers come on top.
    """

    def backward(params: Tree, model_state: Tree, batch: Tree) -> Callable:
        def loss(params: Tree) -> jax.Array:
            return task.losses[NETWORK](params, model_state, batch, jax.random.key(0))[0]

        return jax.vjp(loss, params)[1]

    kept = jax.eval_shape(backward, state.params, state.model_state, batch)
    own = {(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state.params)}
    leaves = [leaf for leaf in jax.tree.leaves(kept) if (leaf.shape, leaf.dtype) not in own]
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def _forward_flop(config: sections.RunConfig, image_px: tuple[int, int], num_classes: int) -> float:
    network = build.network(config, num_classes=num_classes)
    params, model_state = jax.eval_shape(network.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, *image_px, 3), jnp.float32)
    number = jax.ShapeDtypeStruct((1,), jnp.int32)
    wanted = {"diffusion": (image, number, number), "noisy_classification": (image, number), "classification": (image,)}
    inputs, options = wanted[config.task], {"train": False} if config.task == "classification" else {}
    lowered = jax.jit(lambda p, s, *x: network.apply(p, s, *x, **options)[0]).lower(params, model_state, *inputs)
    return float((lowered.cost_analysis() or {}).get("flops", float("nan")))
