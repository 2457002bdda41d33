"""Intervals of a score, or of the difference of two arms of a study, over test patients and seeds of training.

Every arm is trained with the same seeds and tested on the same images. Two things vary: which patients there happen
to be, whose fields belong together, and where training happens to end. They are crossed: each seed's classifier sees
every patient. With ``D_s`` the statistic of seed s, its mean over S seeds has the variance

    V = V_patients + V_seeds - V_both,

as each of the first two holds the interaction of patients and seeds, which is to count once (Cameron, Gelbach and
Miller 2011, "Robust inference with multiway clustering", equation 2.11, for a mean):

- ``V_patients``: variance of ``mean_s D_s`` over resampled patients (the cluster bootstrap; Davison and Hinkley 1997,
  section 3.8), times ``P / (P - 1)``;
- ``V_seeds``: variance of ``D_s`` over the seeds, over S;
- ``V_both = (mean_s V_patients(D_s) - V_patients) / (S - 1)``.

The interval is that of Student's t with Satterthwaite's degrees of freedom: five seeds are not many. It is cut at the
bounds of the score, which loses no coverage: no value lies beyond them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import stdtrit

LEVEL = 0.95
# With fewer patients than this, an interval over patients means nothing.
MIN_PATIENTS = 8
RESAMPLES = 1000

Labels = Int[np.ndarray, "n"]
Logits = Float[np.ndarray, "n classes"]
# Number of the patient of each image. A score is computed from sums over the images of each, which are taken once, and
# then from how often each counts, for all resamples at once: a thousand times faster than from their images.
Owners = Int[np.ndarray, "n"]
OfCounts = Callable[[Float[np.ndarray, "resamples owners"]], Float[np.ndarray, "resamples"]]
OfOwners = Callable[[Labels, Logits, Owners], OfCounts]
# Least and greatest possible value.
Bounds = tuple[float, float]
UNBOUNDED: Bounds = (-np.inf, np.inf)
# Of each seed's classifier, for every test image.
SeedLogits = Float[np.ndarray, "seeds n classes"]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its 95 % interval.

    Attributes:
        value: the mean over seeds, on all test images.
        low: lower end; none with fewer than ``MIN_PATIENTS`` patients.
        high: upper end.
        standard_error: square root of V.
        patients: test patients.
        seeds: seeds of training; with one the interval knows nothing of how much another training would change.
    """

    value: float
    low: float | None
    high: float | None
    standard_error: float | None
    patients: int
    seeds: int

    @property
    def excludes_zero(self) -> bool:
        """True if there is an interval and zero lies outside."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Replicates:
    """A statistic of each seed's classifier, on all test patients and on resamples of them.

    Attributes:
        values: on all of them.
        resampled: on each resample; none where there are too few patients for an interval.
        patients: how many there are.
        bounds: of the statistic.
    """

    values: Float[np.ndarray, "seeds"]
    resampled: Float[np.ndarray, "resamples seeds"]
    patients: int
    bounds: Bounds = UNBOUNDED

    def __sub__(self, other: "Replicates") -> "Replicates":
        """Returns the difference of two arms: seed by seed, on the same patients in every resample.

        Both are of the same seeds in the same order, and of the same seed of the resampling.

        Raises:
            ValueError: the arms have other numbers of seeds or resamples.
        """
        if self.resampled.shape != other.resampled.shape:
            raise ValueError(f"{self.resampled.shape} and {other.resampled.shape} replicates cannot be paired")
        (low, high), (other_low, other_high) = self.bounds, other.bounds
        bounds = low - other_high, high - other_low
        return Replicates(self.values - other.values, self.resampled - other.resampled, self.patients, bounds)

    @property
    def is_defined(self) -> bool:
        """True if the statistic is a number on all test patients."""
        return bool(np.isfinite(self.values).all())

    @property
    def interval(self) -> Interval:
        """The mean over seeds with its interval; none where the statistic is undefined in half the resamples.

        Resamples in which it is undefined (an AUROC of patients who all have one class) are left out.
        """
        value, seeds = float(self.values.mean()), len(self.values)
        defined = self.resampled[~np.isnan(self.resampled).any(axis=1)]
        if len(defined) < max(2, len(self.resampled) / 2):
            return Interval(value, None, None, None, self.patients, seeds)
        variance, freedom = _variance(self.values, defined, patients=self.patients)
        error = float(np.sqrt(variance))
        reach = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
        low, high = max(value - reach, self.bounds[0]), min(value + reach, self.bounds[1])
        return Interval(value, low, high, error, self.patients, seeds)


def any_score(measure: Callable[[Labels, Logits], float]) -> OfOwners:
    """Returns a score of resamples that is computed anew from the images of each of them."""

    def of_owners(labels: Labels, logits: Logits, owners: Owners) -> OfCounts:
        def of_counts(counts: np.ndarray) -> np.ndarray:
            drawn = (np.repeat(np.arange(len(labels)), row[owners].astype(int)) for row in counts)
            return np.array([measure(labels[chosen], logits[chosen]) for chosen in drawn])

        return of_counts

    return of_owners


def replicates(
    score: OfOwners,
    labels: Int[np.ndarray, "n"],
    logits: SeedLogits,
    patients: Sequence[str] | np.ndarray,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    bounds: Bounds = UNBOUNDED,
) -> Replicates:
    """A score of one arm, on all test patients and on resamples of them.

    Args:
        score: as it is prepared; :func:`any_score` makes one of any function of images.
        labels: true classes.
        logits: of each seed's classifier.
        patients: name of the patient of each image.
        seed: of the resampling.
        resamples: how often patients are drawn.
        bounds: of the score.
    """
    names, owner = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    if len(names) < MIN_PATIENTS or "" in names:
        resamples = 0
    rng = np.random.default_rng(seed)
    draws = [np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names)) for _ in range(resamples)]
    counts = np.array([np.ones(len(names)), *draws], float)
    found = np.stack([score(labels, own, owner)(counts) for own in logits], axis=1)
    return Replicates(found[0], found[1:], len(names), bounds)


def _variance(
    values: Float[np.ndarray, "seeds"], replicates: Float[np.ndarray, "resamples seeds"], *, patients: int
) -> tuple[float, float]:
    """V of the mean over seeds, and its degrees of freedom."""
    correction = patients / (patients - 1)
    of_patients = correction * replicates.mean(axis=1).var(ddof=1)
    if len(values) == 1:
        return float(of_patients), patients - 1.0
    of_seeds = values.var(ddof=1) / len(values)
    of_both = (correction * replicates.var(axis=0, ddof=1).mean() - of_patients) / (len(values) - 1)
    variance = of_patients + max(of_seeds - of_both, 0.0)
    if not variance:
        return 0.0, patients - 1.0
    spread = of_patients**2 / (patients - 1) + of_seeds**2 / (len(values) - 1)
    return float(variance), float(max(variance**2 / spread, min(patients, len(values)) - 1))


@dataclass(frozen=True)
class Leak:
    """Patients on both sides of a split.

    Attributes:
        patients: who they are, sorted.
        images: share of the test images that are theirs.
    """

    patients: tuple[str, ...]
    images: float


def leak(training: Sequence[str] | np.ndarray, test: Sequence[str] | np.ndarray) -> Leak:
    """Patients of the test images that training saw too, by the patient of each image; nameless ones are nobody."""
    shared = sorted(set(map(str, training)) & set(map(str, test)) - {""})
    return Leak(tuple(shared), float(np.isin(np.asarray(test, dtype=str), shared).mean()))
