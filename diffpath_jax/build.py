"""From config sections to objects. The only place where a string chooses an implementation."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffpath_jax import conditioning, diffusion, losses, samplers, timesteps
from diffpath_jax.codecs import Codec, PixelCodec
from diffpath_jax.config import convert
from diffpath_jax.data.manifest import Dataset, open_dataset
from diffpath_jax.diffusion import NoiseSchedule, Prediction
from diffpath_jax.errors import DiffpathError
from diffpath_jax.networks.pure import PureNetwork, purify
from diffpath_jax.networks.resnet import ResNet, ResNetConfig
from diffpath_jax.networks.unet_adm import UNet, UNetConfig
from diffpath_jax.networks.unet_authors import AuthorsUNet, AuthorsUNetConfig
from diffpath_jax.optim import OptimConfig
from diffpath_jax.sections import ClassifierConfig, DataConfig, DiffusionConfig, RunConfig, SamplerConfig, TrainConfig
from diffpath_jax.shapes import Denoiser, Images, Labels, Timesteps, Tree
from diffpath_jax.task import Denoising, Task, classification_task, diffusion_task

_SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "diffusion": DiffusionConfig,
    "classifier": ClassifierConfig,
    "optim": OptimConfig,
    "train": TrainConfig,
}


def with_defaults(content: Mapping[str, Any]) -> dict[str, Any]:
    """A config with every key that has a default, so that the command line can override it.

    What does not fit is left as it is: :func:`run_config` says why.
    """
    kinds = dict(_SECTIONS)
    network = content.get("network")
    if isinstance(network, Mapping) and network.get("kind") in _NETWORKS:
        kinds["network"] = _NETWORKS[network["kind"]][0]
    whole = dict(content)
    for name, kind in kinds.items():
        if isinstance(whole.get(name), Mapping):
            defaults = {f.name: f.default for f in dataclasses.fields(kind) if f.default is not dataclasses.MISSING}
            whole[name] = {**defaults, **whole[name]}
    return whole


def run_config(content: Mapping[str, Any], *, where: str) -> RunConfig:
    """Check a config; every key must exist and fit.

    Raises:
        DiffpathError: naming the key.
    """
    made: dict[str, Any] = {
        name: convert(kind, content[name], where=f"section {name!r} of {where}")
        for name, kind in _SECTIONS.items()
        if isinstance(content.get(name), Mapping)
    }
    config = convert(RunConfig, {**content, **made}, where=where)
    if config.task == "diffusion" and config.diffusion is None:
        raise DiffpathError("section 'diffusion'", where=where, why="missing", fix="add it, or change task")
    _check_variance(config, where=where)
    _check_watching(config.train, where=where)
    return config


def _check_variance(config: RunConfig, *, where: str) -> None:
    """A learned variance and the hybrid loss need each other."""
    learns = getattr(network_config(config, num_classes=2, where=where), "learn_sigma", False)
    if config.diffusion is not None and learns != (config.diffusion.loss == "hybrid"):
        raise DiffpathError(
            "key 'diffusion.loss'",
            where=where,
            why=f"{config.diffusion.loss!r} does not go with network.learn_sigma = {learns}",
            fix="a learned variance needs the hybrid loss, and the hybrid loss a learned variance",
        )


def _check_watching(config: TrainConfig, *, where: str) -> None:
    """The best checkpoint can be kept only if each is looked at; a distance needs features."""
    best, looks = config.keep_best, config.eval_every
    if best and best not in ("val_loss", "val_accuracy") and not best.startswith("FD-"):
        fix = "use val_loss, val_accuracy or FD-NAME"
        raise DiffpathError("key 'train.keep_best'", where=where, why=f"{best!r} is not measured", fix=fix)
    if best and (not looks or config.checkpoint_every % looks):
        why = f"checkpoints come every {config.checkpoint_every} steps and looks every {looks}"
        fix = "make train.checkpoint_every a multiple of train.eval_every"
        raise DiffpathError("key 'train.keep_best'", where=where, why=why, fix=fix)
    if config.fd_images and not config.fd_features:
        fix = "name a classifier's run directory"
        raise DiffpathError("key 'train.fd_features'", where=where, why="empty, but fd_images is not", fix=fix)


# kind: (dataclass, module, whether the network takes the null class as one more class)
_NETWORKS: dict[str, tuple[type, Callable[..., Any], bool]] = {
    "unet_adm": (UNetConfig, UNet, True),
    "unet_authors": (AuthorsUNetConfig, AuthorsUNet, True),
    "resnet": (ResNetConfig, ResNet, False),
}


def network_config(config: RunConfig, *, num_classes: int, where: str = "config") -> Any:
    """The dataclass of the network's kind, for a data set with ``num_classes`` classes."""
    kind = config.network.get("kind")
    if kind not in _NETWORKS:
        known = ", ".join(_NETWORKS)
        raise DiffpathError("key 'network.kind'", where=where, why=f"{kind!r} is unknown", fix=f"use one of {known}")
    dataclass_type, _, takes_null = _NETWORKS[kind]
    content = {key: value for key, value in config.network.items() if key != "kind"}
    return convert(
        dataclass_type,
        {**content, "num_classes": num_classes + takes_null},
        where=f"section 'network' of {where}",
    )


def network(config: RunConfig, *, num_classes: int) -> PureNetwork:
    """The network of a run.

    Raises:
        DiffpathError: its numbers do not fit each other.
    """
    shape = network_config(config, num_classes=num_classes)
    module = _NETWORKS[config.network["kind"]][1]
    try:
        return purify(lambda rngs: module(shape, dtype=jnp.dtype(config.dtype), rngs=rngs))
    except ValueError as error:
        fix = "choose numbers that divide"
        raise DiffpathError("section 'network'", where="the config", why=str(error), fix=fix) from error


def codec(config: RunConfig) -> Codec:
    """The space the model works in."""
    return PixelCodec()


def schedule(config: DiffusionConfig) -> NoiseSchedule:
    """The noise schedule a model is trained with."""
    if config.schedule == "cosine":
        return diffusion.cosine_schedule(config.num_steps)
    make = {"linear": diffusion.linear_schedule, "scaled_linear": diffusion.scaled_linear_schedule}
    return make[config.schedule](config.num_steps, beta_start=config.beta_start, beta_end=config.beta_end)


def task(config: RunConfig, *, num_classes: int) -> Task:
    """What the run learns."""
    net = network(config, num_classes=num_classes)
    if config.task == "classification":
        return classification_task(net, codec(config), label_smoothing=config.classifier.label_smoothing)
    assert config.diffusion is not None
    return diffusion_task(net, codec(config), denoising(config.diffusion), num_classes=num_classes)


def denoising(config: DiffusionConfig) -> Denoising:
    """How a diffusion model is taught."""
    noise = schedule(config)
    draw = {"uniform": timesteps.uniform, "loss_aware": timesteps.loss_aware}[config.timesteps]
    weigh = config.loss == "min_snr"
    return Denoising(
        schedule=noise,
        prediction=config.prediction,
        timesteps=draw(config.num_steps),
        weights=losses.min_snr_weight(config.prediction, noise, gamma=config.min_snr_gamma) if weigh else None,
        bound_weight=config.bound_weight if config.loss == "hybrid" else 0.0,
        label_dropout=config.label_dropout,
        label_dropout_group=config.label_dropout_group,
        input_perturbation=config.input_perturbation,
    )


def check_devices(config: RunConfig, devices: int, *, where: str) -> None:
    """Refuse a batch or a mesh that ``devices`` devices cannot share.

    Raises:
        DiffpathError: naming the key.
    """
    parts = devices * config.optim.accumulate
    for key, value, divisor, of in (
        ("data.batch_size", config.data.batch_size, parts, f"{devices} devices times {config.optim.accumulate} parts"),
        ("train.fsdp", devices, config.train.fsdp, f"groups of {config.train.fsdp}"),
    ):
        if value % divisor:
            why = f"{value} cannot be divided over {of}"
            raise DiffpathError(f"key {key!r}", where=where, why=why, fix="change it")


def check_image_size(config: RunConfig, image_px: tuple[int, int], *, where: str) -> None:
    """Refuse images that the network cannot halve as often as it wants to.

    Raises:
        DiffpathError: naming the stride.
    """
    stride = getattr(network_config(config, num_classes=2, where=where), "stride", 1)
    if any(side % stride for side in image_px):
        raise DiffpathError(
            "section 'network'",
            where=where,
            why=f"images of {image_px[0]}x{image_px[1]} px are not a multiple of its stride {stride}",
            fix="choose fewer levels in channel_mult, or prepare patches of another size",
        )


def datasets(config: RunConfig, *, where: str) -> list[Dataset]:
    """Open and verify the training data; all data sets must agree in image size and classes.

    Raises:
        DiffpathError: none is named, one is missing or damaged, or they do not agree.
    """
    directories = config.data.directories()
    if not directories:
        fix = "add --config.data.train=DATASET"
        raise DiffpathError("key 'data.train'", where=where, why="names no data set", fix=fix)
    found = [open_dataset(directory) for directory in directories]
    for other in found[1:]:
        if other.schema != found[0].schema:
            raise DiffpathError(
                "data set",
                where=other.directory,
                why=f"its images and classes {other.schema} are not those of {found[0].directory}",
                fix="mix only data sets of one size and one list of classes",
            )
    return found


def sampling_schedule(trained: NoiseSchedule, config: SamplerConfig) -> NoiseSchedule:
    """The respaced schedule of a sampler: ADM's even grid for DDPM, DDIM's own strided grid for DDIM.

    Raises:
        DiffpathError: more steps than the model was trained with.
    """
    if config.steps > trained.num_steps:
        raise DiffpathError(
            "--steps",
            where="the command line",
            why=f"{config.steps} is more than the {trained.num_steps} steps the model was trained with",
            fix=f"give at most {trained.num_steps}",
        )
    grid = diffusion.strided_steps if config.sampler == "ddim" else diffusion.even_steps
    return diffusion.respace(trained, grid(trained.num_steps, config.steps))


def step_rule(config: RunConfig, sampler: SamplerConfig, respaced: NoiseSchedule) -> samplers.StepRule:
    """The step rule of a sampler.

    Raises:
        DiffpathError: a learned variance is asked for that the network did not learn.
    """
    if sampler.sampler == "ddim":
        return samplers.ddim_rule(respaced, eta=sampler.eta)
    if sampler.sampler == "ddpm_author_code":
        return samplers.ddpm_author_code_rule(respaced)
    learned = config.network.get("learn_sigma", False)
    variance = {"auto": "learned" if learned else "small"}.get(sampler.variance, sampler.variance)
    if variance == "learned":
        if not learned:
            raise DiffpathError(
                "--variance learned",
                where="the command line",
                why="the model was trained without a learned variance",
                fix="use small or large",
            )
        return samplers.ddpm_learned_rule(respaced)
    return samplers.ddpm_rule(respaced, variance=respaced.posterior_variance if variance == "small" else respaced.betas)


def denoiser(
    config: RunConfig,
    sampler: SamplerConfig,
    respaced: NoiseSchedule,
    *,
    params: Tree,
    model_state: Tree,
    labels: Labels,
    num_classes: int,
) -> Denoiser:
    """Network, parameters and labels as eps(x_t, t): guidance first, then conversion to eps, then its scaling."""
    assert config.diffusion is not None
    prediction: Prediction = config.diffusion.prediction
    net = network(config, num_classes=num_classes)
    original = np.asarray(respaced.timesteps)

    def predict(x_t: Images, t: Timesteps, y: Labels) -> conditioning.Output:
        output, _ = net.apply(params, model_state, x_t, jnp.asarray(original)[t], y)
        return diffusion.split_variance(output, x_t.shape[-1])

    guided = conditioning.with_guidance(predict, labels, weight=sampler.guidance, num_classes=num_classes)

    def eps(x_t: Images, t: Timesteps) -> tuple[Images, Images | None]:
        output, variance = guided(x_t, t)
        return diffusion.to_eps(prediction, respaced, x_t, t, output), variance

    return samplers.scale_eps(eps, slope=sampler.eps_slope, offset=sampler.eps_scale)


def as_json(config: RunConfig) -> dict[str, Any]:
    """The resolved config, as it is stored with a run."""
    return json.loads(json.dumps(dataclasses.asdict(config)))
