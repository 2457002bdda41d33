"""The work of one slide, wherever it runs: stage the fields it keeps, and later draw what was taken from where."""

import functools
import hashlib
import hmac
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_prep import annotations, caps, digests, qa, shards, slides, splits, tiling, tissue
from diffpath_jax.data import records
from diffpath_jax.errors import DiffpathError
from diffpath_jax.files import sha256_json

PRIVATE = "private"
DIGESTS = "digests"


@dataclass(frozen=True)
class Source:
    """One slide to prepare.

    Attributes:
        slide: its file.
        regions: its annotation file, if it has one.
        label: annotation class of the whole slide, for a slide without an annotation file.
        patient: whose it is.
        mpp: um per level-0 pixel, for a slide that does not state it.
    """

    slide: Path
    regions: Path | None
    label: str | None
    patient: str
    mpp: float | None


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
        key: secret for the hashes that stand for slide and patient in the records.
    """

    out: Path
    name: str
    class_map: annotations.ClassMap
    fields: tiling.FieldSpec
    caps: caps.CapSpec
    split: splits.SplitSpec
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
        }

    def hashed(self, text: str) -> str:
        """Keyed hash (HMAC-SHA256, 16 hex digits): tells slides and patients apart and names none."""
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()[:16]


@dataclass(frozen=True)
class Identity:
    """What decides the records of one slide, given the job. No path, no name.

    Attributes:
        slide: keyed hash of the slide file's digest.
        patient: keyed hash of the patient.
        regions: SHA-256 of the annotation file, or of the label.
        mpp: um per level-0 pixel from the user's table.
    """

    slide: str
    patient: str
    regions: str
    mpp: float | None


@dataclass(frozen=True)
class Prepared:
    """A slide whose fields are staged.

    Attributes:
        name: name of its staged unit.
        identity: what it was made from.
        fresh: whether it was read just now, and not by an earlier run.
        kept: class -> fields.
        outcomes: outcome -> fields that touch a region.
        scale: um/px of level 0 and where it came from; how many pixels of which um/px are read for a field.
        annotations: what of them was not used as it is.
    """

    name: str
    identity: Identity
    fresh: bool
    kept: Mapping[str, int]
    outcomes: Mapping[str, int]
    scale: Mapping[str, Any]
    annotations: Mapping[str, Any]

    @property
    def count(self) -> int:
        """Fields that were kept."""
        return sum(self.kept.values())


@dataclass(frozen=True)
class Placed:
    """A slide, the name of its staged unit, and the split of every field that was kept."""

    source: Source
    name: str
    assigned: Sequence[str]


def identify(job: Job, source: Source) -> Identity:
    """Take the digests of a slide and of its annotations; the slide's is remembered.

    Raises:
        DiffpathError: one of them cannot be read.
    """
    return Identity(
        slide=job.hashed(digests.sha256_remembered(source.slide, job.out / PRIVATE / DIGESTS)),
        patient=job.hashed(source.patient),
        regions=digests.sha256(source.regions) if source.regions else sha256_json({"label": source.label}),
        mpp=source.mpp,
    )


def staged_fields(unit: shards.Unit) -> list[tiling.Field]:
    """Every field that touches a region, kept or not, in the order of the grid."""
    return [tiling.Field(**{**content, "box": slides.Box(**content["box"])}) for content in unit.details["fields"]]


def prepare(job: Job, source: Source) -> Prepared:
    """Stage the fields of one slide, unless an earlier run has.

    Raises:
        DiffpathError: bad input, or (exit code 4) the process that runs this does not see the job's directory.
    """
    staging = shards.Staging.begun(job.out, where=socket.gethostname())
    before = digests.stamp(source.slide)
    identity = identify(job, source)
    name = job.hashed(sha256_json(asdict(identity)))
    found = staging.find(name)
    unit = found or _stage(job, source, before, identity, staging, name)
    fields = staged_fields(unit)
    return Prepared(
        name=name,
        identity=identity,
        fresh=found is None,
        kept=Counter(field.label for field in fields if field.outcome == tiling.KEPT),
        outcomes=Counter(field.outcome for field in fields),
        scale=unit.details["scale"],
        annotations=unit.details["annotations"],
    )


def _stage(
    job: Job, source: Source, stamp: digests.Stamp, identity: Identity, staging: shards.Staging, name: str
) -> shards.Unit:
    slide, found = _open(job, source)
    mask, priority = tissue.find_tissue(slide), job.class_map.priority
    fields = tiling.plan_fields(slide, found.regions, mask, job.fields, priority=priority)
    digest = digests.sha256_remembered(source.slide, job.out / PRIVATE / DIGESTS)
    fields = caps.within_slide(fields, job.caps, seed=job.split.seed, slide=digest)
    kept = [field for field in fields if field.outcome == tiling.KEPT]

    def read() -> Iterator[bytes]:
        images = slides.read_fields(slide, [field.box for field in kept], patch_px=job.fields.patch_px)
        for index, (field, image) in enumerate(zip(kept, images, strict=True)):
            yield records.encode(
                records.PatchRecord(
                    image=image,
                    label=job.class_map.names.index(field.label),
                    slide=identity.slide,
                    patient=identity.patient,
                    mpp=job.fields.mpp,
                    fov_um=job.fields.fov_um,
                    index=index,
                )
            )
        if digests.stamp(source.slide) != stamp:
            raise DiffpathError(
                "slide", where=source.slide, why="it changed while it was read", fix="run the same command again"
            )

    reading = slides.choose_reading(slide, *tiling.field_size(job.fields, slide.scale), patch_px=job.fields.patch_px)
    overlapped = [field for field in fields if field.overlap_share > 0]
    details = {
        "scale": {
            **asdict(slide.scale),
            "read_px": list(reading.size),
            "read_mpp": [slide.scale.x * reading.steps[0], slide.scale.y * reading.steps[1]],
        },
        "annotations": {
            "ignored": dict(found.ignored),
            "outside_share": found.outside_share,
            "overlapped": len(overlapped),
            "overlapped_kept": sum(field.outcome == tiling.KEPT for field in overlapped),
        },
        "fields": [asdict(field) for field in fields],
    }
    return staging.commit(name, read(), details)


def _open(job: Job, source: Source) -> tuple[slides.Slide, annotations.Annotated]:
    table = {} if source.mpp is None else {source.slide.name: source.mpp}
    slide = slides.open_slide(source.slide, scale_table=table)
    return slide, annotations.of_slide(slide, source.regions, source.label, job.class_map)


def draw(job: Job, placed: Placed) -> None:
    """Write the overlay of one slide.

    Raises:
        DiffpathError: the slide or its annotations cannot be read any more.
    """
    slide, found = _open(job, placed.source)
    fields = staged_fields(shards.Staging.begun(job.out, where=socket.gethostname()).describe(placed.name))
    path = job.out / qa.FOLDER / f"{placed.name}.png"
    qa.draw_overlay(path, slide, found.regions, fields, placed.assigned, job.class_map.names)


def tasks(job: Job) -> tuple[functools.partial[Prepared], functools.partial[None]]:
    """The two tasks of a job, ready to be sent to other processes."""
    return functools.partial(prepare, job), functools.partial(draw, job)
