"""A unit of work, wherever it runs: stage the fields that a source keeps, and later draw what was taken from where.

A source is a slide, or a batch of images that are patches already; what becomes of either is the same.
"""

import functools
import hashlib
import hmac
import itertools
import socket
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from data_prep import annotations, caps, digests, duplicates, qa, quality, slides, splits, tiling
from diffpath_jax.data import records
from diffpath_jax.data.staging import Staging, Unit
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.files import sha256_json

PRIVATE = "private"
DIGESTS = "digests"


def make_private(out: Path) -> None:
    """Make the folder that names slides and patients, or make it private again: only its owner may look into it."""
    folder = out / PRIVATE
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


@dataclass(frozen=True)
class Origin:
    """Where one kept field comes from.

    Attributes:
        file: name of its file; private.
        patient: name of its patient, empty if unknown; private.
        slide: keyed hash of the slide, or of the image.
        owner: keyed hash of what must stay in one split: the patient, or an image whose patient is unknown.
        whole: the field is a whole file.
    """

    file: str
    patient: str
    slide: str
    owner: str
    whole: bool


@dataclass(frozen=True)
class Seen:
    """A field of view on which a source has decided.

    Attributes:
        field: with its outcome.
        image: as it is stored; None where it was rejected without being read.
        slide: keyed hash of the slide, or of the image.
        patient: keyed hash of the patient; empty if unknown.
    """

    field: tiling.Field
    image: UInt8[np.ndarray, "px px 3"] | None = None
    slide: str = ""
    patient: str = ""


@dataclass(frozen=True)
class Names:
    """What stands behind keyed hashes; private.

    Attributes:
        source: name of a source.
        patients: keyed hash -> patient, of all its patients that are known.
    """

    source: str
    patients: Mapping[str, str]


@runtime_checkable
class Source(Protocol):
    """Where fields of view come from, as much of it as is one unit of work."""

    @property
    def where(self) -> Path:
        """What errors name."""

    @property
    def noun(self) -> str:
        """What it holds: slide or image."""

    @property
    def size(self) -> int:
        """How many of them."""

    @property
    def split(self) -> str | None:
        """The split that the user wants it in; dealt out where there is none."""

    @property
    def knows_patients(self) -> bool:
        """Whether it is known whose each field is."""

    @property
    def has_places(self) -> bool:
        """Whether fields lie side by side in one picture, so that a split by place means something."""

    def stamp(self) -> digests.Stamp:
        """Changes whenever its files do."""

    def identify(self, job: "Job") -> "Identity":
        """What decides its records."""

    def read(self, job: "Job", identity: "Identity", details: dict[str, Any]) -> Iterator[Seen]:
        """Decide on every field, and read those that need it.

        Args:
            job: the job.
            identity: of this source.
            details: filled with what is to be remembered of the source: its ``size`` in words, its ``scale``, its
                ``annotations``, and its own. Whole when all fields are taken.
        """

    def names(self, job: "Job", identity: "Identity", origins: Sequence[Origin]) -> Names:
        """What a person calls it and its patients, given where its kept fields come from."""

    def origins(self, job: "Job", identity: "Identity", unit: Unit) -> Sequence[Origin]:
        """Where each kept field of the staged unit comes from."""

    def failures(self, unit: Unit) -> Sequence[DiffpathError]:
        """What of it is missing in the staged unit, and why."""

    def draw(self, job: "Job", unit: Unit, assigned: Sequence[str], folder: Path) -> None:
        """Write pictures of what was taken, and examples of what was kept and rejected.

        Args:
            job: the job.
            unit: the staged unit.
            assigned: the split of each kept field.
            folder: where to; file names begin with the unit's.
        """


@dataclass(frozen=True)
class Job:
    """What all slides of a job have in common, checked and ready to run.

    Attributes:
        out: dataset directory.
        name: dataset name.
        class_map: annotation classes.
        fields: size and grid of the fields of view.
        caps: how many fields are kept at most; drawn with the seed of the split.
        split: shares of train, val and test.
        quality: what an image must be like to be kept.
        duplicates: what is done with images that are there twice, one of ``repeats.RULES``.
        key: secret for the hashes that stand for slide and patient in the records.
    """

    out: Path
    name: str
    class_map: annotations.ClassMap
    fields: tiling.FieldSpec
    caps: caps.CapSpec
    split: splits.SplitSpec
    quality: quality.QualitySpec
    duplicates: str
    key: bytes

    def settings(self) -> dict[str, Any]:
        """Everything but the slides that decides what the records are; a rerun must match it."""
        return {
            "name": self.name,
            "classes": {**self.class_map.classes, **dict.fromkeys(sorted(self.class_map.ignore), "")},
            "overlap": self.class_map.overlap,
            "fields": {**asdict(self.fields), "origin_um": list(self.fields.origin_um)},
            "caps": asdict(self.caps),
            "split": {**asdict(self.split), "fractions": list(self.split.fractions)},
            "quality": asdict(self.quality),
            "duplicates": self.duplicates,
        }

    def hashed(self, text: str) -> str:
        """Keyed hash (HMAC-SHA256, 16 hex digits): tells slides and patients apart and names none."""
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()[:16]


@dataclass(frozen=True)
class Identity:
    """What decides the records of one source, given the job. No path, no name.

    Attributes:
        slide: keyed hash of the digest of the slide file, or of those of the images.
        patient: keyed hash of the patient, or of the images' patients.
        regions: SHA-256 of the annotation file, or of the label.
        mpp: um per level-0 pixel from the user's table, or um per pixel of the images.
    """

    slide: str
    patient: str
    regions: str
    mpp: float | None


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
    scale: Mapping[str, Any]
    annotations: Mapping[str, Any]
    failures: Sequence[DiffpathError]

    @property
    def count(self) -> int:
        """Fields that were kept."""
        return sum(sum(classes.values()) for classes in self.kept.values())


@dataclass(frozen=True)
class Placed:
    """A source, the name of its staged unit, and the split of every field that was kept."""

    source: Source
    name: str
    assigned: Sequence[str]


def staged_fields(unit: Unit) -> list[tiling.Field]:
    """Every field that touches a region, kept or not; the kept ones in the order of their records."""
    return [_field(content) for content in unit.details["fields"]]


def _field(content: Mapping[str, Any]) -> tiling.Field:
    scores = quality.Scores(**content["scores"]) if content["scores"] else None
    return tiling.Field(**{**content, "box": slides.Box(**content["box"]), "scores": scores})


def kept_fields(unit: Unit) -> list[tiling.Field]:
    """The fields that a staged unit has records of, in their order."""
    return [field for field in staged_fields(unit) if field.outcome == tiling.KEPT]


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
    unit = staging.describe(prepared.name)
    return kept_fields(unit), source.origins(job, prepared.identity, unit)


def prepare(job: Job, source: Source) -> Prepared:
    """Stage the fields of one source, unless an earlier run has.

    Raises:
        DiffpathError: bad input, or (exit code 4) the process that runs this does not see the job's directory.
    """
    staging = Staging.begun(job.out, where=socket.gethostname())
    before = source.stamp()
    identity = source.identify(job)
    name = job.hashed(sha256_json(asdict(identity)))
    found = staging.find(name)
    if found is None:
        details: dict[str, Any] = {"fields": [], "fingerprints": []}
        seen = _unless_changed(source, before, source.read(job, identity, details))
        unit = staging.commit(name, _records(job, seen, details), details)
    else:
        unit = found
    return Prepared(
        name=name,
        identity=identity,
        fresh=found is None,
        kept=count_owners(source.origins(job, identity, unit), kept_fields(unit)),
        outcomes=Counter(field.outcome for field in staged_fields(unit)),
        scale=unit.details["scale"],
        annotations=unit.details["annotations"],
        failures=source.failures(unit),
    )


def _records(job: Job, seen: Iterator[Seen], details: Mapping[str, list[Any]]) -> Iterator[bytes]:
    """Records of the fields that are kept, one at a time; all fields, and fingerprints of these, go to ``details``."""
    numbers = defaultdict[str, Iterator[int]](itertools.count)
    for each in seen:
        details["fields"].append(asdict(each.field))
        if each.image is None or each.field.outcome != tiling.KEPT:
            continue
        details["fingerprints"].append(asdict(duplicates.fingerprint(each.image)))
        yield records.encode(
            records.PatchRecord(
                image=each.image,
                label=job.class_map.names.index(each.field.label),
                slide=each.slide,
                patient=each.patient,
                mpp=job.fields.mpp,
                fov_um=job.fields.fov_um,
                index=next(numbers[each.slide]),
            )
        )


def _unless_changed(source: Source, before: digests.Stamp, seen: Iterator[Seen]) -> Iterator[Seen]:
    yield from seen
    if source.stamp() != before:
        why, fix = "it changed while it was read", "run the same command again"
        raise DiffpathError(source.noun, where=source.where, why=why, fix=fix)


def draw(job: Job, placed: Placed) -> None:
    """Write the pictures of one source.

    Raises:
        DiffpathError: it cannot be read any more.
    """
    staging = Staging.begun(job.out, where=socket.gethostname())
    unit = staging.describe(placed.name)
    placed.source.draw(job, unit, placed.assigned, job.out / qa.FOLDER)


def tasks(job: Job) -> tuple[functools.partial[Prepared], functools.partial[None]]:
    """The two tasks of a job, ready to be sent to other processes."""
    return functools.partial(prepare, job), functools.partial(draw, job)
