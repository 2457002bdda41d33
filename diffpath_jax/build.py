"""From config sections to objects. The only place where a string chooses an implementation."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffpath_jax import conditioning, diffusion, losses, timesteps
from diffpath_jax.codecs import Codec, PixelCodec
from diffpath_jax.config import convert
from diffpath_jax.diffusion import NoiseSchedule, Prediction
from diffpath_jax.errors import DiffpathError
from diffpath_jax.networks.classifier_adm import NoisyClassifier, NoisyClassifierConfig
from diffpath_jax.networks.pure import PureNetwork, purify
from diffpath_jax.networks.resnet import ResNet, ResNetConfig
from diffpath_jax.networks.unet_adm import UNet, UNetConfig
from diffpath_jax.networks.unet_authors import AuthorsUNet, AuthorsUNetConfig
from diffpath_jax.samplers import ancestral, ddim, grids, limits, scaling, solvers
from diffpath_jax.samplers.loop import Method
from diffpath_jax.sections import DiffusionConfig, NoiseConfig, RunConfig, SamplerConfig
from diffpath_jax.shapes import Denoised, Denoiser, Images, Labels, Timesteps, Tree
from diffpath_jax.task import Denoising, Task, classification_task, diffusion_task, noisy_classification_task


@dataclass(frozen=True)
class NetworkKind:
    """A kind of network.

    Attributes:
        config: dataclass of its numbers.
        module: takes such a dataclass.
        task: what it is for.
    """

    config: type
    module: Callable[..., Any]
    task: str


NETWORKS = {
    "unet_adm": NetworkKind(UNetConfig, UNet, "diffusion"),
    "unet_authors": NetworkKind(AuthorsUNetConfig, AuthorsUNet, "diffusion"),
    "resnet": NetworkKind(ResNetConfig, ResNet, "classification"),
    "noisy_classifier": NetworkKind(NoisyClassifierConfig, NoisyClassifier, "noisy_classification"),
}


# The spacing that belongs to a method; for the few-step solvers what is nearest to the exact flow of a Gaussian.
OWN_SPACING = {
    "ddpm": "even",
    "ddim": "leading",
    "heun": "log_snr",
    "dpmpp": "log_snr",
    "unipc": "log_snr",
    "ddpm_author_code": "even",
    "ddim_author_code": "author_code",
}


def network_config(config: RunConfig, *, num_classes: int, where: str = "config") -> Any:
    """The dataclass of the network's kind, for a data set with ``num_classes`` classes.

    Raises:
        DiffpathError: a kind that is unknown or for another task, or a number that does not fit.
    """
    name = config.network.get("kind")
    known = [key for key, kind in NETWORKS.items() if kind.task == config.task]
    if name not in known:
        why = f"{name!r} is no network for {config.task}"
        raise DiffpathError("key 'network.kind'", where=where, why=why, fix=f"use one of {', '.join(known)}")
    content = {key: value for key, value in config.network.items() if key != "kind"}
    # A denoiser has the null class as one more.
    rows = num_classes + (config.task == "diffusion")
    return convert(NETWORKS[name].config, {**content, "num_classes": rows}, where=f"section 'network' of {where}")


def network(config: RunConfig, *, num_classes: int) -> PureNetwork:
    """The network of a run.

    Raises:
        DiffpathError: its numbers do not fit each other.
    """
    shape = network_config(config, num_classes=num_classes)
    module = NETWORKS[config.network["kind"]].module
    try:
        return purify(lambda rngs: module(shape, dtype=jnp.dtype(config.dtype), rngs=rngs))
    except ValueError as error:
        fix = "choose numbers that divide"
        raise DiffpathError("section 'network'", where="the config", why=str(error), fix=fix) from error


def codec(config: RunConfig) -> Codec:
    """The space the model works in."""
    return PixelCodec()


def schedule(config: NoiseConfig) -> NoiseSchedule:
    """The noise schedule a model is trained with."""
    if config.schedule == "cosine":
        return diffusion.cosine_schedule(config.num_steps)
    make = {"linear": diffusion.linear_schedule, "scaled_linear": diffusion.scaled_linear_schedule}
    return make[config.schedule](config.num_steps, beta_start=config.beta_start, beta_end=config.beta_end)


def task(config: RunConfig, *, num_classes: int) -> Task:
    """What the run learns."""
    net, space = network(config, num_classes=num_classes), codec(config)
    smoothing = config.classifier.label_smoothing
    if config.task == "classification":
        return classification_task(net, space, label_smoothing=smoothing)
    assert config.noise is not None
    if config.task == "noisy_classification":
        return noisy_classification_task(net, space, schedule(config.noise), label_smoothing=smoothing)
    assert config.diffusion is not None
    return diffusion_task(net, space, denoising(config.noise, config.diffusion), num_classes=num_classes)


def denoising(noise: NoiseConfig, config: DiffusionConfig) -> Denoising:
    """How a diffusion model is taught."""
    levels = schedule(noise)
    draw = {"uniform": timesteps.uniform, "loss_aware": timesteps.loss_aware}[config.timesteps]
    weigh = config.loss == "min_snr"
    return Denoising(
        schedule=levels,
        prediction=config.prediction,
        timesteps=draw(levels.num_steps),
        weights=losses.min_snr_weight(config.prediction, levels, gamma=config.min_snr_gamma) if weigh else None,
        bound_weight=config.bound_weight if config.loss == "hybrid" else 0.0,
        label_dropout=config.label_dropout,
        label_dropout_group=config.label_dropout_group,
        input_perturbation=config.input_perturbation,
    )


def method(config: RunConfig, sampler: SamplerConfig) -> Method:
    """The sampler's method on its grid of the schedule that the run was trained with.

    Raises:
        DiffpathError: more steps than the model was trained with, or a learned variance that it has not.
    """
    assert config.noise is not None
    trained, name = schedule(config.noise), sampler.sampler
    grid = getattr(grids, OWN_SPACING[name] if sampler.spacing == "auto" else sampler.spacing)
    try:
        kept = grid(trained, sampler.steps)
        respaced = diffusion.respace(trained, kept)
    except ValueError as error:
        why = f"{sampler.steps} steps of the {trained.num_steps} that the model was trained with: {error}"
        raise DiffpathError("--steps", where="the command line", why=why, fix="give fewer") from error
    if name == "ddpm":
        return _ddpm(respaced, sampler, learns=config.network.get("learn_sigma", False))
    makers: dict[str, Callable[[], Method]] = {
        "ddim": lambda: ddim.ddim(respaced, eta=sampler.eta),
        "heun": lambda: solvers.heun(respaced),
        "dpmpp": lambda: solvers.dpmpp_2m(respaced),
        "unipc": lambda: solvers.unipc(respaced),
        "ddpm_author_code": lambda: ancestral.ddpm_author_code(respaced),
        "ddim_author_code": lambda: ddim.ddim(respaced, eta=sampler.eta, final_alpha_bar=trained.alpha_bar[0]),
    }
    return makers[name]()


def _ddpm(respaced: NoiseSchedule, sampler: SamplerConfig, *, learns: bool) -> Method:
    variance = {"auto": "learned" if learns else "small"}.get(sampler.variance, sampler.variance)
    if variance != "learned":
        chosen = {"small": respaced.posterior_variance, "large": respaced.betas}[variance]
        return ancestral.ddpm(respaced, variance=chosen)
    if not learns:
        why, fix = "the model was trained without a learned variance", "use small or large"
        raise DiffpathError("--variance learned", where="the command line", why=why, fix=fix)
    return ancestral.ddpm_learned(respaced)


def limit(sampler: SamplerConfig) -> limits.Limit:
    """What keeps a sampler's estimates within bounds."""
    if sampler.limit == "dynamic":
        return limits.dynamic_threshold(sampler.percentile)
    return {"clip": limits.clip, "none": limits.unlimited}[sampler.limit]


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
    net = network(config, num_classes=num_classes)
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
    return scaling.scale_eps(combined, slope=sampler.eps_slope, offset=sampler.eps_scale)


def log_likelihood(
    config: RunConfig, respaced: NoiseSchedule, *, params: Tree, model_state: Tree, labels: Labels, num_classes: int
) -> conditioning.LogLikelihood:
    """Log p(label | x_t) of a noisy classifier's run, t an index into ``respaced``."""
    net = network(config, num_classes=num_classes)
    original = np.asarray(respaced.timesteps)

    def found(x_t: Images, t: Timesteps) -> jax.Array:
        logits, _ = net.apply(params, model_state, x_t, jnp.asarray(original)[t])
        return jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]

    return found


def as_json(config: RunConfig) -> dict[str, Any]:
    """The resolved config, as it is stored with a run."""
    return json.loads(json.dumps(dataclasses.asdict(config)))
