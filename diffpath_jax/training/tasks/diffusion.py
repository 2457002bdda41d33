"""The task of denoising, and its objective."""

from dataclasses import dataclass
from typing import Literal

import jax
from jaxtyping import Array, Float

from diffpath_jax.diffusion import conditioning
from diffpath_jax.diffusion import schedule as diffusion
from diffpath_jax.diffusion.schedule import NoiseSchedule, Prediction
from diffpath_jax.diffusion.timesteps import TimestepName, TimestepSampler
from diffpath_jax.networks.codecs import Codec
from diffpath_jax.networks.pure import PureNetwork
from diffpath_jax.ranges import NonNegativeReal, Positive, PositiveReal, Share
from diffpath_jax.shapes import Batch, Images, PRNGKey, Scalar, Timesteps, Tree
from diffpath_jax.training.tasks import losses
from diffpath_jax.training.tasks.task import CODEC, NETWORK, TIMESTEPS, LossAux, Task


@dataclass(frozen=True)
class DiffusionConfig:
    """The objective of a diffusion model: what it predicts, and with which loss.

    Attributes:
        prediction: what the network predicts.
        loss: ``simple`` squared error; ``hybrid`` adds the variational bound of a learned variance
            (``network.learn_sigma``); ``min_snr`` weights the squared error.
        min_snr_gamma: gamma of min-SNR weighting.
        bound_weight: lambda of the hybrid loss.
        timesteps: how timesteps are drawn.
        label_dropout: share of images whose label (and other conditions) are replaced by null values.
        label_dropout_group: images in a row whose labels are dropped together (the authors' code: a batch of 8).
        input_perturbation: gamma of DDPM-IP (published: 0.1); 0 for none.
    """

    prediction: Prediction
    loss: Literal["simple", "hybrid", "min_snr"] = "simple"
    min_snr_gamma: PositiveReal = 5.0
    bound_weight: PositiveReal = 1e-3
    timesteps: TimestepName = "uniform"
    label_dropout: Share = 0.1
    label_dropout_group: Positive = 1
    input_perturbation: NonNegativeReal = 0.0


def diffusion_task(
    network: PureNetwork,
    codec: Codec,
    schedule: NoiseSchedule,
    objective: DiffusionConfig,
    *,
    timesteps: TimestepSampler,
    nulls: conditioning.Nulls,
    frozen_params: Tree | None = None,
) -> Task:
    """Conditional denoising (Ho et al. 2020, equation 14), of pixels or of latents: the codec decides.

    With input perturbation (Ning et al. 2023, "Input perturbation reduces exposure bias", algorithm 1) the network
    sees x_t made with ``eps + gamma xi`` and is still asked for what belongs to eps. A learned variance adds
    ``bound_weight * T * L_t`` with the mean held fixed (Nichol and Dhariwal 2021, equation 16: 0.001).

    Args:
        network: ``(x_t, t, conditions, key)`` to the prediction.
        codec: between images and the space of ``x_0``.
        schedule: noise schedule.
        objective: prediction, loss, and what is done to conditions and noise.
        timesteps: how timesteps are drawn.
        nulls: null value of each condition that the network takes; batches have the conditions under these names.
        frozen_params: parameters of the codec, under its name.
    """
    weights = (
        losses.min_snr_weight(objective.prediction, schedule, gamma=objective.min_snr_gamma)
        if objective.loss == "min_snr"
        else None
    )

    def init(key: PRNGKey) -> tuple[Tree, Tree]:
        params, state = network.init(key)
        return {NETWORK: params}, {NETWORK: state, TIMESTEPS: timesteps.init()}

    def loss(params: Tree, model_state: Tree, batch: Batch, key: PRNGKey) -> tuple[Scalar, LossAux]:
        t_key, noise_key, label_key, dropout_key, perturbation_key, codec_key = jax.random.split(key, 6)
        x_0 = codec.encode(params.get(CODEC, {}), batch, codec_key)
        t, importance = timesteps.draw(model_state[TIMESTEPS], t_key, x_0.shape[0])
        eps = jax.random.normal(noise_key, x_0.shape)
        conditions = conditioning.drop(
            label_key,
            {name: batch[name] for name in nulls},
            nulls,
            rate=objective.label_dropout,
            group=objective.label_dropout_group,
        )
        seen_eps = eps
        if objective.input_perturbation:
            seen_eps = eps + objective.input_perturbation * jax.random.normal(perturbation_key, eps.shape)
        x_t = diffusion.q_sample(schedule, x_0, t, seen_eps)
        output, network_state = network.apply(params[NETWORK], model_state[NETWORK], x_t, t, conditions, dropout_key)
        prediction, fraction = diffusion.split_variance(output, x_0.shape[-1])
        target = diffusion.training_target(objective.prediction, schedule, x_0, t, eps)
        errors = losses.squared_error(prediction, target)
        metrics = losses.by_noise_level(errors, t, schedule.num_steps)
        values = errors if weights is None else errors * diffusion.at(weights, t, 1)
        if objective.loss == "hybrid":
            bound = _bound(objective.prediction, schedule, x_0, x_t, t, prediction, fraction)
            values = values + objective.bound_weight * schedule.num_steps * bound
            metrics["bound_bits"] = losses.weighted(bound)
        model_state = {
            NETWORK: network_state,
            TIMESTEPS: timesteps.update(model_state[TIMESTEPS], t, jax.lax.stop_gradient(values)),
        }
        return (values * importance).mean(), {"metrics": metrics, "model_state": model_state}

    return Task(init, {NETWORK: loss}, frozen_params or {})


def _bound(
    form: Prediction,
    schedule: NoiseSchedule,
    x_0: Images,
    x_t: Images,
    t: Timesteps,
    prediction: Images,
    fraction: Images | None,
) -> Float[Array, "b"]:
    """L_t of each image in bits a dimension; its gradient reaches the variance alone, not the mean.

    Raises:
        ValueError: the network predicts no variance.
    """
    if fraction is None:
        raise ValueError("the variational bound needs a network with a learned variance")
    eps_hat = diffusion.to_eps(form, schedule, x_t, t, jax.lax.stop_gradient(prediction))
    mean = diffusion.posterior_mean(schedule, diffusion.x0_from_eps(schedule, x_t, t, eps_hat), x_t, t)
    log_variance = diffusion.learned_log_variance(schedule, fraction, t)
    return losses.variational_bound(schedule, x_0, x_t, t, mean, log_variance)
