"""A unit of work, wherever it runs: stage the fields that a source keeps, and later draw what was taken from where.

A source is a slide, or a batch of images that are patches already; what becomes of either is the same.
"""

import functools
import itertools
import socket
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from data_prep.fields import duplicates, tiling
from data_prep.qa import pictures
from data_prep.sources import digests
from data_prep.sources.source import (
    Candidate,
    Candidates,
    Identity,
    Job,
    Origin,
    Source,
    SourceSummary,
    StagedSource,
    to_json,
)
from diffpath_jax.data import records
from diffpath_jax.data.details import AnnotationUse, SlideScale
from diffpath_jax.data.staging import Staging, Unit
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.files import sha256_json


@dataclass(frozen=True)
class Prepared:
    """A source whose fields are staged.

    Attributes:
        name: name of its staged unit.
        identity: what it was made from.
        fresh: whether it was read just now, and not by an earlier run.
        kept: owner -> class -> fields.
        outcomes: outcome -> fields that touch a region.
        scale: um/px of level 0 and where it came from; how many pixels of which um/px are read for a field.
        annotations: what of them was not used as it is.
        failures: what of it is missing, and why.
    """

    name: str
    identity: Identity
    fresh: bool
    kept: Mapping[str, Mapping[str, int]]
    outcomes: Mapping[str, int]
    scale: SlideScale
    annotations: AnnotationUse
    failures: Sequence[DiffpathError]

    @property
    def count(self) -> int:
        """Fields that were kept."""
        return sum(sum(classes.values()) for classes in self.kept.values())

    @property
    def why_empty(self) -> str:
        """Why no field was kept, by how many fields there were; empty where one was."""
        if self.count:
            return ""
        reasons = Counter(self.outcomes).most_common()
        said = ", ".join(f"{outcome}: {count}" for outcome, count in reasons) or "no field touches a region"
        return f"none of its fields is kept ({said})"


@dataclass(frozen=True)
class SplitAssignment:
    """A source, the name of its staged unit, and the split of every field that was kept."""

    source: Source
    name: str
    assigned: Sequence[str]


def count_owners(origins: Iterable[Origin], fields: Iterable[tiling.Field]) -> dict[str, Counter[str]]:
    """Owner -> class -> number of some kept fields."""
    counts: dict[str, Counter[str]] = {}
    for origin, field in zip(origins, fields, strict=True):
        counts.setdefault(origin.owner, Counter())[field.label] += 1
    return counts


def kept_origins(
    job: Job, staging: Staging, source: Source, prepared: Prepared
) -> tuple[list[tiling.Field], Sequence[Origin]]:
    """The fields that a source has records of, in their order, and where each comes from."""
    staged = StagedSource.of_unit(staging.describe(prepared.name))
    return staged.kept, source.origins(job, prepared.identity, staged)


def prepare(job: Job, source: Source) -> Prepared:
    """Stage the fields of one source, unless an earlier run has.

    Raises:
        DiffpathError: bad input, or (exit code 4) the process that runs this does not see the job's directory.
    """
    staging = Staging.begun(job.out, where=socket.gethostname())
    before = source.stamp()
    identity = source.identify(job)
    name = job.hashed(sha256_json(asdict(identity)))
    finished = staging.find(name)
    unit = finished or _stage(job, staging, name, _unless_changed(source, before, source.read(job, identity)))
    staged = StagedSource.of_unit(unit)
    return Prepared(
        name=name,
        identity=identity,
        fresh=finished is None,
        kept=count_owners(source.origins(job, identity, staged), staged.kept),
        outcomes=Counter(field.outcome for field in staged.fields),
        scale=staged.summary.scale,
        annotations=staged.summary.annotations,
        failures=source.failures(staged.summary),
    )


def _stage(job: Job, staging: Staging, name: str, candidates: Candidates) -> Unit:
    """Write the records of a source, and then what is remembered of it, which is known when all are taken."""
    details: dict[str, Any] = {}

    def encoded() -> Iterator[bytes]:
        details.update((yield from _records(job, candidates)))

    return staging.commit(name, encoded(), details)


def _records(job: Job, candidates: Candidates) -> Generator[bytes, None, dict[str, Any]]:
    """Yields the records of the fields that are kept, one at a time; returns what is remembered of all fields."""
    numbers = defaultdict[str, Iterator[int]](itertools.count)
    fields, fingerprints = list[tiling.Field](), list[duplicates.Fingerprint]()
    summary = _Summarised(candidates)
    for candidate in summary:
        fields.append(candidate.field)
        if candidate.image is None or candidate.field.outcome != tiling.KEPT:
            continue
        fingerprints.append(duplicates.fingerprint(candidate.image))
        yield records.encode(
            records.PatchRecord(
                image=candidate.image,
                label=job.class_map.names.index(candidate.field.label),
                slide=candidate.slide,
                patient=candidate.patient,
                mpp=job.fields.mpp,
                fov_um=job.fields.fov_um,
                index=next(numbers[candidate.slide]),
            )
        )
    return to_json(fields, fingerprints, summary.value)


class _Summarised:
    """The candidates of a source, and when all are taken, what the source returned."""

    value: SourceSummary

    def __init__(self, candidates: Candidates) -> None:
        self._candidates = candidates

    def __iter__(self) -> Iterator[Candidate]:
        """Yields every candidate."""
        self.value = yield from self._candidates


def _unless_changed(source: Source, before: digests.Stamp, candidates: Candidates) -> Candidates:
    summary = yield from candidates
    if source.stamp() != before:
        why, fix = "it changed while it was read", "run the same command again"
        raise DiffpathError(source.item_noun, where=source.where, why=why, fix=fix)
    return summary


def draw(job: Job, assignment: SplitAssignment) -> None:
    """Write the pictures of one source.

    Raises:
        DiffpathError: it cannot be read any more.
    """
    staging = Staging.begun(job.out, where=socket.gethostname())
    staged = StagedSource.of_unit(staging.describe(assignment.name))
    assignment.source.draw(job, staged, assignment.assigned, job.out / pictures.FOLDER)


def tasks(job: Job) -> tuple[functools.partial[Prepared], functools.partial[None]]:
    """The two tasks of a job, ready to be sent to other processes."""
    return functools.partial(prepare, job), functools.partial(draw, job)
