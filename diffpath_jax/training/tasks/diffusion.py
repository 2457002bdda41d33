"""The task of denoising, and its objective."""

from dataclasses import dataclass

import jax

from diffpath_jax.diffusion import conditioning
from diffpath_jax.diffusion import schedule as diffusion
from diffpath_jax.diffusion.schedule import NoiseSchedule, Prediction, Table
from diffpath_jax.diffusion.timesteps import TimestepSampler
from diffpath_jax.networks.codecs import Codec
from diffpath_jax.networks.pure import PureNetwork
from diffpath_jax.shapes import Batch, PRNGKey, Scalar, Tree
from diffpath_jax.training.tasks import losses
from diffpath_jax.training.tasks.task import CODEC, NETWORK, TIMESTEPS, LossAux, Task


@dataclass(frozen=True)
class Denoising:
    """The objective of a diffusion model.

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
    network: PureNetwork, codec: Codec, objective: Denoising, *, num_classes: int, frozen_params: Tree | None = None
) -> Task:
    """Returns the task of class-conditional denoising (Ho et al. 2020, equation 14).

    The codec decides whether pixels or latents are denoised.

    With input perturbation (Ning et al. 2023, "Input perturbation reduces exposure bias", algorithm 1) the network
    sees x_t made with ``eps + gamma xi`` and is still asked for what belongs to eps. A learned variance adds
    ``bound_weight * T * L_t`` with the mean held fixed (Nichol and Dhariwal 2021, equation 16: 0.001).
    """
    schedule = objective.schedule

    def init(key: PRNGKey) -> tuple[Tree, Tree]:
        params, state = network.init(key)
        return {NETWORK: params}, {NETWORK: state, TIMESTEPS: objective.timesteps.init()}

    def loss(params: Tree, model_state: Tree, batch: Batch, key: PRNGKey) -> tuple[Scalar, LossAux]:
        t_key, noise_key, label_key, dropout_key, perturbation_key, codec_key = jax.random.split(key, 6)
        x_0 = codec.encode(params.get(CODEC, {}), batch, codec_key)
        t, importance = objective.timesteps.draw(model_state[TIMESTEPS], t_key, x_0.shape[0])
        eps = jax.random.normal(noise_key, x_0.shape)
        labels = conditioning.drop_labels(
            label_key,
            batch["label"],
            rate=objective.label_dropout,
            num_classes=num_classes,
            group=objective.label_dropout_group,
        )
        seen_eps = eps
        if objective.input_perturbation:
            seen_eps = eps + objective.input_perturbation * jax.random.normal(perturbation_key, eps.shape)
        x_t = diffusion.q_sample(schedule, x_0, t, seen_eps)
        output, network_state = network.apply(params[NETWORK], model_state[NETWORK], x_t, t, labels, dropout_key)
        prediction, fraction = diffusion.split_variance(output, x_0.shape[-1])
        target = diffusion.training_target(objective.prediction, schedule, x_0, t, eps)
        errors = losses.squared_error(prediction, target)
        metrics = losses.by_noise_level(errors, t, schedule.num_steps)
        values = errors if objective.weights is None else errors * diffusion.at(objective.weights, t, 1)
        if objective.bound_weight:
            if fraction is None:
                raise ValueError("the variational bound needs a network with a learned variance")
            eps_hat = diffusion.to_eps(objective.prediction, schedule, x_t, t, jax.lax.stop_gradient(prediction))
            mean = diffusion.posterior_mean(schedule, diffusion.x0_from_eps(schedule, x_t, t, eps_hat), x_t, t)
            log_variance = diffusion.learned_log_variance(schedule, fraction, t)
            bound = losses.variational_bound(schedule, x_0, x_t, t, mean, log_variance)
            values = values + objective.bound_weight * schedule.num_steps * bound
            metrics["bound_bits"] = losses.weighted(bound)
        model_state = {
            NETWORK: network_state,
            TIMESTEPS: objective.timesteps.update(model_state[TIMESTEPS], t, jax.lax.stop_gradient(values)),
        }
        return (values * importance).mean(), {"metrics": metrics, "model_state": model_state}

    return Task(init, {NETWORK: loss}, frozen_params or {})
