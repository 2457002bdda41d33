"""Nearness of real images to their nearest neighbours: thresholds and tails from held-out images.

A copy lies much nearer to one image than to the next ones. With the distances ``d`` of :mod:`matching`,

    r = d(nearest) / mean of d(next ``neighbours`` nearest).

Sets of patches repeat themselves (overlapping patches, the same field scanned twice), so a copied scene is often near
to several images, and a ratio among those would look innocent. What lies as near as the images of two patients hardly
ever do is the same scene and does not count among the next ones.

Held-out images of other patients cannot be copies. Part of them set the threshold: below the j-th smallest of m values
lies a Beta(j, m - j + 1) share of others like them (Wilks 1941), so j can be chosen for a share that is kept with
stated confidence; where patients differ, it is chosen smaller. The rest, of other patients where there are several,
measure the false alarms. Far below all of
them, a power law takes over: as the neighbours within a distance grow in number with a power of it, so does the chance
of a ratio, ``P(r < x) ~ x^D``, with D from the smallest ratios (Hill 1975).
"""

from dataclasses import dataclass

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float, Shaped

# The smallest held-out ratios that the power law is fitted to: this share of them, and at least so many.
TAIL_SHARE, TAIL_MIN = 0.1, 20


@dataclass(frozen=True)
class CalibrationConfig:
    """Settings of a calibration.

    Attributes:
        neighbours: next nearest images that the nearest one is compared with.
        false_alarm_rate: share of real images that may be called copies.
        confidence: of that rate, and of intervals.
        max_ratio: no larger ratio is a copy, however rare. Large images come so near to 1 and to each other that the
            smallest of them mean nothing; at 0.9 and below, an image explains a fifth of the other's variance or more.
    """

    neighbours: int = 50
    false_alarm_rate: float = 0.01
    confidence: float = 0.95
    max_ratio: float = 0.9


@dataclass(frozen=True)
class Calibration:
    """The threshold of a copy, and how often real images are mistaken for one.

    Attributes:
        same_scene: distance below which two images show the same scene.
        threshold: ratio below which an image is a copy.
        count: held-out images that set both.
        rate: the share of real images below the threshold is at most this, at the stated confidence.
        fresh_count: held-out images that had no part in it.
        fresh_alarms: number of those that are called copies.
        fresh_interval: of their share, as if images were independent.
        by_patient: no patient is in both parts.
        ratios: of all held-out images.
    """

    same_scene: float
    threshold: float
    count: int
    rate: float
    fresh_count: int
    fresh_alarms: int
    fresh_interval: tuple[float, float]
    by_patient: bool
    ratios: Float[np.ndarray, "n"]

    @property
    def fresh_rate(self) -> float:
        """Share of fresh held-out images that are called copies."""
        return self.fresh_alarms / self.fresh_count

    @property
    def expected_rate(self) -> float:
        """Share of real images to expect below the threshold: the guaranteed or, if larger, the measured one."""
        return max(self.rate, self.fresh_rate)


def calibrate(
    distances: Float[np.ndarray, "n k"], patients: Shaped[np.ndarray, "n"], *, config: CalibrationConfig, seed: int
) -> Calibration:
    """Sets the threshold on part of the held-out images and measures false alarms on the others.

    Args:
        distances: of each held-out image to its candidates, in ascending order; infinite where there is none.
        patients: patient of each image.
        config: settings.
        seed: random seed of the split of the patients.

    Raises:
        ValueError: fewer than two images.
    """
    if len(distances) < 2:
        raise ValueError("a calibration needs at least 2 held-out images")
    calibrating, by_patient = split_patients(patients, seed=seed)
    same_scene = float(np.quantile(distances[calibrating, 0], config.false_alarm_rate))
    ratios = distances[:, 0] / typical_distances(distances, same_scene=same_scene, neighbours=config.neighbours)
    threshold, rate = set_threshold(ratios[calibrating], patients[calibrating], config=config)
    fresh = ratios[~calibrating]
    alarms = int((fresh < threshold).sum())
    interval = scipy.stats.binomtest(alarms, len(fresh)).proportion_ci(config.confidence, method="exact")
    return Calibration(
        same_scene=same_scene,
        threshold=threshold,
        count=int(calibrating.sum()),
        rate=rate,
        fresh_count=len(fresh),
        fresh_alarms=alarms,
        fresh_interval=(float(interval.low), float(interval.high)),
        by_patient=by_patient,
        ratios=ratios,
    )


def typical_distances(
    distances: Float[np.ndarray, "n k"], *, same_scene: float, neighbours: int
) -> Float[np.ndarray, "n"]:
    """Returns the mean distance of the next neighbours after the nearest that do not show the same scene.

    Where every candidate shows it, the border of the same scene takes their place.

    Args:
        distances: of each image to its candidates, in ascending order; infinite where there is none.
        same_scene: distance below which two images show the same scene.
        neighbours: number of next ones.
    """
    rest = distances[:, 1:]
    counted = (rest >= same_scene) & np.isfinite(rest)
    counted &= np.cumsum(counted, axis=1) <= neighbours
    number = counted.sum(axis=1)
    border = max(same_scene, np.finfo(np.float64).tiny)
    return np.where(number > 0, np.where(counted, rest, 0).sum(axis=1) / np.maximum(number, 1), border)


def set_threshold(
    ratios: Float[np.ndarray, "n"], patients: Shaped[np.ndarray, "n"], *, config: CalibrationConfig
) -> tuple[float, float]:
    """Returns the ratio below which an image is a copy, and at most the share of real images that are below it.

    The largest up to ``max_ratio`` that keeps the configured rate both over images as they come and over patients, who
    differ.
    """
    ordered, wanted = np.sort(ratios), config.false_alarm_rate
    allowed, share = tolerance_rank(len(ratios), rate=wanted, confidence=config.confidence)
    kept = [
        rank
        for rank in range(1, allowed + 1)
        if patient_limit(ratios < ordered[rank - 1], patients, confidence=config.confidence) <= wanted
    ]
    return float(min(ordered[kept[-1] - 1], config.max_ratio)), max(share, wanted)


def patient_limit(alarms: Bool[np.ndarray, "n"], patients: Shaped[np.ndarray, "n"], *, confidence: float) -> float:
    """Returns the upper confidence limit (Student's t) of the mean over patients of their shares of alarms.

    One patient says nothing of how patients differ; the limit is then the share itself.
    """
    names, owners, counts = np.unique(patients, return_inverse=True, return_counts=True)
    shares = np.bincount(owners, alarms) / counts
    if len(names) == 1:
        return float(shares[0])
    error = shares.std(ddof=1) / np.sqrt(len(names))
    return float(shares.mean() + scipy.stats.t.ppf(confidence, len(names) - 1) * error)


def tolerance_rank(count: int, *, rate: float, confidence: float) -> tuple[int, float]:
    """Returns the rank of the threshold among ``count`` held-out values, and the share of others like them below it.

    The largest rank for which that share is at most ``rate`` with the stated confidence; 1 where there is none, with
    the larger share that so few values allow.
    """
    ranks = np.arange(1, max(1, int(rate * count)) + 1)
    shares = scipy.stats.beta.ppf(confidence, ranks, count - ranks + 1)
    rank = max(1, int((shares <= rate).sum()))
    return rank, float(shares[rank - 1])


def tail_chances(
    values: Float[np.ndarray, "n"], held_out: Float[np.ndarray, "m"], *, confidence: float
) -> Float[np.ndarray, "n"]:
    """Returns the chance that a real image has a ratio as small as each of some values.

    Among the smallest held-out ratios, the share below them; further down ``(k/m) (x/u)^D`` with u the (k+1)-th
    smallest. ``2 D sum log(u/r_i)`` is chi-squared with 2k degrees of freedom, which gives D's lower limit at the
    stated confidence; that errs on the side of no copy.
    """
    ordered = np.sort(held_out)
    k = min(len(ordered) - 1, max(TAIL_MIN, int(TAIL_SHARE * len(ordered))))
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.log(ordered[k] / ordered[:k]).sum()
        # Held-out images that are copies themselves, or all alike, say nothing of what is rarer.
        known = 0 < spread < np.inf
        power = scipy.stats.chi2.ppf(1 - confidence, 2 * k) / (2 * spread) if known else 0.0
        tail = (k / len(ordered)) * np.minimum(values / ordered[k], 1) ** power
    return np.where(values < ordered[k], tail, np.searchsorted(ordered, values, side="right") / len(ordered))


def split_patients(patients: Shaped[np.ndarray, "n"], *, seed: int) -> tuple[Bool[np.ndarray, "n"], bool]:
    """Returns whether each image sets the threshold (about half do), and whether patients are kept apart.

    One patient's images are cut in the middle of their order, where the fewest of them overlap.
    """
    names, owners, counts = np.unique(patients, return_inverse=True, return_counts=True)
    if len(names) == 1:
        return np.arange(len(patients)) < (len(patients) + 1) // 2, False
    order = np.random.default_rng(seed).permutation(len(names))
    before = np.cumsum(counts[order]) - counts[order]
    chosen = order[before < len(patients) / 2]
    # A last patient with half of the images or more is left to measure on.
    return np.isin(owners, chosen if len(chosen) < len(names) else chosen[:-1]), True
