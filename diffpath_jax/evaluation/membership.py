"""Membership inference on a run: its members and non-members, what is measured of them, and what that gives away."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from diffpath_jax.data import writer
from diffpath_jax.data.manifest import Dataset
from diffpath_jax.data.pipeline import Chosen, Records
from diffpath_jax.evaluation import image_sets
from diffpath_jax.evaluation.audit import as_matching_images
from diffpath_jax.evaluation.denoising_losses import NoiseLevels, denoising_losses, noise_levels
from diffpath_jax.evaluation.feature_cache import FeatureStore
from diffpath_jax.evaluation.features.extractor import FeatureExtractor
from diffpath_jax.evaluation.image_sets import ImageSet
from diffpath_jax.evaluation.membership_record import (
    AttackRecord,
    MembershipRecord,
    ModelRecord,
    Nearer,
    NoiseLevel,
)
from diffpath_jax.evaluation.record import Number
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.progress import console
from diffpath_jax.metrics import fid, influence, neighbours, roc
from diffpath_jax.metrics.bootstrap import Estimate, Groups
from diffpath_jax.metrics.memorization import matching, membership
from diffpath_jax.metrics.memorization.membership import Attack, MembershipConfig, Population
from diffpath_jax.metrics.metric import Comparison
from diffpath_jax.networks.conditions import readers
from diffpath_jax.runs import run as runs
from diffpath_jax.sampling.draw import Model

LOSS, MATCHING = "denoising loss", "nearest generated image"
# Images that are aligned with each other one, and the largest shift in pixels: as the audit does, but for the nearest
# alone.
CANDIDATES, SHIFT_PX = 20, 4


@dataclass(frozen=True)
class Side:
    """Members or non-members.

    Attributes:
        images: the images.
        numbers: places of these in their split.
        items: the same with the conditions that the network takes.
    """

    images: ImageSet
    numbers: Int[np.ndarray, "n"]
    items: Chosen


@dataclass(frozen=True)
class Sources:
    """Inputs of a membership audit.

    Attributes:
        model: the diffusion model.
        members: images that it was trained on.
        non_members: as many images of each class that it was not trained on.
        generated: what it made, to be released; none where only the model itself is looked at.
        extractors: feature spaces in which the nearest generated image is sought, too.
    """

    model: Model
    members: Side
    non_members: Side
    generated: ImageSet | None
    extractors: Sequence[FeatureExtractor]


@dataclass(frozen=True)
class Settings:
    """Numbers of a look.

    Attributes:
        config: of the tests.
        draws: noise draws that a loss is the mean of.
    """

    config: MembershipConfig
    draws: int


@dataclass(frozen=True)
class Scored:
    """Scores of every image, members first.

    Attributes:
        images: members and non-members with their units.
        levels: levels of noise.
        losses: denoising loss at each level.
        scores: by the name of the attack; larger says member.
    """

    images: Population
    levels: NoiseLevels
    losses: Float[np.ndarray, "n levels"]
    scores: Mapping[str, Float[np.ndarray, "n"]]


def sides(
    run: runs.DiffusionModelRun, dataset: Dataset, *, members: str, held_out: str, limit: int, seed: int
) -> tuple[Side, Side]:
    """Returns members and non-members, as many of each class of the one as of the other.

    Args:
        run: a diffusion model.
        dataset: images that it was trained on.
        members: the split that it was trained on.
        held_out: a split that it was not.
        limit: most images of either.
        seed: random seed of the choice.

    Raises:
        DiffpathError: the run was trained on other images, or on a choice of these; or a class has none on one side.
    """
    _check_trained_on(run, dataset)
    training, others = (image_sets.from_dataset(dataset, split) for split in (members, held_out))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(others))[:limit])
    of_training = image_sets.chosen_with_counts(training, others.subset(chosen), seed=seed)
    kept = image_sets.chosen_with_counts(others.subset(chosen), training.subset(of_training), seed=seed)
    if not len(kept):
        why, fix = f"{members} and {held_out} have no class in common", "name other splits"
        raise DiffpathError("splits", where=dataset.directory, why=why, fix=fix)
    read = readers(run.config.network)
    one, other = (
        Side(images.subset(own), own, Chosen(Records([dataset], images.split, read), own))
        for images, own in ((training, of_training), (others, chosen[kept]))
    )
    return one, other


def _check_trained_on(run: runs.DiffusionModelRun, dataset: Dataset) -> None:
    dataset.check_images()
    if dataset.images not in run.images:
        why = f"the run {run.workdir} was not trained on it, so it has no members"
        raise DiffpathError("data set", where=dataset.directory, why=why, fix="name the one that it was trained on")
    if run.config.data.mixture:
        why = "it was trained on a choice of images (data.mixture), and not all of a split are members"
        raise DiffpathError("run", where=run.workdir, why=why, fix="name a run that was trained on all images")


def measure(sources: Sources, store: FeatureStore, settings: Settings) -> tuple[MembershipRecord, Scored]:
    """Measures what the model and its images give away.

    Args:
        sources: what is looked at.
        store: features of images.
        settings: numbers of the look.

    Raises:
        DiffpathError: features that are not finite.
    """
    config, both = settings.config, [sources.members, sources.non_members]
    images = membership.population(*(np.array(side.images.patients) for side in both))
    levels = noise_levels(sources.model.run.config)
    losses = np.concatenate(
        [
            denoising_losses(
                sources.model, side.items, levels.timesteps, draws=settings.draws, seed=config.seed, title=title
            )
            for side, title in zip(both, ("losses of members", "losses of non-members"), strict=True)
        ]
    )
    scores = {LOSS: membership.loss_score(losses, levels.noise, config)}
    distances, skipped = _distance_scores(sources, images, store)
    scored = Scored(images, levels, losses, scores | distances)
    return _record(sources, scored, skipped, _nearer(sources, images, store), settings), scored


def _distance_scores(
    sources: Sources, images: Population, store: FeatureStore
) -> tuple[dict[str, Float[np.ndarray, "n"]], dict[str, str]]:
    """Returns the scores of the nearest images, and why one could not be had."""
    generated = sources.generated
    if generated is None:
        return {}, {MATCHING: "no generated images were named"}
    real = image_sets.joined([sources.members.images, sources.non_members.images])
    scores, skipped = {}, {}
    if generated.image_px == real.image_px:
        scores[MATCHING] = _matching_score(real, generated, images)
    else:
        skipped[MATCHING] = f"the generated images have {generated.image_px[::-1]} px, the real {real.image_px[::-1]}"
    for extractor in sources.extractors:
        features, made = store.features(real, extractor), store.features(generated, extractor)
        to_made = neighbours.nearest(features, made, k=1).distances[:, 0]
        scores[f"{MATCHING}, {extractor.name}"] = membership.distance_score(to_made, _to_others(features, images))
    return scores, skipped


def _matching_score(real: ImageSet, generated: ImageSet, images: Population) -> Float[np.ndarray, "n"]:
    """Returns the score in the audit's distance, up to turns, shifts and stain."""
    console.print(f"nearest of {len(generated)} generated images to {len(real)} real ones", soft_wrap=True)
    queries = as_matching_images(real)

    def nearest(reference: matching.Reference, keys: np.ndarray) -> np.ndarray:
        matches = matching.find(queries, reference, keys=keys, candidates=CANDIDATES, shift_px=SHIFT_PX)
        return matches.distances[:, 0]

    index = matching.index(as_matching_images(generated), np.full(len(generated), -1))
    return membership.distance_score(
        nearest(index, images.owner), nearest(matching.index(queries, images.owner), images.owner)
    )


def _to_others(features: Float[np.ndarray, "n d"], images: Population) -> Float[np.ndarray, "n"]:
    """Returns the distance of each image to the nearest one of another unit."""
    if not images.by_patient:
        return neighbours.nearest(features, features, k=1, exclude_self=True).distances[:, 0]
    distances = np.zeros(len(features))
    for owner in range(len(images.unit_is_member)):
        own = images.owner == owner
        distances[own] = neighbours.nearest(features[own], features[~own], k=1).distances[:, 0]
    return distances


def _nearer(sources: Sources, images: Population, store: FeatureStore) -> list[Nearer]:
    """Returns in each feature space whether the generated set lies nearer to members or to non-members."""
    generated = sources.generated
    if generated is None:
        return []
    singly = Groups(np.arange(len(generated)), len(generated), "images")
    found = []
    for extractor in sources.extractors:
        made = store.features(generated, extractor)
        of_members, of_others = (
            fid.frechet_influence(Comparison(store.features(side.images, extractor), made, groups, singly, 0))
            for side, groups in (
                (sources.members, images.groups(member=True)),
                (sources.non_members, images.groups(member=False)),
            )
        )
        difference = influence.interval(
            of_others.value - of_members.value,
            [
                (of_others.x, images.groups(member=False)),
                (-of_members.x, images.groups(member=True)),
                (of_others.y - of_members.y, singly),
            ],
        )
        values = (of_members.value, of_others.value, Number.of(difference, {}))
        found.append(Nearer(extractor.frechet_name, extractor.digest, *values))
    return found


def _record(
    sources: Sources, scored: Scored, skipped: Mapping[str, str], nearer: list[Nearer], settings: Settings
) -> MembershipRecord:
    config, images, trained = settings.config, scored.images, sources.model.trained
    attacks = membership.attacks(scored.scores, images, config)
    outcome = membership.outcome(attacks, config)
    warnings = _warnings(sources, images)
    sets = {"members": sources.members.images, "non_members": sources.non_members.images}
    if sources.generated:
        sets["generated"] = sources.generated
    return MembershipRecord(
        versions=writer.versions("jax", "numpy", "scipy"),
        outcome=outcome,
        verdict="; ".join([f"{outcome}: {_words(attacks, images, config)}", *warnings]),
        warnings=warnings,
        model=ModelRecord(
            run=sources.model.run.digest,
            parameters=trained.digest,
            step=trained.step,
            averaged=trained.is_ema,
            training_data=sources.model.run.images,
        ),
        sources={name: images.about() for name, images in sets.items()},
        config=config,
        draws=settings.draws,
        units=images.groups(member=True).unit,
        units_reason=images.reason,
        members=_counts(images, member=True),
        non_members=_counts(images, member=False),
        attacks={name: _attack(attack) for name, attack in attacks.items()},
        skipped=dict(skipped),
        levels=_levels(scored, config),
        nearer=nearer,
    )


def _counts(images: Population, *, member: bool) -> tuple[int, int]:
    return int((images.member == member).sum()), images.groups(member=member).count


def _attack(attack: Attack) -> AttackRecord:
    tail, by_patient = (
        None if estimate is None else Number.of(estimate, {})
        for estimate in (attack.true_positives, attack.area_by_patient)
    )
    return AttackRecord(Number.of(attack.area, {}), tail, by_patient, dict(attack.p_values))


def _levels(scored: Scored, config: MembershipConfig) -> list[NoiseLevel]:
    images = scored.images
    groups = images.groups(member=True), images.groups(member=False)
    return [
        NoiseLevel(
            timestep=int(timestep),
            noise=float(noise),
            counted=membership.counts(float(noise), config),
            training_loss=float(losses[images.member].mean()),
            held_out_loss=float(losses[~images.member].mean()),
            gap=Number.of(membership.gap(losses, images), {}),
            area=Number.of(roc.area_estimate(-losses, images.member, *groups), {}),
        )
        for timestep, noise, losses in zip(scored.levels.timesteps, scored.levels.noise, scored.losses.T, strict=True)
    ]


def _warnings(sources: Sources, images: Population) -> list[str]:
    """Returns what else could look like leakage, or hide it."""
    warnings = []
    if images.reason:
        warnings.append(
            f"{images.reason}, so images were taken as independent: intervals are too narrow, and a difference of the "
            "tissue between the splits may look like leakage"
        )
    named = sources.generated.training_data if sources.generated else ()
    if named and not set(named) & set(sources.model.run.images):
        warnings.append("the generated images name other training data than the run's")
    return warnings


def _words(attacks: Mapping[str, Attack], images: Population, config: MembershipConfig) -> str:
    """Returns the strongest attack in words."""
    name = min(attacks, key=lambda own: min(attacks[own].p_values.values()))
    attack, tests = attacks[name], sum(len(own.p_values) for own in attacks.values())
    parts = [f"by the {name}, a member is ranked above a non-member in {_share(attack.area)} of pairs (by chance 50 %)"]
    if attack.true_positives:
        parts.append(f"{_share(attack.true_positives)} of members are told at {config.rate:.0%} false alarms")
    else:
        parts.append(f"{(~images.member).sum()} non-members are too few to count alarms at {config.rate:.0%}")
    if attack.area_by_patient:
        parts.append(f"patients are ranked right in {_share(attack.area_by_patient)} of pairs")
    chance = min(attack.p_values.values())
    return ", ".join([*parts, f"and chance alone does as much with probability {chance:.3g} over {tests} tests"])


def _share(estimate: Estimate) -> str:
    ends = "" if estimate.low is None else f" (95 % interval {estimate.low:.1%} to {estimate.high:.1%})"
    return f"{estimate.value:.1%}{ends}"
