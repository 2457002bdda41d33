"""From a run and a sampler's options to what a sampler asks: the denoiser with labels, guidance and scaling in it."""

import jax
import jax.numpy as jnp
import numpy as np

from diffpath_jax.config.sections import RunConfig, SamplerConfig
from diffpath_jax.diffusion import conditioning, eps_scaling
from diffpath_jax.diffusion import schedule as diffusion
from diffpath_jax.diffusion.schedule import NoiseSchedule, Prediction
from diffpath_jax.networks.kinds import make_network
from diffpath_jax.shapes import Denoised, Denoiser, Images, Labels, Timesteps, Tree


def denoiser(
    config: RunConfig,
    sampler: SamplerConfig,
    respaced: NoiseSchedule,
    *,
    params: Tree,
    model_state: Tree,
    labels: Labels,
    num_classes: int,
    classifier: conditioning.LogLikelihood | None = None,
) -> Denoiser:
    """Network, parameters and labels as eps(x_t, t).

    Classifier-free guidance comes first, then conversion to eps, then a classifier's gradient, and the scaling of eps
    last: so it is applied once, to the guided eps.
    """
    assert config.noise is not None
    assert config.diffusion is not None
    prediction: Prediction = config.diffusion.prediction
    net = make_network(config.network_for(num_classes), dtype=config.dtype)
    original = np.asarray(respaced.timesteps)
    shown = jnp.full_like(labels, conditioning.null_label(num_classes)) if sampler.unconditional else labels
    share = original / (config.noise.num_steps - 1)

    def predict(x_t: Images, t: Timesteps, y: Labels) -> conditioning.Output:
        output, _ = net.apply(params, model_state, x_t, jnp.asarray(original)[t], y)
        return diffusion.split_variance(output, x_t.shape[-1])

    guided = conditioning.with_guidance(
        predict,
        shown,
        weight=sampler.guidance,
        num_classes=num_classes,
        active=(share >= sampler.guidance_from) & (share <= sampler.guidance_to),
    )

    def eps(x_t: Images, t: Timesteps) -> Denoised:
        output, variance = guided(x_t, t)
        return Denoised(diffusion.to_eps(prediction, respaced, x_t, t, output), variance)

    combined: Denoiser = eps
    if classifier is not None:
        combined = conditioning.with_classifier(
            eps,
            classifier,
            respaced,
            scale=sampler.classifier_scale,
            moves_mean=sampler.sampler in ("ddpm", "ddpm_author_code"),
        )
    return eps_scaling.scale_eps(combined, slope=sampler.eps_slope, offset=sampler.eps_scale)


def log_likelihood(
    config: RunConfig, respaced: NoiseSchedule, *, params: Tree, model_state: Tree, labels: Labels, num_classes: int
) -> conditioning.LogLikelihood:
    """Log p(label | x_t) of a noisy classifier's run, t an index into ``respaced``."""
    net = make_network(config.network_for(num_classes), dtype=config.dtype)
    original = np.asarray(respaced.timesteps)

    def found(x_t: Images, t: Timesteps) -> jax.Array:
        logits, _ = net.apply(params, model_state, x_t, jnp.asarray(original)[t])
        return jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]

    return found
