"""The task of denoising, and its objective."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffpath_jax.diffusion import conditioning
from diffpath_jax.diffusion.schedule import (
    NoiseSchedule,
    Prediction,
    at,
    learned_log_variance,
    posterior_mean,
    q_sample,
    split_variance,
    to_eps,
    training_target,
    x0_from_eps,
)
from diffpath_jax.diffusion.timesteps import TimestepName, TimestepSampler
from diffpath_jax.networks.codecs import Codec
from diffpath_jax.networks.pure import PureNetwork
from diffpath_jax.ranges import LogSnrCentre, LogSnrWidth, NonNegativeReal, Positive, PositiveReal, Share
from diffpath_jax.shapes import Batch, Conditions, Images, PRNGKey, Scalar, Timesteps, Tree, Weighted
from diffpath_jax.training.tasks import losses
from diffpath_jax.training.tasks.task import CODEC, NETWORK, TIMESTEPS, LossAux, Task


@dataclass(frozen=True)
class DiffusionConfig:
    """The objective of a diffusion model: what it predicts, and with which loss.

    Attributes:
        prediction: what the network predicts.
        loss: ``simple`` squared error; ``hybrid`` adds the variational bound of a learned variance
            (``network.learn_sigma``); ``min_snr`` and ``sigmoid`` weight the squared error.
        min_snr_gamma: gamma of min-SNR weighting.
        sigmoid_bias: log SNR at which sigmoid weighting has fallen to a half of its weight on eps (published: 2).
        bound_weight: lambda of the hybrid loss.
        timesteps: how timesteps are drawn: uniformly, ``loss_aware`` (the objective stays that of uniform ones), or
            with the log SNR of a ``laplace`` or a normal distribution (``logit_normal``), then the objective's own.
        log_snr_centre: where that distribution is highest.
        log_snr_width: b of Laplace (published: 0.5), the standard deviation of a normal one (2).
        label_dropout: share of images whose label (and other conditions) are replaced by null values.
        label_dropout_group: images in a row whose labels are dropped together (the authors' code: a batch of 8).
        input_perturbation: gamma of DDPM-IP (published: 0.1); 0 for none.
    """

    prediction: Prediction
    loss: Literal["simple", "hybrid", "min_snr", "sigmoid"] = "simple"
    min_snr_gamma: PositiveReal = 5.0
    sigmoid_bias: LogSnrCentre = 2.0
    bound_weight: PositiveReal = 1e-3
    timesteps: TimestepName = "uniform"
    log_snr_centre: LogSnrCentre = 0.0
    log_snr_width: LogSnrWidth = 0.5
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
    own_dropout: Mapping[str, ArrayLike] | None = None,
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
        own_dropout: share of images that are not told a condition, or each of its numbers, by the names of those that
            have one of their own.
        frozen_params: parameters of the codec, under its name.
    """
    parts = _Denoising(network, codec, schedule, objective, timesteps, nulls, own_dropout or {})
    return Task(parts.init, {NETWORK: parts.loss}, frozen_params or {})


class Noised(NamedTuple):
    """Images with noise, and what they are made of.

    Attributes:
        x_0: images, or latents.
        t: their timesteps.
        eps: their noise, which a prediction of noise is asked for.
        x_t: what the network sees.
    """

    x_0: Images
    t: Timesteps
    eps: Images
    x_t: Images


# Arrays of a schedule have no hash, which a method that is jitted would need.
@dataclass(frozen=True, eq=False)
class _Denoising:
    """The functions of the task, over what it consists of; see :func:`diffusion_task`."""

    network: PureNetwork
    codec: Codec
    schedule: NoiseSchedule
    objective: DiffusionConfig
    timesteps: TimestepSampler
    nulls: conditioning.Nulls
    own_dropout: Mapping[str, ArrayLike]

    def init(self, key: PRNGKey) -> tuple[Tree, Tree]:
        params, state = self.network.init(key)
        return {NETWORK: params}, {NETWORK: state, TIMESTEPS: self.timesteps.init()}

    def loss(self, params: Tree, model_state: Tree, batch: Batch, key: PRNGKey) -> tuple[Scalar, LossAux]:
        t_key, noise_key, label_key, dropout_key, perturbation_key, codec_key = jax.random.split(key, 6)
        x_0 = self.codec.encode(params.get(CODEC, {}), batch, codec_key)
        t, importance = self.timesteps.draw(model_state[TIMESTEPS], t_key, x_0.shape[0])
        noised = self._with_noise(x_0, t, noise_key, perturbation_key)
        conditions = self._with_dropout(batch, label_key)
        output, network_state = self.network.apply(
            params[NETWORK], model_state[NETWORK], noised.x_t, t, conditions, dropout_key
        )
        values, metrics = image_losses(self.objective, self.schedule, noised, output)
        after = {
            NETWORK: network_state,
            TIMESTEPS: self.timesteps.update(model_state[TIMESTEPS], t, jax.lax.stop_gradient(values)),
        }
        return (values * importance).mean(), {"metrics": metrics, "model_state": after}

    def _with_noise(self, x_0: Images, t: Timesteps, key: PRNGKey, perturbation_key: PRNGKey) -> Noised:
        eps, gamma = jax.random.normal(key, x_0.shape), self.objective.input_perturbation
        seen = eps + gamma * jax.random.normal(perturbation_key, eps.shape) if gamma else eps
        return Noised(x_0, t, eps, q_sample(self.schedule, x_0, t, seen))

    def _with_dropout(self, batch: Batch, key: PRNGKey) -> Conditions:
        rate, group = self.objective.label_dropout, self.objective.label_dropout_group
        told = {name: batch[name] for name in self.nulls}
        return conditioning.drop(key, told, self.nulls, rate=rate, group=group, own=self.own_dropout)


def image_losses(
    objective: DiffusionConfig, schedule: NoiseSchedule, noised: Noised, output: Images
) -> tuple[Float[Array, "b"], dict[str, Weighted]]:
    """Returns the loss of each image, and numbers for the log.

    Args:
        objective: prediction and loss.
        schedule: noise schedule.
        noised: what the network saw.
        output: of the network: its prediction, and a learned variance where it has one.
    """
    prediction, fraction = split_variance(output, noised.x_0.shape[-1])
    target = training_target(objective.prediction, schedule, noised.x_0, noised.t, noised.eps)
    values = losses.squared_error(prediction, target)
    metrics = losses.by_noise_level(values, noised.t, schedule.num_steps)
    if objective.loss == "min_snr":
        weights = losses.min_snr_weight(objective.prediction, schedule, gamma=objective.min_snr_gamma)
        values = values * at(weights, noised.t, 1)
    if objective.loss == "sigmoid":
        weights = losses.sigmoid_weight(objective.prediction, schedule, bias=objective.sigmoid_bias)
        values = values * at(weights, noised.t, 1)
    if objective.loss == "hybrid":
        bound = _bound(objective.prediction, schedule, noised, prediction, fraction)
        values = values + objective.bound_weight * schedule.num_steps * bound
        metrics["bound_bits"] = losses.weighted(bound)
    return values, metrics


def _bound(
    form: Prediction, schedule: NoiseSchedule, noised: Noised, prediction: Images, fraction: Images | None
) -> Float[Array, "b"]:
    """L_t of each image in bits a dimension; its gradient reaches the variance alone, not the mean.

    Raises:
        ValueError: the network predicts no variance.
    """
    if fraction is None:
        raise ValueError("the variational bound needs a network with a learned variance")
    x_0, t, _, x_t = noised
    eps_hat = to_eps(form, schedule, x_t, t, jax.lax.stop_gradient(prediction))
    mean = posterior_mean(schedule, x0_from_eps(schedule, x_t, t, eps_hat), x_t, t)
    log_variance = learned_log_variance(schedule, fraction, t)
    return losses.variational_bound(schedule, x_0, x_t, t, mean, log_variance)
