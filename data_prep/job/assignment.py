"""The split of each field, over all sources of a job, and the proof that no patient is in two."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence

from data_prep.fields import tiling
from data_prep.job.source_tasks import Prepared
from data_prep.sources.source import Origin, Source
from data_prep.splits import splits
from data_prep.splits.splits import SplitSpec

Assign = Callable[[Source, Prepared, Sequence[tiling.Field], Sequence[Origin]], list[str]]
Done = Sequence[tuple[Source, Prepared]]


def assignment(spec: SplitSpec, done: Done) -> Assign:
    """Returns what gives kept fields their splits: as the user says, by patient, or (one patient's slide) by place.

    Raises:
        DiffpathError: fewer patients than splits.
    """
    if by_place(spec, done):
        return lambda _, prepared, kept, __: _bands(spec, prepared, kept)
    if all(source.split for source, _ in done):
        return lambda source, _, kept, __: [str(source.split)] * len(kept)
    counts: dict[str, Counter[str]] = {}
    for _, prepared in done:
        for owner, classes in prepared.kept.items():
            counts.setdefault(owner, Counter()).update(classes)
    where = splits.split_patients(counts, spec)
    return lambda _, __, ___, origins: [where[origin.owner] for origin in origins]


def by_place(spec: SplitSpec, done: Done) -> bool:
    """Returns whether there is one patient only, whose slides can be cut into bands."""
    patients = {prepared.identity.patient for _, prepared in done}
    is_stated = any(source.split for source, _ in done)
    return len(patients) == 1 and not is_stated and not spec.folds and all(source.is_spatial for source, _ in done)


def split_by(spec: SplitSpec, done: Done) -> str:
    """Returns what splits keep apart, one of ``SPLIT_BY`` of :mod:`diffpath_jax.data.details`."""
    if by_place(spec, done):
        return "place"
    return "patient" if all(source.knows_patients for source, _ in done) else "image"


def proof(spec: SplitSpec, done: Done, placed: Collection[tuple[str, str]], *, block_um: float = 0.0) -> str:
    """One line that says why the splits can be trusted, or why not.

    Args:
        spec: how they were made.
        done: all sources.
        placed: every pair of an owner and a split that holds fields of it.
        block_um: side of the blocks that stand in for patients; 0 for none.

    Raises:
        DiffpathError: a patient is in two splits.
    """
    kind = split_by(spec, done)
    if kind == "place":
        blocks = f"; blocks of {block_um:g} um stand in for patients where statistics need some" if block_um else ""
        return (
            f"one patient: split by place, in bands {spec.gap_um:g} um apart; train, val and test are the same "
            f"patient, so no number here says how well anything carries over to another patient{blocks}"
        )
    if kind == "image":
        return (
            f"{len(placed)} images whose patients are unknown: images of one patient may be in two splits, this "
            "leakage cannot be excluded, and numbers measured across the splits may be too good"
        )
    found = splits.prove_disjoint(sorted(placed), spec.names)
    kept = sum(sum(counts.values()) for _, prepared in done for counts in prepared.kept.values())
    if not any(source.is_spatial for source, _ in done) and kept == len(placed):
        return f"{found}; each has one image, so that this cannot show whether two images are of one person"
    return found


def _bands(spec: SplitSpec, prepared: Prepared, kept: Sequence[tiling.Field]) -> list[str]:
    if not kept:
        return []
    return splits.split_by_place(
        [field.box for field in kept],
        [field.label for field in kept],
        fractions=spec.fractions,
        gap_px=spec.gap_um / prepared.scale.x,
    )
