"""Sources of fields of view: a slide, or a batch of images that are patches already.

What becomes of either is the same (:mod:`data_prep.job.source_tasks`).
"""

import hashlib
import hmac
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from data_prep.annotations.class_map import ClassMap
from data_prep.fields import caps, quality, tiling
from data_prep.fields.duplicates import Fingerprint
from data_prep.slide import colour, slides
from data_prep.sources import digests
from data_prep.splits import splits
from diffpath_jax.data.details import AnnotationUse, SlideScale
from diffpath_jax.data.staging import Unit
from diffpath_jax.io.errors import DiffpathError

PRIVATE = "private"
DIGESTS = "digests"


def make_private(out: Path) -> None:
    """Make the folder that names slides and patients, or make it private again: only its owner may look into it."""
    folder = out / PRIVATE
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


@dataclass(frozen=True)
class Origin:
    """Origin of one kept field.

    Attributes:
        file: name of its file; private.
        patient: name of its patient, empty if unknown; private.
        slide: keyed hash of the slide, or of the image.
        owner: keyed hash of what must stay in one split: the patient, or an image whose patient is unknown.
        is_whole_file: the field is all of its file.
    """

    file: str
    patient: str
    slide: str
    owner: str
    is_whole_file: bool


@dataclass(frozen=True)
class Candidate:
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
class SourceSummary:
    """A summary of a source, complete once all its fields are decided on.

    Attributes:
        size: in words.
        scale: um/px of level 0 and its origin; how many pixels of which um/px are read for a field.
        annotations: what of them was not used as it is.
        keys: of images, the keyed hash of each that is kept.
        positions: of images, the position of each that could be used.
        failed: of images, position and reason of each that could not; no names, as this is no private place.
    """

    size: str
    scale: SlideScale
    annotations: AnnotationUse
    keys: Sequence[str] = ()
    positions: Sequence[int] = ()
    failed: Sequence[tuple[int, str]] = ()


@dataclass(frozen=True)
class StagedSource:
    """A source whose kept fields are staged.

    Attributes:
        name: of its staged unit.
        fields: every field that touches a region, kept or not; the kept ones in the order of their records.
        fingerprints: of the images of the kept ones.
        summary: of the source.
    """

    name: str
    fields: Sequence[tiling.Field]
    fingerprints: Sequence[Fingerprint]
    summary: SourceSummary

    @classmethod
    def of_unit(cls, unit: Unit) -> "StagedSource":
        """Returns what :meth:`to_json` stored with a unit."""
        content = unit.details
        summary = SourceSummary(
            size=content["size"],
            scale=SlideScale.from_json(content["scale"]),
            annotations=AnnotationUse.from_json(content["annotations"]),
            keys=content.get("keys", ()),
            positions=content.get("positions", ()),
            failed=[(position, why) for position, why in content.get("failed", ())],
        )
        fingerprints = [Fingerprint(**stored) for stored in content["fingerprints"]]
        return cls(unit.name, [_field(stored) for stored in content["fields"]], fingerprints, summary)

    @property
    def kept(self) -> list[tiling.Field]:
        """The fields that it has records of, in their order."""
        return [field for field in self.fields if field.outcome == tiling.KEPT]


def to_json(
    fields: Iterable[tiling.Field], fingerprints: Iterable[Fingerprint], summary: SourceSummary
) -> dict[str, Any]:
    """Returns what is stored with the unit of a source; :meth:`StagedSource.of_unit` reads it."""
    listed = {"fields": [asdict(field) for field in fields], "fingerprints": [asdict(each) for each in fingerprints]}
    return {**listed, **asdict(summary)}


def _field(content: Mapping[str, Any]) -> tiling.Field:
    scores = quality.Scores(**content["scores"]) if content["scores"] else None
    return tiling.Field(**{**content, "box": slides.Box(**content["box"]), "scores": scores})


# The fields of a source as it decides on them; returns what there is to remember of it.
Candidates = Generator[Candidate, None, SourceSummary]


@dataclass(frozen=True)
class PrivateNames:
    """The names behind keyed hashes; private.

    Attributes:
        source: name of a source.
        patients: keyed hash -> patient, of all its patients that are known.
    """

    source: str
    patients: Mapping[str, str]


@runtime_checkable
class Source(Protocol):
    """A source of fields of view, as much of it as is one unit of work."""

    @property
    def where(self) -> Path:
        """Path that errors name."""

    @property
    def item_noun(self) -> str:
        """Kind of item that it holds: slide or image."""

    @property
    def size(self) -> int:
        """Number of items."""

    @property
    def split(self) -> str | None:
        """The split that the user wants it in; dealt out where there is none."""

    @property
    def knows_patients(self) -> bool:
        """True where the patient of each field is known."""

    @property
    def is_spatial(self) -> bool:
        """True where fields lie side by side in one picture, so that a split by place means something."""

    def stamp(self) -> digests.Stamp:
        """Changes whenever its files do."""

    def identify(self, job: "Job") -> "Identity":
        """Returns what decides its records."""

    def read(self, job: "Job", identity: "Identity") -> Candidates:
        """Decide on every field, and read those that need it; returns a summary at the end."""

    def names(self, job: "Job", identity: "Identity", origins: Sequence[Origin]) -> PrivateNames:
        """Returns what a person calls it and its patients, given the origins of its kept fields."""

    def origins(self, job: "Job", identity: "Identity", staged: StagedSource) -> Sequence[Origin]:
        """Returns the origin of each kept field."""

    def failures(self, summary: SourceSummary) -> Sequence[DiffpathError]:
        """Returns what of it is missing, and why."""

    def draw(self, job: "Job", staged: StagedSource, assigned: Sequence[str], folder: Path) -> None:
        """Write pictures of what was taken, and examples of what was kept and rejected.

        Args:
            job: the job.
            staged: what was staged of this source.
            assigned: the split of each kept field.
            folder: where to; file names begin with the unit's.
        """


@dataclass(frozen=True)
class Job:
    """Settings that all slides of a job have in common, checked and ready to run.

    Attributes:
        out: dataset directory.
        name: dataset name.
        class_map: annotation classes.
        fields: size and grid of the fields of view.
        caps: how many fields are kept at most; drawn with the seed of the split.
        split: shares of train, val and test.
        quality: what an image must be like to be kept.
        duplicates: what is done with images that are there twice, one of ``duplicates.RULES``.
        key: secret for the hashes that stand for slide and patient in the records.
        block_um: side of the blocks of a slide that stand in for patients, in um; 0 for none.
        stain: one of :data:`data_prep.slide.colour.STAINS`.
        fold_max: largest share of a field that lies in folds of the tissue; 1 does not look for any.
        generated: its images say that they are generated.
    """

    out: Path
    name: str
    class_map: ClassMap
    fields: tiling.FieldSpec
    caps: caps.CapSpec
    split: splits.SplitSpec
    quality: quality.QualitySpec
    duplicates: str
    key: bytes
    block_um: float = 0.0
    stain: str = colour.HE
    fold_max: float = 1.0
    generated: bool = False

    def settings(self) -> dict[str, Any]:
        """Everything but the slides that decides what the records are; a rerun must match it."""
        return {
            "name": self.name,
            "classes": {**self.class_map.classes, **dict.fromkeys(sorted(self.class_map.ignore), "")},
            "overlap": self.class_map.overlap,
            **({"exclude": sorted(self.class_map.exclude)} if self.class_map.exclude else {}),
            "fields": {**asdict(self.fields), "origin_um": list(self.fields.origin_um)},
            "caps": asdict(self.caps),
            "split": {**asdict(self.split), "fractions": list(self.split.fractions)},
            "quality": asdict(self.quality),
            "duplicates": self.duplicates,
            **({"block_um": self.block_um} if self.block_um else {}),
            **({"stain": self.stain} if self.stain != colour.HE else {}),
            **({"fold_max": self.fold_max} if self.fold_max < 1 else {}),
            **({"generated": True} if self.generated else {}),
        }

    def hashed(self, text: str) -> str:
        """Keyed hash (HMAC-SHA256, 16 hex digits): tells slides and patients apart and names none."""
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()[:16]


@dataclass(frozen=True)
class Identity:
    """Identity of one source: what decides its records, given the job. No path, no name.

    Attributes:
        slide: keyed hash of the digest of the slide file, or of those of the images.
        patient: keyed hash of the patient, or of the images' patients.
        regions: SHA-256 of the annotation file, or of the label; with those of a tissue mask and of coordinates
            that were handed in.
        mpp: um per level-0 pixel from the user's table, or um per pixel of the images.
    """

    slide: str
    patient: str
    regions: str
    mpp: float | None
