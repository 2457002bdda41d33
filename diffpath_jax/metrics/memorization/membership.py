"""Membership inference: whether a score tells the images that a model was trained on from others like them.

*Members* are images of the training split, *non-members* those of patients who were held out. A larger score says
"member". Two kinds of score are made here of what was measured of each image:

- of the denoising losses, which training lowers on its own images (Matsumoto, Miura and Yanai 2023, "Membership
  inference attacks against diffusion models"; Carlini et al. 2023, "Extracting training data from diffusion models",
  section 5);
- of the distance to the nearest generated image, relative to the nearest other real one (Chen et al. 2020, "GAN-Leaks",
  whose calibration takes out by what any model of such images would do).

No weight in a score knows who is a member, so a test can hold exactly: if membership makes no difference, any patients
could as well have been the members, and a statistic is as likely to be the largest in any such division of the patients
(permutation test; Fisher 1935). Several statistics of several scores share the divisions; the smallest of their chances
is compared with the smallest in every other division (Westfall and Young 1993, "Resampling-based multiple testing",
algorithm 2.5), which holds the chance of any false alarm at the stated level, whatever their correlation.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float, Int, Shaped

from diffpath_jax.metrics import influence, roc
from diffpath_jax.metrics.bootstrap import MIN_GROUPS, BootstrapConfig, Estimate, Groups

LEAKS: Final = "leaks"
NO_SIGN: Final = "no sign of membership leakage"
UNKNOWN: Final = "not enough images to tell"
# Statistics of a score.
AREA, TAIL, BY_PATIENT = "area", "true_positives", "area_by_patient"
# Divisions of the images that are in memory at once.
DIVISIONS_AT_ONCE = 200
Outcome = Literal["leaks", "no sign of membership leakage", "not enough images to tell"]


@dataclass(frozen=True)
class MembershipConfig:
    """Settings of the tests.

    Attributes:
        significance: chance of a verdict of leakage where there is none, over all tests together.
        permutations: divisions of the patients, the true one included.
        rate: false positive rate at which true positives are counted; it needs ``1 / rate`` non-members.
        tolerated_area: area under the curve that the upper ends of all 95 % intervals must stay below for "no sign".
        least_noise: share of noise in the variance of a noised image above which a level counts in the score of the
            loss. With ``most_noise`` it is t = 50 to 300 of the linear schedule's 1000, where Carlini et al. find that
            members differ: with less noise every image is easy, with more none is.
        most_noise: greatest such share.
        seed: random seed of permutations and bootstraps.
        resamples: bootstrap replicates of a true positive rate.
    """

    significance: float = 0.01
    permutations: int = 2000
    rate: float = 0.01
    tolerated_area: float = 0.6
    least_noise: float = 0.03
    most_noise: float = 0.6
    seed: int = 0
    resamples: int = 200


@dataclass(frozen=True)
class Population:
    """Members and non-members, and the units that are drawn whole.

    Attributes:
        member: which images are members.
        owner: unit of each image.
        by_patient: whether units are patients.
        reason: why they are not; empty where they are.
    """

    member: Bool[np.ndarray, "n"]
    owner: Int[np.ndarray, "n"]
    by_patient: bool
    reason: str

    @property
    def unit_is_member(self) -> Bool[np.ndarray, "units"]:
        """True where the images of a unit are members."""
        own = np.zeros(self.owner.max() + 1, bool)
        own[self.owner[self.member]] = True
        return own

    def groups(self, *, member: bool) -> Groups:
        """Returns the units of one side as groups, each of its own."""
        names, index = np.unique(self.owner[self.member == member], return_inverse=True)
        return Groups(index, len(names), "patients" if self.by_patient else "images")


@dataclass(frozen=True)
class Attack:
    """Membership inference by one score.

    Attributes:
        area: area under the curve over images; the interval is over patients where they are known.
        true_positives: true positive rate at the false positive rate of the settings; none with too few non-members.
        area_by_patient: area over patients by the means of their images' scores; none where patients are not known.
        p_values: chance of each statistic as large or larger without leakage, over all tests together, by name.
    """

    area: Estimate
    true_positives: Estimate | None
    area_by_patient: Estimate | None
    p_values: Mapping[str, float]


def population(members: Shaped[np.ndarray, "m"], others: Shaped[np.ndarray, "n"]) -> Population:
    """Returns members and then non-members, with patients as units where that is possible.

    Args:
        members: patient of each member, as text; empty where unknown.
        others: patient of each non-member.
    """
    patients = np.concatenate([members, others])
    member = np.arange(len(patients)) < len(members)
    shared = np.intersect1d(members, others)
    sides = [len(np.unique(own)) for own in (members, others)]
    reason = ""
    if "" in patients:
        reason = "patients are unknown"
    elif len(shared):
        reason = f"patients on both sides: {len(shared)}"
    elif min(sides) < MIN_GROUPS:
        reason = f"{sides[0]} and {sides[1]} patients are too few: {MIN_GROUPS} are needed on either side"
    owner = np.arange(len(patients)) if reason else np.unique(patients, return_inverse=True)[1]
    return Population(member, owner, not reason, reason)


def counts(noise: float, config: MembershipConfig) -> bool:
    """Returns whether a level with this share of noise is part of the score of the losses."""
    return config.least_noise <= noise <= config.most_noise


def loss_score(
    losses: Float[np.ndarray, "n levels"], noise: Float[np.ndarray, "levels"], config: MembershipConfig
) -> Float[np.ndarray, "n"]:
    """Returns the score of the denoising losses: their logarithms, standardised at each level over all images.

    Each level of moderate noise counts the same. Members and non-members are standardised together, by the same
    numbers.

    Args:
        losses: mean squared error of each image at each noise level.
        noise: share of noise in the variance at each level, ``1 - abar``.
        config: which levels count.
    """
    counted = [counts(float(share), config) for share in noise]
    logarithms = np.log(np.maximum(losses[:, counted], np.finfo(np.float64).tiny))
    spread = np.maximum(logarithms.std(axis=0), np.finfo(np.float64).tiny)
    return -((logarithms - logarithms.mean(axis=0)) / spread).mean(axis=1)


def distance_score(to_generated: Float[np.ndarray, "n"], to_real: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Returns the score of the nearest images: how much nearer the generated one is than the real one.

    Args:
        to_generated: distance of each image to the nearest generated one.
        to_real: distance to the nearest real one of another patient, member or not: how usual the image is.
    """
    return -to_generated / np.maximum(to_real, np.finfo(np.float64).tiny)


def attacks(
    scores: Mapping[str, Float[np.ndarray, "n"]], images: Population, config: MembershipConfig
) -> dict[str, Attack]:
    """Returns what each score gives away, with chances that hold over all of them together.

    Args:
        scores: of every image, by the name of the score.
        images: members and non-members.
        config: settings.
    """
    p_values = chances(scores, images, config)
    return {name: _attack(own, images, p_values[name], config) for name, own in scores.items()}


def chances(
    scores: Mapping[str, Float[np.ndarray, "n"]], images: Population, config: MembershipConfig
) -> dict[str, dict[str, float]]:
    """Returns the chance of each statistic of each score without leakage, over all of them together."""
    divisions = _divisions(images, config)
    names = [(name, part) for name in scores for part in _parts(images, config)]
    blocks = (divisions[start : start + DIVISIONS_AT_ONCE] for start in range(0, len(divisions), DIVISIONS_AT_ONCE))
    statistics = np.concatenate([_statistics(scores, block, images, config) for block in blocks])
    p_values: dict[str, dict[str, float]] = {name: {} for name in scores}
    for (name, part), p in zip(names, family_chances(statistics), strict=True):
        p_values[name][part] = float(p)
    return p_values


def _parts(images: Population, config: MembershipConfig) -> list[str]:
    """Returns the names of the statistics of a score that these images allow."""
    tail = [TAIL] if config.rate * (~images.member).sum() >= 1 else []
    return [AREA, *tail, *([BY_PATIENT] if images.by_patient else [])]


def _statistics(
    scores: Mapping[str, Float[np.ndarray, "n"]],
    divisions: Bool[np.ndarray, "k units"],
    images: Population,
    config: MembershipConfig,
) -> Float[np.ndarray, "k tests"]:
    """Returns the statistics of every score, one score after the other, for some divisions of the units."""
    positive = divisions[:, images.owner]
    measures: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        AREA: lambda own: roc.areas(own, positive),
        TAIL: lambda own: roc.true_positive_rates(own, positive, ~positive, rate=config.rate),
        BY_PATIENT: lambda own: roc.areas(_means(own, images), divisions),
    }
    parts = _parts(images, config)
    return np.stack([measures[part](own) for own in scores.values() for part in parts], axis=1)


def _divisions(images: Population, config: MembershipConfig) -> Bool[np.ndarray, "k units"]:
    """Returns ways to call as many units members as there are; the true one first."""
    true = images.unit_is_member
    rng = np.random.default_rng(config.seed)
    others = np.tile(true, (config.permutations - 1, 1))
    return np.concatenate([true[None], rng.permuted(others, axis=1)])


def _means(scores: Float[np.ndarray, "n"], images: Population) -> Float[np.ndarray, "units"]:
    return np.bincount(images.owner, scores) / np.bincount(images.owner)


def family_chances(statistics: Float[np.ndarray, "k tests"]) -> Float[np.ndarray, "tests"]:
    """Returns the chance of each statistic of the first division, over all tests together.

    ``p_j`` is the share of divisions whose statistic j is as large or larger; what is returned is the share of
    divisions whose own smallest p is as small as ``p_j`` or smaller.

    Args:
        statistics: of each division of the units; the true one first.
    """
    p_values = scipy.stats.rankdata(-statistics, method="max", axis=0) / len(statistics)
    return (p_values.min(axis=1)[:, None] <= p_values[0]).mean(axis=0)


def _attack(
    scores: Float[np.ndarray, "n"], images: Population, p_values: Mapping[str, float], config: MembershipConfig
) -> Attack:
    members, others = images.groups(member=True), images.groups(member=False)
    by_patient, tail = None, None
    if images.by_patient:
        sides = (Groups(np.arange(side.count), side.count, "patients") for side in (members, others))
        by_patient = roc.area_estimate(_means(scores, images), images.unit_is_member, *sides)
    if TAIL in p_values:
        replicates = BootstrapConfig(config.resamples, config.seed)
        tail = roc.true_positive_estimate(scores, images.member, members, others, rate=config.rate, config=replicates)
    return Attack(roc.area_estimate(scores, images.member, members, others), tail, by_patient, p_values)


def gap(values: Float[np.ndarray, "n"], images: Population) -> Estimate:
    """Returns the mean over non-members less the mean over members, with its 95 % interval over units."""
    sides = [values[images.member == member] for member in (False, True)]
    derivatives = [(own - own.mean()) / len(own) for own in sides]
    difference = influence.Influence(float(sides[0].mean() - sides[1].mean()), derivatives[0], -derivatives[1])
    return influence.estimate(difference, images.groups(member=False), images.groups(member=True))


def outcome(attacks: Mapping[str, Attack], config: MembershipConfig) -> Outcome:
    """Returns the verdict over all attacks.

    ``leaks`` where any statistic is larger than chance explains. Otherwise there is no sign of it where every attack's
    area is known to be small, and the most exposed images were looked at; without that there are not enough images to
    tell.
    """
    if min(min(attack.p_values.values()) for attack in attacks.values()) < config.significance:
        return LEAKS
    areas = [area for attack in attacks.values() for area in (attack.area, attack.area_by_patient) if area]
    small = all(area.high is not None and area.high < config.tolerated_area for area in areas)
    return NO_SIGN if small and all(attack.true_positives for attack in attacks.values()) else UNKNOWN
