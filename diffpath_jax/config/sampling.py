"""From a sampler's options to the sampler, its spacing and the bounds of its estimates; options that do not fit."""

import re
from typing import TypeVar

from diffpath_jax.config.noise import schedule
from diffpath_jax.config.sections import AUTO, DiffusionRun, SamplerConfig
from diffpath_jax.diffusion.samplers import spacing, thresholding
from diffpath_jax.diffusion.samplers.catalogue import SAMPLERS
from diffpath_jax.diffusion.samplers.ddpm import VARIANCES
from diffpath_jax.diffusion.samplers.kinds import OPTIONS, SamplerKind, SamplerSettings
from diffpath_jax.diffusion.samplers.loop import Sampler, no_steps
from diffpath_jax.diffusion.samplers.repeats import repeated
from diffpath_jax.diffusion.samplers.spacing import SpacingKind
from diffpath_jax.diffusion.schedule import respace
from diffpath_jax.diffusion.starts import below
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.registry import Named, Registry
from diffpath_jax.networks.conditions import own_dropout

# Where errors place a parameter; a command says which of its options that is.
WHERE = "the sampler's options"
# A weight of guidance: a number from 0 up to a million.
_WEIGHT = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")
Row = TypeVar("Row", bound=Named)


def sampler(config: DiffusionRun, options: SamplerConfig) -> Sampler:
    """Returns the sampler on its spacing of the schedule that the run was trained with, below the level of the start.

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
    visited = below(respaced, options.start_level, num_trained=trained.num_steps)
    return repeated(kind.make(visited, settings), options.repeats) if visited.num_steps else no_steps(visited)


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


def own_guidance(config: DiffusionRun, options: SamplerConfig) -> dict[str, float]:
    """Returns the guidance weights of single conditions, by name.

    Raises:
        DiffpathError: a word that is none, or a condition that training never dropped by itself.
    """
    weights: dict[str, float] = {}
    known = own_dropout(config.network)
    for word in filter(None, options.guidance_of.split("+")):
        name, _, text = word.partition("=")
        if not _WEIGHT.fullmatch(text):
            fix = "write NAME=W, joined by +"
            raise DiffpathError("guidance_of", where=WHERE, why=f"{word!r} is no weight of a condition", fix=fix)
        if name not in known:
            why = f"the model never saw images without {name!r} alone"
            fix = f"name {' or '.join(known)}" if known else "leave it out"
            raise DiffpathError("guidance_of", where=WHERE, why=why, fix=fix)
        weights[name] = float(text)
    return weights


def check_sampler(
    config: DiffusionRun,
    options: SamplerConfig,
    *,
    classifier: bool,
    guide: bool = False,
    start: bool = False,
    mask: bool = False,
) -> None:
    """Refuse options of a sampler that this model cannot serve, or that would change nothing.

    Args:
        config: of the run.
        options: the sampler and its numbers.
        classifier: a noisy classifier is at hand.
        guide: a weaker model is at hand.
        start: images to start from are at hand.
        mask: it is known which part of them is to be painted.

    Raises:
        DiffpathError: naming the parameter. Names of other parameters stand in backquotes in it.
    """
    _check_options_of_kind(options)
    null = config.diffusion.label_dropout > 0
    least, most = options.guidance_from, options.guidance_to
    first, last = options.guide_from, options.guide_to
    for parameter, wrong, why, fix in (
        ("guidance", options.guidance > 0 and not null, "the run trained no null class", "train with label_dropout"),
        ("unconditional", options.unconditional and not null, "the run trained no null class", "leave it out"),
        ("unconditional", options.unconditional and options.guidance > 0, "`guidance` needs the class", "choose one"),
        ("guidance_from", least >= most, f"{least} is not below `guidance_to` {most}", "change one"),
        ("guide_from", first >= last, f"{first} is not below `guide_to` {last}", "change one"),
        ("guide_weight", options.guide_weight > 0 and not guide, "no weaker model", "add `guide`"),
        ("classifier_scale", options.classifier_scale > 0 and not classifier, "no classifier", "add `classifier`"),
        ("classifier", classifier and not options.classifier_scale, "its scale is 0", "add `classifier_scale`"),
        ("start_level", options.start_level < 1 and not start, "no image to start from", "add `start`"),
        ("start", start and not mask and options.start_level == 1, "nothing of it is left", "add `start_level`"),
        ("repeats", options.repeats > 1 and not mask, "nothing is known of the images", "add `inpaint`"),
        ("repeats", options.repeats > 1 and options.eta > 0, "`eta` draws noise of its own", "choose one"),
    ):
        if wrong:
            raise DiffpathError(parameter, where=WHERE, why=why, fix=fix)
    sampler(config, options)
    threshold(config, options)
    own_guidance(config, options)


def _check_options_of_kind(options: SamplerConfig) -> None:
    """Refuse an option that the sampler does not take."""
    kind, default = sampler_kind(options), SamplerConfig()
    for parameter in OPTIONS:
        if getattr(options, parameter) != getattr(default, parameter) and parameter not in kind.options:
            takers = [other.name for other in SAMPLERS.values() if parameter in other.options]
            why, fix = f"{kind.name} has none to choose", f"leave it out, or use `sampler` {' or '.join(takers)}"
            raise DiffpathError(parameter, where=WHERE, why=why, fix=fix)
