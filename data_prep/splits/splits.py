"""Train, validation and test: by patient, or by place when there is only one patient.

Images of one patient in two splits make every later number too good, so a patient is in one split only. One
patient's slide can still show that a pipeline works: it is then cut into bands with a gap between them, and the
data set says so.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from data_prep.slide.slides import Box
from diffpath_jax.io.errors import DiffpathError

SPLITS = ("train", "val", "test")
# What folders and data sets call their splits.
ALIASES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
DEFAULT_FRACTIONS = (0.7, 0.1, 0.2)
MAX_FOLDS = 20
# What an option may say; 1 is no number of folds, and refused by itself.
FoldCount = Annotated[int, Field(ge=0, le=MAX_FOLDS)]
# Not a split: fields between two bands of a spatial split.
GAP = "gap"
_CUT_POSITIONS = 64


@dataclass(frozen=True)
class SplitSpec:
    """Shares of the splits.

    Attributes:
        fractions: wanted share of train, val and test; they sum to 1 and may be 0.
        gap_um: least distance between two splits of one slide, for a spatial split.
        seed: for the order in which patients of equal weight are dealt out.
        folds: number of equal folds that take the place of train, val and test; 0 for none.
    """

    fractions: tuple[float, float, float]
    gap_um: float
    seed: int
    folds: int = 0

    @property
    def wanted(self) -> dict[str, float]:
        """The share of each split that is to have one."""
        if self.folds:
            return {fold_name(number): 1 / self.folds for number in range(self.folds)}
        return {split: share for split, share in zip(SPLITS, self.fractions, strict=True) if share > 0}

    @property
    def names(self) -> tuple[str, ...]:
        """Every split, in order."""
        return tuple(self.wanted) if self.folds else SPLITS


def fold_name(number: int) -> str:
    """The split that a fold is."""
    return f"fold{number}"


def check_folds(folds: int) -> int:
    """Return the number of folds.

    Raises:
        DiffpathError: one fold, or too many.
    """
    if folds and not 2 <= folds <= MAX_FOLDS:
        why = f"{folds} is not from 2 to {MAX_FOLDS}"
        raise DiffpathError("--folds", where="the command line", why=why, fix="write e.g. --folds 5")
    return folds


def check_enough(patients: int, spec: SplitSpec) -> None:
    """Check that every split can have a patient.

    Raises:
        DiffpathError: there are fewer patients than splits.
    """
    if patients < len(spec.wanted):
        raise DiffpathError(
            "split",
            where="the patients",
            why=f"{patients} patients with fields of view cannot fill {len(spec.wanted)} splits",
            fix="add patients, set a share to 0 with --fractions, or take fewer --folds",
        )


def check_fractions(fractions: Sequence[float]) -> tuple[float, float, float]:
    """Return the three fractions.

    Raises:
        DiffpathError: not three shares that sum to 1 with something for training.
    """
    valid = len(fractions) == 3 and all(f >= 0 for f in fractions) and abs(sum(fractions) - 1) < 1e-6
    if not valid or fractions[0] == 0:
        raise DiffpathError(
            "--fractions",
            where="the command line",
            why=f"{list(fractions)} are not shares of train, val and test that sum to 1",
            fix="write e.g. --fractions 0.7,0.1,0.2",
        )
    return fractions[0], fractions[1], fractions[2]


def split_patients(counts: Mapping[str, Mapping[str, int]], spec: SplitSpec) -> dict[str, str]:
    """Deal patients to splits so that each class comes as near to its wanted shares as whole patients allow.

    Args:
        counts: patient -> class -> number of fields.
        spec: wanted shares and seed.

    Returns:
        patient -> split.

    Raises:
        DiffpathError: fewer patients than splits.
    """
    check_enough(len(counts), spec)
    names, wanted = list(spec.wanted), np.array(list(spec.wanted.values()))
    patients = sorted(counts)
    classes = sorted({name for per_class in counts.values() for name in per_class})
    table = np.array([[counts[patient].get(name, 0) for name in classes] for patient in patients], float)
    # Share of each class that a patient has.
    weights = table / np.maximum(table.sum(axis=0), 1)
    order = np.random.default_rng(spec.seed).permutation(len(patients))
    # Large patients first: the small ones then even out what is left.
    order = order[np.argsort(-weights[order].sum(axis=1), kind="stable")]
    missing = np.repeat(wanted[:, None], len(classes), axis=1)
    empty = np.ones(len(names), bool)
    assigned: dict[str, str] = {}
    for left, index in zip(range(len(order), 0, -1), order, strict=True):
        relief = missing @ weights[index] / wanted
        # The last patients go where there is none yet.
        best = int(np.where(empty | (empty.sum() < left), relief, -np.inf).argmax())
        assigned[patients[index]] = names[best]
        missing[best] -= weights[index]
        empty[best] = False
    return assigned


def split_by_place(
    boxes: Sequence[Box], labels: Sequence[str], *, fractions: tuple[float, float, float], gap_px: float
) -> list[str]:
    """Cut one slide into parallel bands, one a split, that are at least ``gap_px`` level-0 pixels apart.

    All directions, orders and (on a grid) positions of the cuts are tried; the one whose worst-served class and
    split comes nearest to its wanted share is taken.

    Returns:
        The split of each box, ``GAP`` for those in between.
    """
    wanted = [(split, share) for split, share in zip(SPLITS, fractions, strict=True) if share > 0]
    names = np.array(labels)
    best_score, best = (-1.0, -1.0), [GAP] * len(boxes)
    for axis, side_name in (("y", "height"), ("x", "width")):
        start = np.array([getattr(box, axis) for box in boxes])
        side = getattr(boxes[0], side_name)
        per_class = [np.sort(start[names == name]) for name in sorted(set(labels))]
        cuts = np.linspace(start.min(), start.max() + side, _CUT_POSITIONS + 1)[1:-1]
        edges = np.array([(-np.inf, *chosen, np.inf) for chosen in itertools.combinations(cuts, len(wanted) - 1)])
        low, high = edges[:, :-1] + gap_px / 2, edges[:, 1:] - gap_px / 2 - side
        inside = np.stack([_between(positions, low, high) / len(positions) for positions in per_class])
        for order in itertools.permutations(wanted):
            worst = (inside / np.array([share for _, share in order])).min(axis=(0, 2))
            kept = inside.sum(axis=(0, 2))
            row = int(np.lexsort((kept, worst))[-1])
            score = (float(worst[row]), float(kept[row]))
            if score > best_score:
                best_score = score
                member = (start[:, None] >= low[row]) & (start[:, None] <= high[row])
                named = np.array([GAP, *(split for split, _ in order)])
                best = named[np.where(member.any(axis=1), member.argmax(axis=1) + 1, 0)].tolist()
    return best


def _between(positions: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Returns the number of sorted ``positions`` in each interval [low, high]."""
    count = np.searchsorted(positions, high, side="right") - np.searchsorted(positions, low, side="left")
    return np.maximum(count, 0)


def prove_disjoint(placed: Iterable[tuple[str, str]], names: Sequence[str]) -> str:
    """One line of proof that no patient is in two splits.

    Args:
        placed: every pair of a patient and a split that it has fields in.
        names: the splits.

    Raises:
        DiffpathError: one is.
    """
    seen: dict[str, str] = {}
    for patient, split in placed:
        if seen.setdefault(patient, split) != split:
            raise DiffpathError(
                f"patient {patient}",
                where="the split",
                why=f"in {seen[patient]} and in {split}",
                fix="give each patient one split, or let the splits be dealt out",
            )
    counts = Counter(seen.values())
    return f"{len(seen)} patients: {', '.join(f'{counts[split]} in {split}' for split in names)}; none in two splits"
