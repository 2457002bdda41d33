"""Checks of a config, its data and its options, before any work is done."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffpath_jax.config.files import convert, defaults_of
from diffpath_jax.config.network import FROM, read_network
from diffpath_jax.config.noise import schedule
from diffpath_jax.config.sections import (
    RUN_CONFIGS,
    AutoencodingConfig,
    ClassifierConfig,
    CodecConfig,
    DataConfig,
    DiffusionConfig,
    NoiseConfig,
    RunConfig,
)
from diffpath_jax.data.manifest import Dataset, open_dataset
from diffpath_jax.data.records import known_to_differ
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.networks.autoencoder import VQConfig
from diffpath_jax.networks.conditions import COLUMNS, FEATURES, SCALE
from diffpath_jax.networks.kinds import KINDS
from diffpath_jax.training.loggers import LOGGERS
from diffpath_jax.training.optim import OptimConfig
from diffpath_jax.training.recorder import TrainConfig

SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "noise": NoiseConfig,
    "diffusion": DiffusionConfig,
    "codec": CodecConfig,
    "autoencoding": AutoencodingConfig,
    "classifier": ClassifierConfig,
    "optim": OptimConfig,
    "train": TrainConfig,
}


def with_defaults(content: Mapping[str, Any]) -> dict[str, Any]:
    """A config with every key that has a default, so that the command line can override it.

    What does not fit is left as it is: :func:`run_config` says why.
    """
    sections: dict[str, type] = dict(SECTIONS)
    left_out: tuple[str, ...] = ()
    network = content.get("network")
    kind = network.get("kind") if isinstance(network, Mapping) else None
    if isinstance(kind, str) and kind in KINDS:
        sections["network"] = KINDS[kind].config
        left_out = KINDS[kind].config.FROM_DATA
    completed = dict(content)
    for name, section in sections.items():
        if isinstance(completed.get(name), Mapping):
            defaults = {key: value for key, value in defaults_of(section).items() if key not in left_out}
            completed[name] = {**defaults, **completed[name]}
    if isinstance(network, Mapping):
        completed["network"] = {FROM: "", **completed["network"]}
    return completed


def run_config(content: Mapping[str, Any], *, where: str) -> RunConfig:
    """Check a config; every key must exist and fit.

    Raises:
        DiffpathError: naming the key.
    """
    task = content.get("task")
    if not isinstance(task, str) or task not in RUN_CONFIGS:
        why = f"{task!r} is no task"
        raise DiffpathError("key 'task'", where=where, why=why, fix=f"use one of {', '.join(RUN_CONFIGS)}")
    kind = RUN_CONFIGS[task]
    for field in dataclasses.fields(kind):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name in (*SECTIONS, "network") and content.get(field.name) is None:
            raise DiffpathError(f"section {field.name!r}", where=where, why="missing", fix="add it, or change task")
    sections: dict[str, Any] = {
        name: convert(section, content[name], where=f"section {name!r} of {where}")
        for name, section in SECTIONS.items()
        if isinstance(content.get(name), Mapping)
    }
    sections["network"] = read_network(content["network"], task=task, where=where)
    config = convert(kind, {**content, **sections}, where=where)
    _check_variance(config, where=where)
    _check_noise(config, where=where)
    _check_latents(config, where=where)
    _check_watching(config.task, config.train, where=where)
    _check_loggers(config.train, where=where)
    _check_codebook(config, where=where)
    _check_warmup(config, where=where)
    _check_averages(config, where=where)
    _check_crops(config, where=where)
    _check_classifier(config, where=where)
    _check_profile(config.train, where=where)
    return config


def _check_variance(config: RunConfig, *, where: str) -> None:
    """A learned variance and the hybrid loss need each other."""
    learns = config.network.learn_sigma
    if config.diffusion is not None and learns != (config.diffusion.loss == "hybrid"):
        raise DiffpathError(
            "key 'diffusion.loss'",
            where=where,
            why=f"{config.diffusion.loss!r} does not go with network.learn_sigma = {learns}",
            fix="a learned variance needs the hybrid loss, and the hybrid loss a learned variance",
        )


def _check_noise(config: RunConfig, *, where: str) -> None:
    """Of the last step something of the image must be left: what it is divided by is not 0 in float32."""
    if config.noise is None:
        return
    left = float(schedule(config.noise).alpha_bar[-1])
    if left < np.finfo(np.float32).tiny:
        why = f"nothing is left of an image after {config.noise.num_steps} steps (alpha_bar {left:.2g})"
        raise DiffpathError("key 'noise.beta_end'", where=where, why=why, fix="lower it, or noise.num_steps")


# Tasks that noise what they are given.
_NOISED = ("diffusion", "noisy_classification")


def _check_latents(config: RunConfig, *, where: str) -> None:
    """Latents are noised, and the bound that teaches a variance is that of the 256 levels of pixels."""
    if config.codec is None:
        return
    for key, wrong, why, fix in (
        ("codec", config.task not in _NOISED, f"{config.task} works with images", "remove the section"),
        (
            "diffusion.loss",
            config.diffusion is not None and config.diffusion.loss == "hybrid",
            "its bound is that of pixels with 256 levels, not of latents",
            "use simple, and network.learn_sigma = False",
        ),
    ):
        if wrong:
            raise DiffpathError(f"key {key!r}", where=where, why=why, fix=fix)


def _check_codebook(config: RunConfig, *, where: str) -> None:
    """Codes that are chosen by logits give those no gradient."""
    if isinstance(config.network, VQConfig) and config.network.assignment != "nearest":
        why, fix = "codes chosen by logits are read from a published file, not trained", "use nearest"
        raise DiffpathError("key 'network.assignment'", where=where, why=why, fix=fix)


# What is measured at a look, by task; distances begin with one of these.
_MEASURED = {
    "diffusion": ("val_loss",),
    "autoencoding": ("val_psnr", "val_ssim"),
    "classification": ("val_accuracy", "val_balanced_accuracy"),
    "noisy_classification": ("val_loss",),
}
_DISTANCES = {"diffusion": ("FD-", "FID"), "autoencoding": ("rFD-", "rFID")}


def _check_warmup(config: RunConfig, *, where: str) -> None:
    """A learning rate that decays needs steps after its warm-up."""
    warmup, steps = config.optim.warmup_steps, config.train.num_steps
    if config.optim.decay != "constant" and warmup >= steps:
        why = f"{warmup}, but train.num_steps is {steps}: none are left for the {config.optim.decay} decay"
        fix = "warm up for fewer steps, or make optim.decay constant"
        raise DiffpathError("key 'optim.warmup_steps'", where=where, why=why, fix=fix)


def _check_averages(config: RunConfig, *, where: str) -> None:
    """Averages of any length are made of two or more, at several steps."""
    lengths = config.optim.ema_lengths
    if not lengths:
        return
    if len(set(lengths)) < max(2, len(lengths)):
        why, fix = f"{list(lengths)}: others are made of two or more", "write (0.05, 0.1), or ()"
        raise DiffpathError("key 'optim.ema_lengths'", where=where, why=why, fix=fix)
    if not config.train.keep_every:
        why, fix = "0, but optim.ema_lengths needs checkpoints over all of training", "keep 20 or more of them"
        raise DiffpathError("key 'train.keep_every'", where=where, why=why, fix=fix)


def _check_crops(config: RunConfig, *, where: str) -> None:
    """A denoiser learns from pieces of images; a label is that of a whole one."""
    sides, steps = config.data.crop_px, config.data.crop_steps
    if sides and config.task != "diffusion":
        why, fix = f"a run of {config.task} sees whole images", "leave it out, or use the task diffusion"
        raise DiffpathError("key 'data.crop_px'", where=where, why=why, fix=fix)
    if steps and not sides:
        why, fix = f"{steps}, but nothing is cut", "name sides in data.crop_px, or write 0"
        raise DiffpathError("key 'data.crop_steps'", where=where, why=why, fix=fix)


def _check_classifier(config: RunConfig, *, where: str) -> None:
    """Refuses options that would change nothing."""
    asked = config.classifier
    if bool(asked.randaugment_ops) != bool(asked.randaugment_magnitude):
        why = f"{asked.randaugment_ops} operations of magnitude {asked.randaugment_magnitude:g} change nothing"
        fix = "set classifier.randaugment_ops and classifier.randaugment_magnitude, or neither"
        raise DiffpathError("key 'classifier.randaugment_ops'", where=where, why=why, fix=fix)
    if config.data.balanced and asked.balance != "none":
        why, fix = f"classifier.balance {asked.balance!r} balances them too", "choose one of the two"
        raise DiffpathError("key 'data.balanced'", where=where, why=why, fix=fix)
    for key, wanted in (
        ("balance", asked.balance != "none"),
        ("stain_jitter", asked.stain_jitter > 0),
        ("randaugment_ops", asked.randaugment_ops > 0),
    ):
        if wanted and config.task != "classification":
            why, fix = f"a run of {config.task} has none", "leave it out, or use the task classification"
            raise DiffpathError(f"key 'classifier.{key}'", where=where, why=why, fix=fix)


def _check_loggers(config: TrainConfig, *, where: str) -> None:
    """Loggers are chosen by name."""
    for name in config.loggers:
        if name not in LOGGERS:
            fix = f"use some of {', '.join(LOGGERS)}"
            raise DiffpathError("key 'train.loggers'", where=where, why=f"{name!r} is no logger", fix=fix)


def _check_profile(config: TrainConfig, *, where: str) -> None:
    """A profile shows the steps after one."""
    if config.profile_at >= config.num_steps:
        why = f"{config.profile_at}, but train.num_steps is {config.num_steps}: no step follows"
        raise DiffpathError("key 'train.profile_at'", where=where, why=why, fix="name an earlier step, or 0 for none")


def _check_watching(task: str, config: TrainConfig, *, where: str) -> None:
    """The best checkpoint can be kept only by what is measured at each look; a distance needs features."""
    best, looks = config.keep_best, config.eval_every
    distances = _DISTANCES.get(task, ())
    if best and best not in _MEASURED[task] and not (distances and best.startswith(distances)):
        named = [name + "NAME" if name.endswith("-") else name for name in distances]
        fix = "use " + " or ".join((*_MEASURED[task], *named))
        raise DiffpathError("key 'train.keep_best'", where=where, why=f"{best!r} is not measured", fix=fix)
    if best and (not looks or config.checkpoint_every % looks):
        why = f"checkpoints come every {config.checkpoint_every} steps and looks every {looks}"
        fix = "make train.checkpoint_every a multiple of train.eval_every"
        raise DiffpathError("key 'train.keep_best'", where=where, why=why, fix=fix)
    if config.patience and not best:
        why, fix = f"{config.patience} looks, but nothing is looked at", "name a metric in train.keep_best"
        raise DiffpathError("key 'train.patience'", where=where, why=why, fix=fix)
    if config.fd_images and not config.fd_features:
        fix = "name a classifier's run directory"
        raise DiffpathError("key 'train.fd_features'", where=where, why="empty, but fd_images is not", fix=fix)


def is_chosen_by_validation(config: RunConfig) -> bool:
    """Returns True if validation chooses the best checkpoint; a denoiser's distances are from training images."""
    best = config.train.keep_best
    return bool(best) and not best.startswith(_DISTANCES["diffusion"])


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


def datasets(config: RunConfig, *, where: str) -> list[Dataset]:
    """Open and verify the training data; all data sets must agree in image size and classes.

    Raises:
        DiffpathError: none is named, one is missing or damaged, or they do not agree.
    """
    directories = config.data.directories()
    if not directories:
        fix = "name one, or several separated by commas"
        raise DiffpathError("key 'data.train'", where=where, why="names no data set", fix=fix)
    opened = [open_dataset(directory) for directory in directories]
    check_alike(opened)
    if SCALE.name not in config.network.conditions:
        _check_scales(opened)
    return opened


def check_alike(datasets: Sequence[Dataset]) -> None:
    """Refuse data sets that cannot be mixed.

    Raises:
        DiffpathError: one has other images or classes than the first.
    """
    for other in datasets[1:]:
        if other.schema != datasets[0].schema:
            raise DiffpathError(
                "data set",
                where=other.directory,
                why=f"its images and classes {other.schema} are not those of {datasets[0].directory}",
                fix="mix only data sets of one size and one list of classes",
            )


def _check_scales(datasets: Sequence[Dataset]) -> None:
    """Refuse images of several um/px for a network that is not told theirs."""
    first = datasets[0]
    for other in datasets[1:]:
        if known_to_differ(other.details.mpp, first.details.mpp):
            why = f"{other.details.mpp:.4g} um/px, but {first.directory} has {first.details.mpp:.4g}"
            fix = f"mix data sets of one scale, or add {SCALE.name!r} to network.conditions of a denoiser"
            raise DiffpathError("data set", where=other.directory, why=why, fix=fix)


def check_beside(config: RunConfig, datasets: Sequence[Dataset], *, where: str) -> None:
    """Refuse data without the features or columns that a network is told, or with features of several encoders.

    Raises:
        DiffpathError: naming the data set, or the key that does not fit it.
    """
    network = config.network
    for dataset in datasets:
        columns = tuple(len(column.values) for column in dataset.schema.columns)
        for kind, key, own, found, command in (
            (FEATURES, "feature_width", network.feature_width, dataset.schema.feature_width, "encode --features"),
            (COLUMNS, "columns", network.columns, columns, "transform --columns"),
        ):
            if kind.name not in network.conditions:
                continue
            if not found:
                why, fix = f"no {kind.name} lie beside its images", f"write a data set with `diffpath {command}`"
                raise DiffpathError("data set", where=dataset.directory, why=why, fix=fix)
            if found != own:
                why, fix = f"{own}, but that of {dataset.directory} is {found}", f"make it {found}"
                raise DiffpathError(f"key 'network.{key}'", where=where, why=why, fix=fix)
        if FEATURES.name in network.conditions and dataset.details.encoder != datasets[0].details.encoder:
            why = f"its features are of another encoder than those of {datasets[0].directory}"
            raise DiffpathError("data set", where=dataset.directory, why=why, fix="encode both with the same one")


def check_augmentation(config: RunConfig, datasets: Sequence[Dataset]) -> None:
    """Refuse another augmentation than that of stored latents, which cannot be turned any more.

    Raises:
        DiffpathError: naming both.
    """
    for dataset in datasets:
        stored = (dataset.details.latents or {}).get("augment", config.data.augment)
        if stored != config.data.augment:
            raise DiffpathError(
                "key 'data.augment'",
                where=dataset.directory,
                why=f"its latents are those of images augmented by {stored!r}, not {config.data.augment!r}",
                fix=f"make data.augment {stored!r}, or run `diffpath encode` again",
            )
