"""Train, validation and test: by patient, or by place when there is only one patient.

Images of one patient in two splits make every later number too good, so a patient is in one split only. One
patient's slide can still show that a pipeline works: it is then cut into bands with a gap between them, and the
data set says so.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_prep.slides import Box
from diffpath_jax.errors import DiffpathError

SPLITS = ("train", "val", "test")
# Not a split: fields between two bands of a spatial split.
GAP = "gap"
_CUT_POSITIONS = 64


@dataclass(frozen=True)
class SplitSpec:
    """How much goes where.

    Attributes:
        fractions: wanted share of train, val and test; they sum to 1 and may be 0.
        gap_um: least distance between two splits of one slide, for a spatial split.
        seed: for the order in which patients of equal weight are dealt out.
    """

    fractions: tuple[float, float, float]
    gap_um: float
    seed: int


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
    wanted = {split: share for split, share in zip(SPLITS, spec.fractions, strict=True) if share > 0}
    if len(counts) < len(wanted):
        raise DiffpathError(
            "split",
            where="the patients",
            why=f"{len(counts)} patients cannot fill {len(wanted)} splits",
            fix="add patients, or set a share to 0 with --fractions",
        )
    classes = sorted({name for per_class in counts.values() for name in per_class})
    table = {p: np.array([per_class.get(c, 0) for c in classes], float) for p, per_class in counts.items()}
    total = np.maximum(sum(table.values()), 1)
    order = np.random.default_rng(spec.seed).permutation(sorted(table))
    filled = {split: np.zeros(len(classes)) for split in wanted}
    assigned: dict[str, str] = {}
    # Large patients first: the small ones then even out what is left.
    for patient in sorted(order, key=lambda name: -(table[name] / total).sum()):
        left = len(table) - len(assigned)
        empty = [split for split in wanted if split not in assigned.values()]
        choices = empty if len(empty) == left else list(wanted)
        weight = table[patient] / total

        def relief(split: str, weight: np.ndarray = weight) -> float:
            missing = wanted[split] - filled[split] / total
            return float((weight * missing).sum()) / wanted[split]

        best = max(choices, key=relief)
        assigned[str(patient)] = best
        filled[best] += table[patient]
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
    """How many of the sorted ``positions`` lie in each interval [low, high]."""
    count = np.searchsorted(positions, high, side="right") - np.searchsorted(positions, low, side="left")
    return np.maximum(count, 0)


def prove_disjoint(patients: Sequence[str], splits: Sequence[str]) -> str:
    """One line of proof that no patient is in two splits.

    Raises:
        DiffpathError: one is.
    """
    seen: dict[str, str] = {}
    for patient, split in zip(patients, splits, strict=True):
        if split != GAP and seen.setdefault(patient, split) != split:
            raise DiffpathError(
                f"patient {patient}",
                where="the split",
                why=f"in {seen[patient]} and in {split}",
                fix="check the table given to --patients; please report this",
            )
    per_split = {split: sum(found == split for found in seen.values()) for split in SPLITS}
    counts = ", ".join(f"{count} in {split}" for split, count in per_split.items())
    return f"{len(seen)} patients: {counts}; none in two splits"
