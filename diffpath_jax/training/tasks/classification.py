"""The tasks of classifying clean images and noisy ones."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from diffpath_jax.diffusion.schedule import NoiseSchedule, q_sample
from diffpath_jax.networks.codecs import Codec, to_unit
from diffpath_jax.networks.pure import PureNetwork
from diffpath_jax.shapes import Batch, PRNGKey, Scalar, Tree
from diffpath_jax.training.tasks import losses
from diffpath_jax.training.tasks.rand_augment import rand_augment
from diffpath_jax.training.tasks.stain_jitter import jitter_stains
from diffpath_jax.training.tasks.task import CODEC, NETWORK, LossAux, Task

# The stain jitter draws from a step's key itself, augmentation from one beside it.
_RAND_AUGMENT = 1


def classification_task(
    network: PureNetwork,
    *,
    label_smoothing: float,
    class_weights: Float[np.ndarray, "classes"] | None = None,
    stain_jitter: float = 0.0,
    randaugment_ops: int = 0,
    randaugment_magnitude: float = 0.0,
) -> Task:
    """Returns the task of telling the class of an image.

    Args:
        network: images and ``train`` to (logits, features).
        label_smoothing: share of a label that is spread over all classes.
        class_weights: factor of the loss of an image of each class, 1 on average over all images; none for 1 each.
        stain_jitter: strength of :func:`diffpath_jax.training.tasks.stain_jitter.jitter_stains`; 0 for none.
        randaugment_ops: operations of :func:`diffpath_jax.training.tasks.rand_augment.rand_augment`, which come before;
            0 for none.
        randaugment_magnitude: their magnitude.
    """

    def init(key: PRNGKey) -> tuple[Tree, Tree]:
        params, state = network.init(key)
        return {NETWORK: params}, {NETWORK: state}

    def loss(params: Tree, model_state: Tree, batch: Batch, key: PRNGKey) -> tuple[Scalar, LossAux]:
        images = batch["image"]
        if randaugment_ops:
            own_key = jax.random.fold_in(key, _RAND_AUGMENT)
            images = rand_augment(images, own_key, ops=randaugment_ops, magnitude=randaugment_magnitude)
        x = jitter_stains(images, key, strength=stain_jitter) if stain_jitter else to_unit(images)
        (logits, _), network_state = network.apply(params[NETWORK], model_state[NETWORK], x, train=True)
        values = losses.cross_entropy(logits, batch["label"], smoothing=label_smoothing)
        if class_weights is not None:
            values *= jnp.asarray(class_weights, jnp.float32)[batch["label"]]
        correct = (logits.argmax(axis=-1) == batch["label"]).astype(jnp.float32)
        metrics = {"accuracy": losses.weighted(correct)}
        return values.mean(), {"metrics": metrics, "model_state": {NETWORK: network_state}}

    return Task(init, {NETWORK: loss})


def noisy_classification_task(
    network: PureNetwork,
    codec: Codec,
    schedule: NoiseSchedule,
    *,
    label_smoothing: float,
    frozen_params: Tree | None = None,
) -> Task:
    """Returns the task of telling the class of a noisy image or latent (Dhariwal and Nichol 2021, section 4.1).

    Noise levels are drawn evenly.
    """

    def init(key: PRNGKey) -> tuple[Tree, Tree]:
        params, state = network.init(key)
        return {NETWORK: params}, {NETWORK: state}

    def loss(params: Tree, model_state: Tree, batch: Batch, key: PRNGKey) -> tuple[Scalar, LossAux]:
        t_key, noise_key, dropout_key, codec_key = jax.random.split(key, 4)
        x_0 = codec.encode(params.get(CODEC, {}), batch, codec_key)
        t = jax.random.randint(t_key, (x_0.shape[0],), 0, schedule.num_steps)
        x_t = q_sample(schedule, x_0, t, jax.random.normal(noise_key, x_0.shape))
        logits, network_state = network.apply(params[NETWORK], model_state[NETWORK], x_t, t, dropout_key)
        values = losses.cross_entropy(logits, batch["label"], smoothing=label_smoothing)
        correct = (logits.argmax(axis=-1) == batch["label"]).astype(jnp.float32)
        metrics = {"accuracy": losses.weighted(correct), **losses.by_noise_level(values, t, schedule.num_steps)}
        return values.mean(), {"metrics": metrics, "model_state": {NETWORK: network_state}}

    return Task(init, {NETWORK: loss}, frozen_params or {})
