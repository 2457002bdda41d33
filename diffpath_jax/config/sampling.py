"""From a sampler's options to the sampler, its spacing and the bounds of its estimates."""

from typing import TypeVar

from diffpath_jax.config.noise import schedule
from diffpath_jax.config.sections import AUTO, DiffusionRun, SamplerConfig
from diffpath_jax.diffusion.samplers import spacing, thresholding
from diffpath_jax.diffusion.samplers.catalogue import SAMPLERS
from diffpath_jax.diffusion.samplers.ddpm import VARIANCES
from diffpath_jax.diffusion.samplers.kinds import SamplerKind, SamplerSettings
from diffpath_jax.diffusion.samplers.loop import Sampler
from diffpath_jax.diffusion.samplers.spacing import SpacingKind
from diffpath_jax.diffusion.schedule import respace
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.registry import Named, Registry

# Where errors place a parameter; a command says which of its options that is.
WHERE = "the sampler's options"
Row = TypeVar("Row", bound=Named)


def sampler(config: DiffusionRun, options: SamplerConfig) -> Sampler:
    """Returns the sampler on its spacing of the schedule that the run was trained with.

    Raises:
        DiffpathError: more steps than the model was trained with, or a learned variance that it has not.
    """
    kind, trained = sampler_kind(options), schedule(config.noise)
    try:
        indices = spacing_kind(options).choose(trained, options.steps)
        respaced = respace(trained, indices)
    except ValueError as error:
        why = f"{options.steps} steps of the {trained.num_steps} that the model was trained with: {error}"
        raise DiffpathError("steps", where=WHERE, why=why, fix="change `steps` or `spacing`") from error
    settings = SamplerSettings(trained=trained, variance=_variance(config, options), eta=options.eta)
    return kind.make(respaced, settings)


def sampler_kind(options: SamplerConfig) -> SamplerKind:
    """Returns the row of the sampler.

    Raises:
        DiffpathError: there is none of that name.
    """
    return _row(SAMPLERS, "sampler", options.sampler)


def spacing_kind(options: SamplerConfig) -> SpacingKind:
    """Returns the row of the spacing: the sampler's own, or the one asked for.

    Raises:
        DiffpathError: there is none of that name.
    """
    if options.spacing == AUTO:
        return sampler_kind(options).spacing
    return spacing.find(options.spacing) or _row(spacing.SPACINGS, "spacing", options.spacing)


def _row(registry: Registry[Row], parameter: str, name: str) -> Row:
    if name not in registry:
        fix = f"use one of {', '.join(registry)}"
        raise DiffpathError(parameter, where=WHERE, why=f"{name!r} is unknown", fix=fix)
    return registry[name]


def _variance(config: DiffusionRun, options: SamplerConfig) -> str:
    """Returns the name of the variance of ancestral steps: the one asked for, or as the network was trained."""
    learns = config.network.learn_sigma
    name = options.variance if options.variance != AUTO else "learned" if learns else "small"
    if VARIANCES[name].learned and not learns:
        fixed = [kind.name for kind in VARIANCES.values() if not kind.learned]
        why, fix = f"{name}, but the model was trained without a learned variance", f"use {' or '.join(fixed)}"
        raise DiffpathError("variance", where=WHERE, why=why, fix=fix)
    return name


def threshold(config: DiffusionRun, options: SamplerConfig) -> thresholding.Threshold:
    """Returns the thresholding of a sampler's estimates of the image; by default pixels are clipped, latents are not.

    Raises:
        DiffpathError: there is none of that name, or it bounds latents.
    """
    if options.thresholding == AUTO:
        kind = thresholding.CLIP if config.codec is None else thresholding.NONE
    else:
        kind = _row(thresholding.THRESHOLDINGS, "thresholding", options.thresholding)
    if kind.bounds and config.codec is not None:
        raise DiffpathError("thresholding", where=WHERE, why="latents have no bounds", fix="leave it out")
    return kind.make(options.percentile)
