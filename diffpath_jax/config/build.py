"""From config sections to objects. The only place where a string chooses an implementation."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from diffpath_jax.config.files import convert
from diffpath_jax.config.sections import DiffusionConfig, LatentSpace, NoiseConfig, RunConfig, SamplerConfig
from diffpath_jax.diffusion import schedule as diffusion
from diffpath_jax.diffusion import timesteps
from diffpath_jax.diffusion.samplers import ddim, ddpm, solvers, spacing, thresholding
from diffpath_jax.diffusion.samplers.loop import Method
from diffpath_jax.diffusion.schedule import NoiseSchedule
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.networks.autoencoder import AutoencoderConfig, KLAutoencoder, KLConfig, VQAutoencoder, VQConfig
from diffpath_jax.networks.classifier_adm import NoisyClassifier, NoisyClassifierConfig
from diffpath_jax.networks.codecs import CERTAIN, GAUSSIAN, Codec, LatentCodec, PixelCodec
from diffpath_jax.networks.lpips import Lpips
from diffpath_jax.networks.patchgan import PatchDiscriminator, PatchGanConfig
from diffpath_jax.networks.pure import PureNetwork, purify
from diffpath_jax.networks.resnet import ResNet, ResNetConfig
from diffpath_jax.networks.unet_adm import UNet, UNetConfig
from diffpath_jax.networks.unet_authors import AuthorsUNet, AuthorsUNetConfig
from diffpath_jax.networks.unet_ldm import LatentUNet, LatentUNetConfig
from diffpath_jax.shapes import Tree
from diffpath_jax.training.tasks import losses
from diffpath_jax.training.tasks.autoencoding import (
    PERCEPTUAL,
    Adversary,
    Bottleneck,
    autoencoding_task,
    codebook,
    normal_distribution,
)
from diffpath_jax.training.tasks.classification import classification_task, noisy_classification_task
from diffpath_jax.training.tasks.diffusion import Denoising, diffusion_task
from diffpath_jax.training.tasks.task import Task


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
    "unet_ldm": NetworkKind(LatentUNetConfig, LatentUNet, "diffusion"),
    "vq_autoencoder": NetworkKind(VQConfig, VQAutoencoder, "autoencoding"),
    "kl_autoencoder": NetworkKind(KLConfig, KLAutoencoder, "autoencoding"),
}
POSTERIORS = {"vq_autoencoder": CERTAIN, "kl_autoencoder": GAUSSIAN}


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
    if config.task != "autoencoding":
        # A denoiser has the null class as one more.
        content["num_classes"] = num_classes + (config.task == "diffusion")
    return convert(NETWORKS[name].config, content, where=f"section 'network' of {where}")


def whole_network(config: RunConfig, *, num_classes: int) -> dict[str, Any]:
    """The section ``network`` with every key, given or default, as it is stored."""
    shape = network_config(config, num_classes=num_classes)
    return _as_stored({"kind": config.network["kind"], **dataclasses.asdict(shape)})


def network(config: RunConfig, *, num_classes: int) -> PureNetwork:
    """The network of a run.

    Raises:
        DiffpathError: its numbers do not fit each other.
    """
    shape = network_config(config, num_classes=num_classes)
    return _pure(config.network["kind"], shape, config.dtype, where="the config")


def _pure(kind: str, shape: Any, dtype: DTypeLike, *, where: str) -> PureNetwork:
    try:
        return purify(lambda rngs: NETWORKS[kind].module(shape, dtype=jnp.dtype(dtype), rngs=rngs))
    except ValueError as error:
        fix = "choose numbers that divide"
        raise DiffpathError("section 'network'", where=where, why=str(error), fix=fix) from error


def autoencoder(section: Mapping[str, Any], *, dtype: DTypeLike, where: str) -> PureNetwork:
    """The autoencoder that a section ``network`` describes.

    Raises:
        DiffpathError: a number does not fit.
        ValueError: it describes another kind of network.
    """
    kind = section["kind"]
    if kind not in POSTERIORS:
        raise ValueError(f"{kind!r} is no autoencoder")
    return _pure(kind, _autoencoder_config(section, where=where), dtype, where=where)


def _autoencoder_config(section: Mapping[str, Any], *, where: str) -> AutoencoderConfig:
    content = {key: value for key, value in section.items() if key != "kind"}
    return convert(NETWORKS[section["kind"]].config, content, where=f"the autoencoder of {where}")


def lpips(dtype: DTypeLike) -> PureNetwork:
    """The perceptual distance."""
    return purify(lambda rngs: Lpips(dtype=jnp.dtype(dtype), rngs=rngs))


def published_space() -> LatentSpace:
    """VQ-f4 as published, without its parameters: what a dry run assumes where no first stage is named."""
    network = _as_stored({"kind": "vq_autoencoder", **dataclasses.asdict(VQConfig())})
    return LatentSpace(network=network, scale=1.0, digest="")


def codec(space: LatentSpace | None, *, dtype: DTypeLike) -> Codec:
    """The space a model works in: pixels, or latents."""
    return PixelCodec() if space is None else latent_codec(space, dtype=dtype)


def latent_codec(space: LatentSpace, *, dtype: DTypeLike) -> LatentCodec:
    """The latents of an autoencoder."""
    shape = _autoencoder_config(space.network, where="the run")
    return LatentCodec(
        network=autoencoder(space.network, dtype=dtype, where="the run"),
        posterior=POSTERIORS[space.network["kind"]],
        factor=shape.factor,
        channels=shape.latent_channels,
        scale=space.scale,
    )


def schedule(config: NoiseConfig) -> NoiseSchedule:
    """The noise schedule a model is trained with."""
    if config.schedule == "cosine":
        return diffusion.cosine_schedule(config.num_steps)
    make = {"linear": diffusion.linear_schedule, "scaled_linear": diffusion.scaled_linear_schedule}
    return make[config.schedule](config.num_steps, beta_start=config.beta_start, beta_end=config.beta_end)


def task(config: RunConfig, *, num_classes: int, space: LatentSpace | None = None, given: Tree | None = None) -> Task:
    """What the run learns.

    Args:
        config: of the run.
        num_classes: of its data.
        space: latents that are denoised or classified; none for pixels.
        given: parameters that it uses and does not train: the first stage's under ``codec``, those of LPIPS under
            ``perceptual``.
    """
    net, smoothing = network(config, num_classes=num_classes), config.classifier.label_smoothing
    if config.task == "classification":
        return classification_task(net, label_smoothing=smoothing)
    if config.task == "autoencoding":
        return _autoencoding(config, net, given or {})
    assert config.noise is not None
    into = codec(space, dtype=config.dtype)
    if config.task == "noisy_classification":
        return noisy_classification_task(
            net, into, schedule(config.noise), label_smoothing=smoothing, frozen_params=given
        )
    assert config.diffusion is not None
    return diffusion_task(
        net, into, denoising(config.noise, config.diffusion), num_classes=num_classes, frozen_params=given
    )


def _autoencoding(config: RunConfig, net: PureNetwork, given: Tree) -> Task:
    how = config.autoencoding
    assert how is not None
    shape, dtype = network_config(config, num_classes=0), jnp.dtype(config.dtype)
    adversary = None
    if how.adversarial_weight:
        critic = PatchGanConfig(width=how.discriminator_width, num_layers=how.discriminator_layers)
        judge = purify(lambda rngs: PatchDiscriminator(critic, dtype=dtype, rngs=rngs))
        adversary = Adversary(judge, weight=how.adversarial_weight, start=how.adversarial_start)
    perceptual = None
    if PERCEPTUAL in given:
        perceptual = (lpips(dtype), given[PERCEPTUAL])
    makers: dict[str, Callable[[], Bottleneck]] = {
        "vq_autoencoder": lambda: codebook(
            net,
            size=shape.codebook_size,
            commitment=how.commitment,
            on=how.commitment_on,
            revive_after=how.revive_after,
        ),
        "kl_autoencoder": normal_distribution,
    }
    return autoencoding_task(
        net,
        makers[config.network["kind"]](),
        adversary=adversary,
        perceptual=perceptual,
        bottleneck_weight=how.bottleneck_weight,
    )


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
    grid = getattr(spacing, OWN_SPACING[name] if sampler.spacing == "auto" else sampler.spacing)
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
        "ddpm_author_code": lambda: ddpm.ddpm_author_code(respaced),
        "ddim_author_code": lambda: ddim.ddim(respaced, eta=sampler.eta, final_alpha_bar=trained.alpha_bar[0]),
    }
    return makers[name]()


def _ddpm(respaced: NoiseSchedule, sampler: SamplerConfig, *, learns: bool) -> Method:
    variance = {"auto": "learned" if learns else "small"}.get(sampler.variance, sampler.variance)
    if variance != "learned":
        chosen = {"small": respaced.posterior_variance, "large": respaced.betas}[variance]
        return ddpm.ddpm(respaced, variance=chosen)
    if not learns:
        why, fix = "the model was trained without a learned variance", "use small or large"
        raise DiffpathError("--variance learned", where="the command line", why=why, fix=fix)
    return ddpm.ddpm_learned(respaced)


def limit(config: RunConfig, sampler: SamplerConfig) -> thresholding.Limit:
    """What keeps a sampler's estimates within bounds; latents have none."""
    chosen = {"auto": "clip" if config.codec is None else "none"}.get(sampler.limit, sampler.limit)
    if chosen == "dynamic":
        return thresholding.dynamic_threshold(sampler.percentile)
    return {"clip": thresholding.clip, "none": thresholding.unlimited}[chosen]


def as_json(config: RunConfig) -> dict[str, Any]:
    """The resolved config, as it is stored with a run."""
    return _as_stored(dataclasses.asdict(config))


def _as_stored(content: Mapping[str, Any]) -> dict[str, Any]:
    """With lists for tuples, as JSON gives it back."""
    return json.loads(json.dumps(content))
