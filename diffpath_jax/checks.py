"""What is wrong with a config, its data or its options, said in one line before any work is done."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from diffpath_jax import build
from diffpath_jax.config import convert
from diffpath_jax.data.manifest import Dataset, open_dataset
from diffpath_jax.errors import DiffpathError
from diffpath_jax.optim import OptimConfig
from diffpath_jax.sections import (
    ClassifierConfig,
    DataConfig,
    DiffusionConfig,
    NoiseConfig,
    RunConfig,
    SamplerConfig,
    TrainConfig,
)

_SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "noise": NoiseConfig,
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
    if isinstance(network, Mapping) and network.get("kind") in build.NETWORKS:
        kinds["network"] = build.NETWORKS[network["kind"]].config
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
    needed = {"diffusion": ("noise", "diffusion"), "noisy_classification": ("noise",)}.get(config.task, ())
    for section in needed:
        if getattr(config, section) is None:
            raise DiffpathError(f"section {section!r}", where=where, why="missing", fix="add it, or change task")
    _check_variance(config, where=where)
    _check_watching(config.task, config.train, where=where)
    return config


def _check_variance(config: RunConfig, *, where: str) -> None:
    """A learned variance and the hybrid loss need each other."""
    learns = getattr(build.network_config(config, num_classes=2, where=where), "learn_sigma", False)
    if config.diffusion is not None and learns != (config.diffusion.loss == "hybrid"):
        raise DiffpathError(
            "key 'diffusion.loss'",
            where=where,
            why=f"{config.diffusion.loss!r} does not go with network.learn_sigma = {learns}",
            fix="a learned variance needs the hybrid loss, and the hybrid loss a learned variance",
        )


def _check_watching(task: str, config: TrainConfig, *, where: str) -> None:
    """The best checkpoint can be kept only by what is measured at each look; a distance needs features."""
    best, looks = config.keep_best, config.eval_every
    measured = "val_accuracy" if task == "classification" else "val_loss"
    if best and best != measured and not (task == "diffusion" and best.startswith(("FD-", "FID"))):
        fix = f"use {measured}" + (" or FD-NAME or FID" if task == "diffusion" else "")
        raise DiffpathError("key 'train.keep_best'", where=where, why=f"{best!r} is not measured", fix=fix)
    if best and (not looks or config.checkpoint_every % looks):
        why = f"checkpoints come every {config.checkpoint_every} steps and looks every {looks}"
        fix = "make train.checkpoint_every a multiple of train.eval_every"
        raise DiffpathError("key 'train.keep_best'", where=where, why=why, fix=fix)
    if config.fd_images and not config.fd_features:
        fix = "name a classifier's run directory"
        raise DiffpathError("key 'train.fd_features'", where=where, why="empty, but fd_images is not", fix=fix)


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


def check_image_size(config: RunConfig, image_px: tuple[int, int], *, where: str, fix: str) -> None:
    """Refuse images that the network cannot halve as often as it wants to; ``fix`` is what the user can do about it.

    Raises:
        DiffpathError: naming the stride.
    """
    stride = getattr(build.network_config(config, num_classes=2, where=where), "stride", 1)
    if any(side <= 0 or side % stride for side in image_px):
        raise DiffpathError(
            "section 'network'",
            where=where,
            why=f"images of {image_px[0]}x{image_px[1]} px are not a multiple of its stride {stride}",
            fix=fix,
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


def check_sampler(config: RunConfig, sampler: SamplerConfig, *, classifier: bool) -> None:
    """Refuse options of a sampler that this model cannot serve, or that would change nothing.

    Args:
        config: of a diffusion run.
        sampler: what is asked for.
        classifier: whether a noisy classifier is at hand.

    Raises:
        DiffpathError: naming the option.
    """
    assert config.diffusion is not None
    name, null = sampler.sampler, config.diffusion.label_dropout > 0
    least, most = sampler.guidance_from, sampler.guidance_to
    for option, wrong, why, fix in (
        ("--eta", sampler.eta > 0 and not name.startswith("ddim"), f"{name} has none", "use --sampler ddim"),
        ("--variance", sampler.variance != "auto" and name != "ddpm", f"{name} has none", "use --sampler ddpm"),
        ("--spacing", sampler.spacing != "auto" and name == "ddim_author_code", f"{name} has its own", "leave it out"),
        ("--guidance", sampler.guidance > 0 and not null, "the run trained no null class", "train with label_dropout"),
        ("--unconditional", sampler.unconditional and not null, "the run trained no null class", "leave it out"),
        ("--unconditional", sampler.unconditional and sampler.guidance > 0, "--guidance needs the class", "choose one"),
        ("--guidance_from", least >= most, f"{least} is not below --guidance_to {most}", "change one"),
        ("--classifier_scale", sampler.classifier_scale > 0 and not classifier, "no classifier", "add --classifier"),
        ("--classifier", classifier and not sampler.classifier_scale, "its scale is 0", "add --classifier_scale"),
    ):
        if wrong:
            raise DiffpathError(option, where="the command line", why=why, fix=fix)
    build.method(config, sampler)
