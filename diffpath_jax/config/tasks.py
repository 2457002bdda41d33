"""From a run's config to what it learns."""

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Int

from diffpath_jax.config.first_stage import FirstStage
from diffpath_jax.config.noise import schedule
from diffpath_jax.config.sections import (
    AutoencodingRun,
    ClassificationRun,
    DiffusionRun,
    NoisyClassificationRun,
    RunConfig,
)
from diffpath_jax.diffusion.timesteps import TIMESTEP_SAMPLERS, LogSnr
from diffpath_jax.networks.codecs import Codec, PixelCodec
from diffpath_jax.networks.conditions import null_values, own_dropout
from diffpath_jax.networks.kinds import make_network
from diffpath_jax.networks.lpips import Lpips
from diffpath_jax.networks.patchgan import PatchDiscriminator, PatchGanConfig
from diffpath_jax.networks.pure import PureNetwork, purify
from diffpath_jax.shapes import Tree
from diffpath_jax.training.tasks import losses
from diffpath_jax.training.tasks.autoencoding import (
    Adversary,
    Bottleneck,
    autoencoding_task,
    codebook,
    normal_distribution,
)
from diffpath_jax.training.tasks.classification import classification_task, noisy_classification_task
from diffpath_jax.training.tasks.diffusion import diffusion_task
from diffpath_jax.training.tasks.task import CODEC, Task


def make_task(
    config: RunConfig,
    *,
    num_classes: int,
    first_stage: FirstStage | None = None,
    perceptual: Tree | None = None,
    class_counts: Int[np.ndarray, "classes"] | None = None,
) -> Task:
    """Task of a run.

    Args:
        config: of the run.
        num_classes: of its data.
        first_stage: autoencoder whose latents are denoised or classified; none for pixels.
        perceptual: parameters of LPIPS for an autoencoder; none for a loss without it.
        class_counts: training images of each class, where they are known.

    Raises:
        TypeError: the config is that of no task.
    """
    network = make_network(config.network_for(num_classes), dtype=config.dtype)
    codec = codec_of(first_stage, dtype=config.dtype)
    frozen = {CODEC: first_stage.params} if first_stage else {}
    smoothing = config.classifier.label_smoothing
    match config:
        case DiffusionRun(noise=noise, diffusion=objective):
            levels, centred = schedule(noise), LogSnr(objective.log_snr_centre, objective.log_snr_width)
            return diffusion_task(
                network,
                codec,
                levels,
                objective,
                timesteps=TIMESTEP_SAMPLERS[objective.timesteps](levels, centred),
                nulls=null_values(config.network, num_classes),
                own_dropout=own_dropout(config.network),
                frozen_params=frozen,
            )
        case NoisyClassificationRun(noise=noise):
            return noisy_classification_task(
                network, codec, schedule(noise), label_smoothing=smoothing, frozen_params=frozen
            )
        case ClassificationRun():
            return _classification(config, network, class_counts)
        case AutoencodingRun():
            return _autoencoding(config, network, perceptual)
    raise TypeError(f"{type(config).__name__} is the config of no task")


def codec_of(first_stage: FirstStage | None, *, dtype: DTypeLike) -> Codec:
    """Between images and the space that a model works in: latents of its first stage, or pixels."""
    return first_stage.codec(dtype=dtype) if first_stage else PixelCodec()


def make_lpips(dtype: DTypeLike) -> PureNetwork:
    """The perceptual distance."""
    return purify(lambda rngs: Lpips(dtype=jnp.dtype(dtype), rngs=rngs))


def _classification(
    config: ClassificationRun, network: PureNetwork, class_counts: Int[np.ndarray, "classes"] | None
) -> Task:
    section, weights = config.classifier, None
    if section.balance == "weights" and class_counts is not None:
        weights = losses.balancing_weights(class_counts)
    return classification_task(
        network,
        label_smoothing=section.label_smoothing,
        class_weights=weights,
        stain_jitter=section.stain_jitter,
        randaugment_ops=section.randaugment_ops,
        randaugment_magnitude=section.randaugment_magnitude,
    )


def _autoencoding(config: AutoencodingRun, network: PureNetwork, perceptual: Tree | None) -> Task:
    section, dtype = config.autoencoding, jnp.dtype(config.dtype)
    adversary = None
    if section.adversarial_weight:
        critic = PatchGanConfig(width=section.discriminator_width, num_layers=section.discriminator_layers)
        judge = purify(lambda rngs: PatchDiscriminator(critic, dtype=dtype, rngs=rngs))
        adversary = Adversary(
            judge,
            weight=section.adversarial_weight,
            start=section.adversarial_start,
            largest_ratio=section.adversarial_bound,
            bound_of=section.adversarial_bound_of,
        )
    return autoencoding_task(
        network,
        _bottleneck(config, network),
        adversary=adversary,
        perceptual=(make_lpips(dtype), perceptual) if perceptual else None,
        bottleneck_weight=section.bottleneck_weight,
    )


def _bottleneck(config: AutoencodingRun, network: PureNetwork) -> Bottleneck:
    """A codebook where the network has one, else a normal distribution."""
    if not config.network.codebook_size:
        return normal_distribution()
    section = config.autoencoding
    return codebook(
        network,
        size=config.network.codebook_size,
        commitment=section.commitment,
        on=section.commitment_on,
        revive_after=section.revive_after,
    )
