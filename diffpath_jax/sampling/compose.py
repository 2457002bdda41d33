"""From a run and a sampler's options to the denoiser, with conditions, guidance and scaling in it."""

import jax
import jax.numpy as jnp
import numpy as np

from diffpath_jax.config.sampling import own_guidance, sampler_kind
from diffpath_jax.config.sections import DiffusionRun, RunConfig, SamplerConfig
from diffpath_jax.diffusion import conditioning, eps_scaling
from diffpath_jax.diffusion.schedule import NoiseSchedule, split_variance, to_eps
from diffpath_jax.networks.conditions import null_values
from diffpath_jax.networks.kinds import make_network
from diffpath_jax.shapes import Conditions, Denoiser, DenoiserOutput, Images, Labels, Timesteps, Tree


def denoiser(
    config: DiffusionRun,
    options: SamplerConfig,
    respaced: NoiseSchedule,
    *,
    params: Tree,
    model_state: Tree,
    conditions: Conditions,
    num_classes: int,
    guide: conditioning.Conditional | None = None,
    classifier: conditioning.LogLikelihood | None = None,
) -> Denoiser:
    """Returns network, parameters and conditions as eps(x_t, t).

    Autoguidance comes first, then classifier-free guidance, conversion to eps, a classifier's gradient, and the scaling
    of eps last: so it is applied once, to the guided eps. Of what ``conditions`` lacks the network is told nothing.
    """
    nulls = null_values(config.network, num_classes)
    share = np.asarray(respaced.timesteps) / (config.noise.num_steps - 1)
    predict = prediction(config, respaced, params=params, model_state=model_state, num_classes=num_classes)
    if guide is not None:
        active = (share >= options.guide_from) & (share <= options.guide_to)
        predict = conditioning.with_autoguidance(predict, guide, weight=options.guide_weight, active=active)
    guided = conditioning.with_guidance(
        predict,
        _told({} if options.unconditional else conditions, nulls, count=next(iter(conditions.values())).shape[0]),
        nulls,
        weight=options.guidance,
        own=own_guidance(config, options),
        active=(share >= options.guidance_from) & (share <= options.guidance_to),
    )

    def eps(x_t: Images, t: Timesteps) -> DenoiserOutput:
        output, variance = guided(x_t, t)
        return DenoiserOutput(to_eps(config.diffusion.prediction, respaced, x_t, t, output), variance)

    combined: Denoiser = eps
    if classifier is not None:
        scale, as_score = options.classifier_scale, sampler_kind(options).takes_score
        combined = conditioning.with_classifier(eps, classifier, respaced, scale=scale, as_score=as_score)
    return eps_scaling.scale_eps(combined, slope=options.eps_slope, offset=options.eps_scale)


def prediction(
    config: DiffusionRun, respaced: NoiseSchedule, *, params: Tree, model_state: Tree, num_classes: int
) -> conditioning.Conditional:
    """Returns what the network of a run predicts of noisy images, t an index into ``respaced``."""
    net = make_network(config.network_for(num_classes), dtype=config.dtype)
    original = np.asarray(respaced.timesteps)

    def predict(x_t: Images, t: Timesteps, conditions: Conditions) -> conditioning.Output:
        output, _ = net.apply(params, model_state, x_t, jnp.asarray(original)[t], conditions)
        return split_variance(output, x_t.shape[-1])

    return predict


def _told(conditions: Conditions, nulls: conditioning.Nulls, *, count: int) -> dict[str, jax.Array]:
    """Conditions of ``count`` images: null values of conditions that are not there."""
    known = {name: conditions[name] for name in nulls if name in conditions}
    return {**conditioning.null(nulls, count), **known}


def log_likelihood(
    config: RunConfig, respaced: NoiseSchedule, *, params: Tree, model_state: Tree, labels: Labels, num_classes: int
) -> conditioning.LogLikelihood:
    """Returns log p(label | x_t) by a noisy classifier's run, t an index into ``respaced``."""
    net = make_network(config.network_for(num_classes), dtype=config.dtype)
    original = np.asarray(respaced.timesteps)

    def log_p(x_t: Images, t: Timesteps) -> jax.Array:
        logits, _ = net.apply(params, model_state, x_t, jnp.asarray(original)[t])
        return jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]

    return log_p
