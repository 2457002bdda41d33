"""What there is to learn: parameters to start from, losses, and the space the model works in.

The training loop knows a :class:`Task` and nothing else of diffusion or classification.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from diffpath_jax import conditioning, diffusion, losses
from diffpath_jax.codecs import Codec
from diffpath_jax.diffusion import NoiseSchedule, Prediction
from diffpath_jax.networks.pure import PureNetwork
from diffpath_jax.shapes import Batch, PRNGKey, Scalar, Tree

# (all parameters by group, model state, batch, key) -> (loss, {"metrics": name -> Weighted, "model_state": ...})
Loss = Callable[[Tree, Tree, Batch, jax.Array], tuple[jax.Array, dict[str, Any]]]
NETWORK = "network"


@dataclass(frozen=True)
class Task:
    """Something to train.

    Attributes:
        init: key -> (parameters by group, model state).
        losses: the loss of each parameter group; groups are updated in this order within a step.
        codec: between images and the model's space.
    """

    init: Callable[[jax.Array], tuple[Tree, Tree]]
    losses: Mapping[str, Loss]
    codec: Codec


def _init(network: PureNetwork) -> Callable[[PRNGKey], tuple[Tree, Tree]]:
    def init(key: PRNGKey) -> tuple[Tree, Tree]:
        params, model_state = network.init(key)
        return {NETWORK: params}, model_state

    return init


def diffusion_task(
    network: PureNetwork,
    codec: Codec,
    schedule: NoiseSchedule,
    *,
    prediction: Prediction,
    label_dropout: float,
    num_classes: int,
) -> Task:
    """Class-conditional denoising with t uniform and labels dropped one by one (Ho et al. 2020, equation 14)."""

    def loss(params: Tree, model_state: Tree, batch: Batch, key: PRNGKey) -> tuple[Scalar, dict]:
        t_key, noise_key, label_key, dropout_key = jax.random.split(key, 4)
        x_0 = codec.encode(batch["image"])
        t = jax.random.randint(t_key, x_0.shape[:1], 0, schedule.num_steps)
        eps = jax.random.normal(noise_key, x_0.shape)
        labels = conditioning.drop_labels(label_key, batch["label"], rate=label_dropout, num_classes=num_classes)
        x_t = diffusion.q_sample(schedule, x_0, t, eps)
        output, model_state = network.apply(params[NETWORK], model_state, x_t, t, labels, dropout_key)
        target = diffusion.training_target(prediction, schedule, x_0, t, eps)
        values = losses.squared_error(output, target)
        metrics = losses.by_noise_level(values, t, schedule.num_steps)
        return values.mean(), {"metrics": metrics, "model_state": model_state}

    return Task(_init(network), {NETWORK: loss}, codec)


def classification_task(network: PureNetwork, codec: Codec, *, label_smoothing: float) -> Task:
    """Tell the class of an image."""

    def loss(params: Tree, model_state: Tree, batch: Batch, key: PRNGKey) -> tuple[Scalar, dict]:
        x = codec.encode(batch["image"])
        (logits, _), model_state = network.apply(params[NETWORK], model_state, x, train=True)
        values = losses.cross_entropy(logits, batch["label"], smoothing=label_smoothing)
        correct = (logits.argmax(axis=-1) == batch["label"]).astype(jnp.float32)
        metrics = {"accuracy": losses.weighted(correct)}
        return values.mean(), {"metrics": metrics, "model_state": model_state}

    return Task(_init(network), {NETWORK: loss}, codec)
