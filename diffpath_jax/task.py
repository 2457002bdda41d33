"""What there is to learn: parameters to start from, and losses.

The training loop knows a :class:`Task` and nothing else of diffusion or classification.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from diffpath_jax import losses
from diffpath_jax.diffusion import conditioning
from diffpath_jax.diffusion import schedule as diffusion
from diffpath_jax.diffusion.schedule import NoiseSchedule, Prediction, Table
from diffpath_jax.diffusion.timesteps import TimestepSampler
from diffpath_jax.networks.codecs import Codec, to_unit
from diffpath_jax.networks.pure import PureNetwork
from diffpath_jax.shapes import Batch, PRNGKey, Scalar, Tree

# (all parameters by group, model state, batch, key) -> (loss, {"metrics": name -> Weighted, "model_state": ...})
Loss = Callable[[Tree, Tree, Batch, jax.Array], tuple[jax.Array, dict[str, Any]]]
# (parameters, their average, model state) -> the same, revised
Revise = Callable[[Tree, Tree, Tree], tuple[Tree, Tree, Tree]]
# Names in the parameters and in the model state: the network, its codec's, and what the timestep sampler has learnt.
NETWORK = "network"
CODEC = "codec"
TIMESTEPS = "timesteps"


def unrevised(params: Tree, average: Tree, model_state: Tree) -> tuple[Tree, Tree, Tree]:
    """Nothing is done after a step."""
    return params, average, model_state


@dataclass(frozen=True)
class Task:
    """Something to train.

    Attributes:
        init: key -> (parameters by group, model state by name).
        losses: the loss of each parameter group; groups are updated in this order within a step.
        given: parameters by group that the losses read and nobody trains (a first stage, a perceptual network).
        revise: what is done to parameters after each step besides descending a gradient.
    """

    init: Callable[[jax.Array], tuple[Tree, Tree]]
    losses: Mapping[str, Loss]
    given: Tree = field(default_factory=dict)
    revise: Revise = unrevised


@dataclass(frozen=True)
class Denoising:
    """How a diffusion model is taught.

    Attributes:
        schedule: noise schedule.
        prediction: what the network is asked for.
        weights: (T,) factor of the squared error at each timestep; none for 1.
        bound_weight: factor of the variational bound that teaches a learned variance; 0 where none is learnt.
        timesteps: how timesteps are drawn.
        label_dropout: share of labels replaced by the null class.
        label_dropout_group: images in a row whose labels are dropped together.
        input_perturbation: gamma of DDPM-IP; 0 for none.
    """

    schedule: NoiseSchedule
    prediction: Prediction
    timesteps: TimestepSampler
    weights: Table | None = None
    bound_weight: float = 0.0
    label_dropout: float = 0.1
    label_dropout_group: int = 1
    input_perturbation: float = 0.0


def diffusion_task(
    network: PureNetwork, codec: Codec, how: Denoising, *, num_classes: int, given: Tree | None = None
) -> Task:
    """Class-conditional denoising (Ho et al. 2020, equation 14), of pixels or of latents: the codec decides.

    With input perturbation (Ning et al. 2023, "Input perturbation reduces exposure bias", algorithm 1) the network
    sees x_t made with ``eps + gamma xi`` and is still asked for what belongs to eps. A learned variance adds
    ``bound_weight * T * L_t`` with the mean held fixed (Nichol and Dhariwal 2021, equation 16: 0.001).
    """
    schedule = how.schedule

    def init(key: PRNGKey) -> tuple[Tree, Tree]:
        params, state = network.init(key)
        return {NETWORK: params}, {NETWORK: state, TIMESTEPS: how.timesteps.init()}

    def loss(params: Tree, model_state: Tree, batch: Batch, key: PRNGKey) -> tuple[Scalar, dict]:
        t_key, noise_key, label_key, dropout_key, perturbation_key, codec_key = jax.random.split(key, 6)
        x_0 = codec.encode(params.get(CODEC, {}), batch, codec_key)
        t, importance = how.timesteps.draw(model_state[TIMESTEPS], t_key, x_0.shape[0])
        eps = jax.random.normal(noise_key, x_0.shape)
        labels = conditioning.drop_labels(
            label_key,
            batch["label"],
            rate=how.label_dropout,
            num_classes=num_classes,
            group=how.label_dropout_group,
        )
        seen_eps = eps
        if how.input_perturbation:
            seen_eps = eps + how.input_perturbation * jax.random.normal(perturbation_key, eps.shape)
        x_t = diffusion.q_sample(schedule, x_0, t, seen_eps)
        output, network_state = network.apply(params[NETWORK], model_state[NETWORK], x_t, t, labels, dropout_key)
        prediction, fraction = diffusion.split_variance(output, x_0.shape[-1])
        target = diffusion.training_target(how.prediction, schedule, x_0, t, eps)
        errors = losses.squared_error(prediction, target)
        metrics = losses.by_noise_level(errors, t, schedule.num_steps)
        values = errors if how.weights is None else errors * diffusion.at(how.weights, t, 1)
        if how.bound_weight:
            if fraction is None:
                raise ValueError("the variational bound needs a network with a learned variance")
            eps_hat = diffusion.to_eps(how.prediction, schedule, x_t, t, jax.lax.stop_gradient(prediction))
            mean = diffusion.posterior_mean(schedule, diffusion.x0_from_eps(schedule, x_t, t, eps_hat), x_t, t)
            log_variance = diffusion.learned_log_variance(schedule, fraction, t)
            bound = losses.variational_bound(schedule, x_0, x_t, t, mean, log_variance)
            values = values + how.bound_weight * schedule.num_steps * bound
            metrics["bound_bits"] = losses.weighted(bound)
        model_state = {
            NETWORK: network_state,
            TIMESTEPS: how.timesteps.update(model_state[TIMESTEPS], t, jax.lax.stop_gradient(values)),
        }
        return (values * importance).mean(), {"metrics": metrics, "model_state": model_state}

    return Task(init, {NETWORK: loss}, given or {})


def classification_task(network: PureNetwork, *, label_smoothing: float) -> Task:
    """Tell the class of an image."""

    def init(key: PRNGKey) -> tuple[Tree, Tree]:
        params, state = network.init(key)
        return {NETWORK: params}, {NETWORK: state}

    def loss(params: Tree, model_state: Tree, batch: Batch, key: PRNGKey) -> tuple[Scalar, dict]:
        x = to_unit(batch["image"])
        (logits, _), network_state = network.apply(params[NETWORK], model_state[NETWORK], x, train=True)
        values = losses.cross_entropy(logits, batch["label"], smoothing=label_smoothing)
        correct = (logits.argmax(axis=-1) == batch["label"]).astype(jnp.float32)
        metrics = {"accuracy": losses.weighted(correct)}
        return values.mean(), {"metrics": metrics, "model_state": {NETWORK: network_state}}

    return Task(init, {NETWORK: loss})


def noisy_classification_task(
    network: PureNetwork, codec: Codec, schedule: NoiseSchedule, *, label_smoothing: float, given: Tree | None = None
) -> Task:
    """Tell the class of a noisy image or latent, at any level, drawn evenly (Dhariwal and Nichol 2021, section 4.1)."""

    def init(key: PRNGKey) -> tuple[Tree, Tree]:
        params, state = network.init(key)
        return {NETWORK: params}, {NETWORK: state}

    def loss(params: Tree, model_state: Tree, batch: Batch, key: PRNGKey) -> tuple[Scalar, dict]:
        t_key, noise_key, dropout_key, codec_key = jax.random.split(key, 4)
        x_0 = codec.encode(params.get(CODEC, {}), batch, codec_key)
        t = jax.random.randint(t_key, (x_0.shape[0],), 0, schedule.num_steps)
        x_t = diffusion.q_sample(schedule, x_0, t, jax.random.normal(noise_key, x_0.shape))
        logits, network_state = network.apply(params[NETWORK], model_state[NETWORK], x_t, t, dropout_key)
        values = losses.cross_entropy(logits, batch["label"], smoothing=label_smoothing)
        correct = (logits.argmax(axis=-1) == batch["label"]).astype(jnp.float32)
        metrics = {"accuracy": losses.weighted(correct), **losses.by_noise_level(values, t, schedule.num_steps)}
        return values.mean(), {"metrics": metrics, "model_state": {NETWORK: network_state}}

    return Task(init, {NETWORK: loss}, given or {})
