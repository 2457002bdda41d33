"""The sections of a config as frozen dataclasses: every key, its type, its range and its default, once.

:func:`diffpath_jax.config.checks.run_config` checks a whole config; :mod:`diffpath_jax.config.tasks` and
:mod:`diffpath_jax.config.sampling` make objects of it.
"""

import dataclasses
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from diffpath_jax.config.network import network_section
from diffpath_jax.data.symmetries import Augmentation
from diffpath_jax.diffusion.samplers.catalogue import SAMPLERS
from diffpath_jax.diffusion.samplers.ddpm import VARIANCES
from diffpath_jax.diffusion.samplers.spacing import SECTIONS, SPACINGS
from diffpath_jax.diffusion.samplers.thresholding import THRESHOLDINGS
from diffpath_jax.io.files import shareable
from diffpath_jax.networks.autoencoder import AutoencoderConfig
from diffpath_jax.networks.config import NetworkConfig, TaskName
from diffpath_jax.ranges import (
    Depth,
    Fraction,
    Magnitude,
    Natural,
    NonNegativeReal,
    Operations,
    Positive,
    PositiveFraction,
    PositiveReal,
    Probability,
    Seed,
    Share,
    SnrFactor,
    Width,
    Workers,
)
from diffpath_jax.training.optim import OptimConfig
from diffpath_jax.training.recorder import TrainConfig
from diffpath_jax.training.tasks.autoencoding import LARGEST_WEIGHT, BoundOf, Commitment
from diffpath_jax.training.tasks.diffusion import DiffusionConfig


@dataclass(frozen=True)
class DataConfig:
    """Sources of images.

    Attributes:
        train: dataset directories, separated by commas; their ``train`` splits are mixed.
        batch_size: images of a step, over all devices.
        augment: what is done to each image.
        workers: decoding processes; changes speed, not results.
        mixture: images of each data set, in units of the first one's and class by class: ``(1, 0.5)`` is real images
            and half as many generated ones, ``(0, 1)`` as many generated ones alone. The seed chooses; a larger amount
            holds the images of a smaller. Empty takes each data set whole.
        val: dataset directory whose ``val`` split a run is watched on; empty for the first of ``train``. Generated
            images have none of their own, and borrow that of real ones so.
        balanced: draw every class equally often, whatever the task; of a class evenly.
        crop_px: sides of the squares that a denoiser's batches are cut to, each batch to one of them, drawn evenly; the
            images' own side may be one. In pixels, of latents too. Empty for whole images.
        crop_steps: steps after which batches are whole again; 0 for never.
    """

    train: str
    batch_size: Positive
    augment: Augmentation
    workers: Workers
    mixture: tuple[NonNegativeReal, ...] = ()
    val: str = ""
    balanced: bool = False
    crop_px: tuple[Positive, ...] = ()
    crop_steps: Natural = 0

    def directories(self) -> list[Path]:
        """The dataset directories."""
        return [Path(text) for text in self.train.split(",") if text]


@dataclass(frozen=True)
class NoiseConfig:
    """Noise schedule and objective: for a diffusion model, and for a classifier that is to guide it.

    Attributes:
        schedule: noise schedule.
        num_steps: T.
        beta_start: first beta of the linear schedules.
        beta_end: last beta of the linear schedules (the authors' code: 1e-2).
        snr_factor: factor of signal over noise at every t (published: 64 / side of the images); 1 for the schedule as
            it is.
    """

    schedule: Literal["linear", "scaled_linear", "cosine"]
    num_steps: Annotated[int, Field(ge=2, le=100_000)] = 1000
    beta_start: Probability = 1e-4
    beta_end: Probability = 2e-2
    snr_factor: SnrFactor = 1.0


@dataclass(frozen=True)
class CodecConfig:
    """The latents that are denoised, or classified under noise; a config without this section works in pixels.

    Attributes:
        first_stage: the autoencoder: a run directory, or a safetensors file of ``diffpath convert`` or ``diffpath
            export``. It is copied into the run.
        scale: factor of latents; 0 measures it when the run begins, so that their standard deviation is 1.
    """

    first_stage: str = ""
    scale: NonNegativeReal = 0.0


@dataclass(frozen=True)
class AutoencodingConfig:
    """Training of an autoencoder; the defaults are those published with VQGAN.

    Attributes:
        bottleneck_weight: factor of the codebook's loss, or of the KL divergence (published: 1e-6).
        commitment: beta of the codebook's loss.
        commitment_on: which half of it beta belongs to: ``codes``, as in the published code, or ``latents``, as in the
            paper's formula.
        revive_after: steps without use after which a code is moved to a latent of the batch; 0 for never.
        lpips: safetensors file of ``diffpath convert --from lpips``; empty for L1 without a perceptual loss.
        adversarial_weight: of the discriminator's term; 0 for no discriminator.
        adversarial_start: step from which the discriminator takes part.
        adversarial_bound: largest proportion in which its term's gradient is brought to that of the other losses.
        adversarial_bound_of: those losses as ``means`` over an image's values, as in the published code of VQGAN, or as
            ``sums``, as in that of KL autoencoders, where the bound is reached sooner.
        discriminator_width: channels of the discriminator's first layer.
        discriminator_layers: its strided layers after the first.
    """

    bottleneck_weight: NonNegativeReal = 1.0
    commitment: NonNegativeReal = 0.25
    commitment_on: Commitment = "codes"
    revive_after: Natural = 0
    lpips: str = ""
    adversarial_weight: NonNegativeReal = 0.75
    adversarial_start: Natural = 0
    adversarial_bound: PositiveReal = LARGEST_WEIGHT
    adversarial_bound_of: BoundOf = "means"
    discriminator_width: Width = 64
    discriminator_layers: Depth = 3


@dataclass(frozen=True)
class ClassifierConfig:
    """Training of a classifier.

    Attributes:
        label_smoothing: share of a label that is spread over all classes.
        balance: what is done about classes of other sizes: nothing; ``weights`` in the loss, in inverse proportion to
            them; or ``draw``, every class equally often. Classifiers of clean images alone.
        stain_jitter: largest change of the amount of a stain, as a share of it and in optical density; likewise.
        randaugment_ops: operations of RandAugment on each image (published: 2), those that leave tissue what it is; 0
            for none; likewise.
        randaugment_magnitude: their magnitude, to 30 (published for ResNet-50: 9).
    """

    label_smoothing: Share = 0.0
    balance: Literal["none", "weights", "draw"] = "none"
    stain_jitter: Share = 0.0
    randaugment_ops: Operations = 0
    randaugment_magnitude: Magnitude = 0.0


# Keys whose values are paths on the machine that trained, separated by commas.
_PLACES = (
    *(("data", "train"), ("codec", "first_stage"), ("autoencoding", "lpips")),
    *(("train", "init_from"), ("train", "fd_features")),
)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A whole training run, as resolved from a config file and its overrides; each task narrows it.

    A section that a task does not need may be there all the same, and is stored with the run.
    """

    task: TaskName
    seed: Seed
    dtype: Literal["float32", "bfloat16"]
    data: DataConfig
    network: NetworkConfig
    optim: OptimConfig
    train: TrainConfig
    noise: NoiseConfig | None = None
    diffusion: DiffusionConfig | None = None
    codec: CodecConfig | None = None
    autoencoding: AutoencodingConfig | None = None
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)

    def network_for(self, num_classes: int) -> NetworkConfig:
        """The network's config for data of so many classes."""
        return self.network.for_classes(num_classes)

    def as_json(self) -> dict[str, Any]:
        """Every key, as it is stored with the run: lists for tuples, as JSON gives it back."""
        content = {**dataclasses.asdict(self), "network": network_section(self.network)}
        return json.loads(json.dumps(content))

    def as_shared_json(self) -> dict[str, Any]:
        """The same for what may be passed on: of absolute paths the last names alone."""
        content = self.as_json()
        for section, key in _PLACES:
            if content.get(section):
                paths = content[section][key].split(",")
                content[section][key] = ",".join(shareable(path) for path in paths)
        return content


@dataclass(frozen=True, kw_only=True)
class DiffusionRun(RunConfig):
    """Learn to denoise pixels, or latents where there is a codec."""

    task: Literal["diffusion"]
    noise: NoiseConfig
    diffusion: DiffusionConfig

    def network_for(self, num_classes: int) -> NetworkConfig:
        """The network's config; a denoiser has the null class as one more."""
        return self.network.for_classes(num_classes + 1)


@dataclass(frozen=True, kw_only=True)
class AutoencodingRun(RunConfig):
    """Learn a first stage."""

    task: Literal["autoencoding"]
    network: AutoencoderConfig
    autoencoding: AutoencodingConfig


@dataclass(frozen=True, kw_only=True)
class ClassificationRun(RunConfig):
    """Learn to tell classes of clean images."""

    task: Literal["classification"]


@dataclass(frozen=True, kw_only=True)
class NoisyClassificationRun(RunConfig):
    """Learn to tell classes of noisy images, or latents where there is a codec."""

    task: Literal["noisy_classification"]
    noise: NoiseConfig


RUN_CONFIGS: dict[TaskName, type[RunConfig]] = {
    "diffusion": DiffusionRun,
    "autoencoding": AutoencodingRun,
    "classification": ClassificationRun,
    "noisy_classification": NoisyClassificationRun,
}


# Leaves a choice to the sampler, or to the model.
AUTO = "auto"


def _one_of(names: Iterable[str], *others: str, pattern: re.Pattern[str] | None = None) -> AfterValidator:
    """Returns a check that a name is known by the time the check is made: others can be added from outside.

    Args:
        names: of a registry.
        others: further words that are allowed.
        pattern: further text that is allowed.
    """

    def check(name: str) -> str:
        known = (*others, *names)
        if name not in known and not (pattern and pattern.fullmatch(name)):
            raise PydanticCustomError("unknown_name", "use one of {known}", {"known": ", ".join(known)})
        return name

    return AfterValidator(check)


SamplerName = Annotated[str, _one_of(SAMPLERS)]
SpacingName = Annotated[str, _one_of(SPACINGS, AUTO, pattern=SECTIONS)]
VarianceName = Annotated[str, _one_of(VARIANCES, AUTO)]
ThresholdingName = Annotated[str, _one_of(THRESHOLDINGS, AUTO)]


@dataclass(frozen=True)
class SamplerConfig:
    """The sampler that draws images from a trained model, and its numbers.

    Attributes:
        sampler: name of the sampler, one of ``SAMPLERS``; the two of the authors' code repeat its slips.
        steps: steps of the respaced schedule; Heun calls the network twice in each but the last.
        spacing: the trained steps that are visited, one of ``SPACINGS``, or the numbers of steps of equal sections
            ("100,50,10"); ``auto`` is the sampler's own.
        variance: of DDPM steps, one of ``VARIANCES``; ``auto`` is the variance that the network was trained for.
        eta: DDIM's noise, 0 (none) to 1 (as much as DDPM).
        eps_scale: lambda of epsilon scaling at step 0; 1 changes nothing.
        eps_slope: growth of lambda per (respaced) step.
        guidance: weight w of classifier-free guidance; 0 is the conditional model.
        guidance_of: weights of single conditions, ``NAME=W`` joined by ``+``; empty for none.
        guidance_from: lowest share of the trained schedule (0 clean, 1 noise) at which w applies.
        guidance_to: highest such share.
        guide_weight: weight w of autoguidance by a weaker model; 0 for none.
        guide_from: lowest share of the trained schedule at which it applies.
        guide_to: highest such share.
        classifier_scale: of a noisy classifier's gradient; 0 for none.
        unconditional: do not tell the network the class, so that a classifier alone chooses it.
        thresholding: of estimates of the image, one of ``THRESHOLDINGS`` (the authors' code: ``none``); ``auto`` clips
            pixels and leaves latents, which have no bounds.
        percentile: share of an image's values that dynamic thresholding leaves uncut.
        start_level: share of the trained schedule that an image is noised to where one is started from; 0 is the image
            itself, 1 is noise alone.
        repeats: times that each step is made where a part of an image is known (RePaint).
    """

    sampler: SamplerName = "ddpm"
    steps: Positive = 250
    spacing: SpacingName = AUTO
    variance: VarianceName = AUTO
    eta: Fraction = 0.0
    eps_scale: PositiveReal = 1.0
    eps_slope: NonNegativeReal = 0.0
    guidance: NonNegativeReal = 0.0
    guidance_of: str = ""
    guidance_from: Fraction = 0.0
    guidance_to: Fraction = 1.0
    guide_weight: NonNegativeReal = 0.0
    guide_from: Fraction = 0.0
    guide_to: Fraction = 1.0
    classifier_scale: NonNegativeReal = 0.0
    unconditional: bool = False
    thresholding: ThresholdingName = AUTO
    percentile: PositiveFraction = 0.995
    start_level: Fraction = 1.0
    repeats: Depth = 1
