"""Memorisation audit: copies of training images among generated ones, against a calibration on held-out images.

Copies are found through symmetries, shifts and stain (:mod:`matching`), and an image is one when the ratio of its
nearest to its next distances is smaller than held-out images of other patients have it (:mod:`calibration`).
"""

from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse
import scipy.stats
from jaxtyping import Bool, Float, Shaped

from diffpath_jax.metrics.memorization import matching
from diffpath_jax.metrics.memorization.calibration import (
    Calibration,
    CalibrationConfig,
    calibrate,
    tail_chances,
    typical_distances,
)
from diffpath_jax.metrics.memorization.matching import Images, Matches


@dataclass(frozen=True)
class AuditConfig:
    """Settings of an audit.

    Attributes:
        calibration: settings of the threshold of a copy.
        candidates: images aligned with each query; more than the neighbours of the calibration, so that enough remain
            where several show the copied scene.
        shift_px: largest shift each way, in pixels of the stored images.
        significance: chance of a verdict of copying over a set without copies.
        closest: pairs to report.
    """

    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    candidates: int = 100
    shift_px: int = 4
    significance: float = 0.01
    closest: int = 20


@dataclass(frozen=True)
class Pair:
    """A generated image and the image it is nearest to.

    Attributes:
        generated: index of the generated image.
        reference: index of the other, in training or (a duplicate) among the generated ones.
        symmetry: index into ``matching.SYMMETRIES`` of what turns the generated image into the other.
        shift: (down, right) in pixels by which the turned image then lies off the other.
        distance: 0 for the same image, 1 for nothing in common.
        ratio: to the next distances.
        chance: that a real image has a ratio as small.
    """

    generated: int
    reference: int
    symmetry: int
    shift: tuple[float, float]
    distance: float
    ratio: float
    chance: float


@dataclass(frozen=True)
class Audit:
    """Result of an audit.

    Attributes:
        ratios: of every generated image.
        flagged: which are called copies.
        certain: which are so near that not one real image in a set of this size would be.
        calibration: threshold and false alarms.
        p_value: chance of at least as many flagged ones, at the larger of the false-alarm rates, the one guaranteed
            and the one measured on fresh held-out images (binomial).
        copying: some are certain, or more are flagged than chance explains.
        verdict: all that in words.
        pairs: the closest, smallest ratio first.
    """

    ratios: Float[np.ndarray, "n"]
    flagged: Bool[np.ndarray, "n"]
    certain: Bool[np.ndarray, "n"]
    calibration: Calibration
    p_value: float
    copying: bool
    verdict: str
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Duplicates:
    """Generated images that repeat each other.

    Attributes:
        audit: of the generated images against each other; real images of other patients say what is usual.
        groups: indices of images that show one scene, largest group first.
    """

    audit: Audit
    groups: tuple[tuple[int, ...], ...]


def audit(generated: Images, training: Images, held_out: Images, *, config: AuditConfig, seed: int) -> Audit:
    """Looks for copies of training images.

    Args:
        generated: images of the model.
        training: all images it was trained on.
        held_out: real images of patients who are not in training; the verdict says so where some are.
        config: settings.
        seed: random seed of the split of held-out patients.

    Raises:
        ValueError: no generated image, or fewer than two training or held-out images.
    """
    _check_counts(generated, least=1, what="generated")
    _check_counts(training, least=2, what="training")
    _check_counts(held_out, least=2, what="held-out")
    reference = matching.index(training, np.zeros(training.count, np.int64))
    matches, held_out_matches = (
        _find(images, reference, np.ones(images.count, np.int64), config) for images in (generated, held_out)
    )
    calibration = calibrate(held_out_matches.distances, held_out.patients, config=config.calibration, seed=seed)
    judged = judge(matches, calibration, config=config)
    shared = np.intersect1d(training.patients, held_out.patients)
    if not len(shared):
        return judged
    note = f"held-out patients who are in training too: {len(shared):,}, so copies may be missed"
    return replace(judged, verdict=f"{judged.verdict}; {note}")


def duplicates(generated: Images, held_out: Images, *, config: AuditConfig, seed: int) -> Duplicates:
    """Looks for generated images that repeat each other.

    What is usual comes from held-out images among those of other patients, or among all others where there is only one
    patient. The ratio hardly depends on the size of a set.

    Raises:
        ValueError: fewer than two images in a set.
    """
    _check_counts(generated, least=2, what="generated")
    _check_counts(held_out, least=2, what="held-out")
    itself = np.arange(generated.count)
    matches = _find(generated, matching.index(generated, itself), itself, config)
    owners = _owners(held_out.patients)
    held_out_matches = _find(held_out, matching.index(held_out, owners), owners, config)
    calibration = calibrate(held_out_matches.distances, held_out.patients, config=config.calibration, seed=seed)
    return Duplicates(judge(matches, calibration, config=config), _groups(matches, calibration, config))


def _check_counts(images: Images, *, least: int, what: str) -> None:
    if images.count < least:
        raise ValueError(f"{images.count} {what} images; an audit needs at least {least}")


def _find(images: Images, reference: matching.Reference, keys: np.ndarray, config: AuditConfig) -> Matches:
    return matching.find(images, reference, keys=keys, candidates=config.candidates, shift_px=config.shift_px)


def _owners(patients: Shaped[np.ndarray, "n"]) -> np.ndarray:
    names, owners = np.unique(patients, return_inverse=True)
    return owners if len(names) > 1 else np.arange(len(patients))


def judge(matches: Matches, calibration: Calibration, *, config: AuditConfig) -> Audit:
    """Applies a calibration to the matches of generated images."""
    confidence = config.calibration.confidence
    ratios = matches.distances[:, 0] / _typical(matches, calibration, config)
    flagged = ratios < calibration.threshold
    chances = tail_chances(ratios, calibration.ratios, confidence=confidence)
    # Two tests share the chance of a false verdict; the second is of as many images as there are.
    certain = flagged & (chances * len(ratios) < config.significance / 2)
    many = scipy.stats.binomtest(int(flagged.sum()), len(ratios), calibration.expected_rate, alternative="greater")
    copying = bool(certain.any() or many.pvalue < config.significance / 2)
    return Audit(
        ratios=ratios,
        flagged=flagged,
        certain=certain,
        calibration=calibration,
        p_value=float(many.pvalue),
        copying=copying,
        verdict=_verdict(flagged, certain, copying, calibration, config.calibration),
        pairs=tuple(
            _pair(matches, int(row), float(ratios[row]), float(chances[row]))
            for row in np.argsort(ratios, kind="stable")[: config.closest]
        ),
    )


def _typical(matches: Matches, calibration: Calibration, config: AuditConfig) -> np.ndarray:
    neighbours = config.calibration.neighbours
    return typical_distances(matches.distances, same_scene=calibration.same_scene, neighbours=neighbours)


def _pair(matches: Matches, row: int, ratio: float, chance: float) -> Pair:
    down, right = matches.shifts[row, 0].tolist()
    return Pair(
        generated=row,
        reference=int(matches.indices[row, 0]),
        symmetry=int(matches.symmetries[row, 0]),
        shift=(down, right),
        distance=float(matches.distances[row, 0]),
        ratio=ratio,
        chance=chance,
    )


def _groups(matches: Matches, calibration: Calibration, config: AuditConfig) -> tuple[tuple[int, ...], ...]:
    """Returns the connected components of the pairs whose own ratio is below the threshold."""
    near = matches.distances < calibration.threshold * _typical(matches, calibration, config)[:, None]
    rows, columns = np.nonzero(near)
    count = len(near)
    links = scipy.sparse.coo_array((np.ones(len(rows)), (rows, matches.indices[rows, columns])), shape=(count, count))
    _, labels = scipy.sparse.csgraph.connected_components(links, directed=False)
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    groups = [tuple(group.tolist()) for group in members if len(group) > 1]
    return tuple(sorted(groups, key=len, reverse=True))


def _verdict(
    flagged: np.ndarray, certain: np.ndarray, copying: bool, calibration: Calibration, config: CalibrationConfig
) -> str:
    """Returns the audit in words."""
    low, high = calibration.fresh_interval
    origin = "of other patients" if calibration.by_patient else "not used to set the threshold"
    parts = [
        f"{flagged.sum():,} of {len(flagged):,} flagged ({flagged.mean():.2%}); of {calibration.fresh_count:,} real "
        f"images {origin}, {calibration.fresh_rate:.2%} are ({config.confidence:.0%} interval {low:.2%} to {high:.2%})"
    ]
    if certain.any():
        parts.append(f"{certain.sum():,} are nearer than any real image of a set of this size would be: copies")
    elif copying:
        parts.append("more than false alarms explain: signs of copying")
    else:
        parts.append("no more than false alarms explain: no sign of copying")
    if calibration.rate > config.false_alarm_rate:
        parts.append(
            f"{calibration.count:,} held-out images are too few to set a rate of {config.false_alarm_rate:.0%}: up to "
            f"{calibration.rate:.1%} of real images may be flagged"
        )
    return "; ".join(parts)
