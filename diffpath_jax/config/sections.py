"""The sections of a config as frozen dataclasses: every key, its type, its range and its default, once.

:mod:`diffpath_jax.config.build` makes objects of them; :func:`diffpath_jax.config.checks.run_config` checks a whole
config.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from diffpath_jax.data.symmetries import Augmentation
from diffpath_jax.diffusion.samplers.catalogue import SAMPLERS
from diffpath_jax.diffusion.samplers.ddpm import VARIANCES
from diffpath_jax.diffusion.samplers.spacing import SECTIONS, SPACINGS
from diffpath_jax.diffusion.samplers.thresholding import THRESHOLDINGS
from diffpath_jax.diffusion.schedule import Prediction
from diffpath_jax.ranges import Positive, Share
from diffpath_jax.training.loop import TrainConfig
from diffpath_jax.training.optim import OptimConfig
from diffpath_jax.training.tasks.autoencoding import Commitment

TaskName = Literal["diffusion", "autoencoding", "classification", "noisy_classification"]


@dataclass(frozen=True)
class DataConfig:
    """Where images come from.

    Attributes:
        train: dataset directories, separated by commas; their ``train`` splits are mixed.
        batch_size: images of a step, over all devices.
        augment: what is done to each image.
        workers: decoding processes; changes speed, not results.
    """

    train: str
    batch_size: Positive
    augment: Augmentation
    workers: Annotated[int, Field(ge=0)]

    def directories(self) -> list[Path]:
        """The dataset directories."""
        return [Path(text) for text in self.train.split(",") if text]


@dataclass(frozen=True)
class NoiseConfig:
    """How images are noised: for a diffusion model, and for a classifier that is to guide it.

    Attributes:
        schedule: noise schedule.
        num_steps: T.
        beta_start: first beta of the linear schedules.
        beta_end: last beta of the linear schedules (the authors' code: 1e-2).
    """

    schedule: Literal["linear", "scaled_linear", "cosine"]
    num_steps: Annotated[int, Field(gt=1)] = 1000
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 2e-2


@dataclass(frozen=True)
class DiffusionConfig:
    """What a diffusion model predicts and how it is taught.

    Attributes:
        prediction: what the network predicts.
        loss: ``simple`` squared error; ``hybrid`` adds the variational bound of a learned variance
            (``network.learn_sigma``); ``min_snr`` weights the squared error.
        min_snr_gamma: gamma of min-SNR weighting.
        bound_weight: lambda of the hybrid loss.
        timesteps: how timesteps are drawn.
        label_dropout: share of labels replaced by the null class.
        label_dropout_group: images in a row whose labels are dropped together (the authors' code: a batch of 8).
        input_perturbation: gamma of DDPM-IP (published: 0.1); 0 for none.
    """

    prediction: Prediction
    loss: Literal["simple", "hybrid", "min_snr"] = "simple"
    min_snr_gamma: Annotated[float, Field(gt=0)] = 5.0
    bound_weight: Annotated[float, Field(gt=0)] = 1e-3
    timesteps: Literal["uniform", "loss_aware"] = "uniform"
    label_dropout: Share = 0.1
    label_dropout_group: Positive = 1
    input_perturbation: Annotated[float, Field(ge=0)] = 0.0


@dataclass(frozen=True)
class CodecConfig:
    """The latents that are denoised, or classified under noise; a config without this section works in pixels.

    Attributes:
        first_stage: the autoencoder: a run directory, or a safetensors file of ``diffpath convert`` or ``diffpath
            export``. It is copied into the run.
        scale: factor of latents; 0 measures it when the run begins, so that their standard deviation is 1.
    """

    first_stage: str = ""
    scale: Annotated[float, Field(ge=0)] = 0.0


@dataclass(frozen=True)
class LatentSpace:
    """Latents of one autoencoder, as a run and a data set of latents describe them.

    Attributes:
        network: section ``network`` of the autoencoder's config, with every key.
        scale: factor of its latents.
        digest: SHA-256 of its parameters.
    """

    network: dict[str, Any]
    scale: float
    digest: str


@dataclass(frozen=True)
class AutoencodingConfig:
    """How an autoencoder is taught; the defaults are those published with VQGAN.

    Attributes:
        bottleneck_weight: factor of the codebook's loss, or of the KL divergence (published: 1e-6).
        commitment: beta of the codebook's loss.
        commitment_on: which half of it beta belongs to: ``codes``, as in the published code, or ``latents``, as in the
            paper's formula.
        revive_after: steps without use after which a code is moved to a latent of the batch; 0 for never.
        lpips: safetensors file of ``diffpath convert --from lpips``; empty for L1 without a perceptual loss.
        adversarial_weight: of the discriminator's term; 0 for no discriminator.
        adversarial_start: step from which the discriminator takes part.
        discriminator_width: channels of the discriminator's first layer.
        discriminator_layers: its strided layers after the first.
    """

    bottleneck_weight: Annotated[float, Field(ge=0)] = 1.0
    commitment: Annotated[float, Field(ge=0)] = 0.25
    commitment_on: Commitment = "codes"
    revive_after: Annotated[int, Field(ge=0)] = 0
    lpips: str = ""
    adversarial_weight: Annotated[float, Field(ge=0)] = 0.75
    adversarial_start: Annotated[int, Field(ge=0)] = 0
    discriminator_width: Positive = 64
    discriminator_layers: Positive = 3


@dataclass(frozen=True)
class ClassifierConfig:
    """Loss of a classifier."""

    label_smoothing: Share = 0.0


@dataclass(frozen=True)
class RunConfig:
    """A whole training run, as resolved from a config file and its overrides.

    ``network`` names its ``kind``; the other keys are those of the kind's own dataclass. ``noise`` belongs to the
    tasks ``diffusion`` and ``noisy_classification``, and so may ``codec``; ``diffusion`` and ``autoencoding`` belong to
    the tasks of these names, ``classifier`` to classifiers.
    """

    task: TaskName
    seed: Annotated[int, Field(ge=0)]
    dtype: Literal["float32", "bfloat16"]
    data: DataConfig
    network: dict[str, Any]
    optim: OptimConfig
    train: TrainConfig
    noise: NoiseConfig | None = None
    diffusion: DiffusionConfig | None = None
    codec: CodecConfig | None = None
    autoencoding: AutoencodingConfig | None = None
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)


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
        guidance_from: lowest share of the trained schedule (0 clean, 1 noise) at which w applies.
        guidance_to: highest such share.
        classifier_scale: of a noisy classifier's gradient; 0 for none.
        unconditional: do not tell the network the class, so that a classifier alone chooses it.
        thresholding: of estimates of the image, one of ``THRESHOLDINGS`` (the authors' code: ``none``); ``auto`` clips
            pixels and leaves latents, which have no bounds.
        percentile: share of an image's values that dynamic thresholding leaves uncut.
    """

    sampler: SamplerName = "ddpm"
    steps: Positive = 250
    spacing: SpacingName = AUTO
    variance: VarianceName = AUTO
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    eps_scale: Annotated[float, Field(gt=0)] = 1.0
    eps_slope: Annotated[float, Field(ge=0)] = 0.0
    guidance: Annotated[float, Field(ge=0)] = 0.0
    guidance_from: Annotated[float, Field(ge=0, le=1)] = 0.0
    guidance_to: Annotated[float, Field(ge=0, le=1)] = 1.0
    classifier_scale: Annotated[float, Field(ge=0)] = 0.0
    unconditional: bool = False
    thresholding: ThresholdingName = AUTO
    percentile: Annotated[float, Field(gt=0, le=1)] = 0.995
