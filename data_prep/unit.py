"""The work of one slide, wherever it runs: stage the fields it keeps, and later draw what was taken from where."""

import functools
import hashlib
import hmac
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import annotations, digests, duplicates, qa, quality, shards, slides, splits, tiling, tissue
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
        split: shares of train, val and test.
        quality: what an image must be like to be kept.
        duplicates: what is done with images that are there twice, one of ``repeats.RULES``.
        key: secret for the hashes that stand for slide and patient in the records.
    """

    out: Path
    name: str
    class_map: annotations.ClassMap
    fields: tiling.FieldSpec
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
            "fields": asdict(self.fields),
            "split": {**asdict(self.split), "fractions": list(self.split.fractions)},
            "quality": asdict(self.quality),
            "duplicates": self.duplicates,
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
        scale: um/px of level 0 and where it came from.
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
    return [_field(content) for content in unit.details["fields"]]


def _field(content: Mapping[str, Any]) -> tiling.Field:
    scores = quality.Scores(**content["scores"]) if content["scores"] else None
    return tiling.Field(**{**content, "box": slides.Box(**content["box"]), "scores": scores})


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
    planned = tiling.plan_fields(slide, found.regions, mask, job.fields, priority=priority)
    # Filled while the images are read, one at a time: only then it is known what became of a field.
    details: dict[str, Any] = {"fields": [], "fingerprints": []}

    def read() -> Iterator[bytes]:
        overlaps = Counter[str]()
        for field, image in _judge(job, slide, planned):
            details["fields"].append(asdict(field))
            overlaps[field.outcome] += field.overlap_share > 0
            if image is None or field.outcome != tiling.KEPT:
                continue
            yield records.encode(
                records.PatchRecord(
                    image=image,
                    label=job.class_map.names.index(field.label),
                    slide=identity.slide,
                    patient=identity.patient,
                    mpp=job.fields.mpp,
                    fov_um=job.fields.fov_um,
                    index=len(details["fingerprints"]),
                )
            )
            details["fingerprints"].append(asdict(duplicates.fingerprint(image)))
        if digests.stamp(source.slide) != stamp:
            raise DiffpathError(
                "slide", where=source.slide, why="it changed while it was read", fix="run the same command again"
            )
        details["scale"], details["size"] = asdict(slide.scale), list(slide.size)
        details["annotations"] = {
            "ignored": dict(found.ignored),
            "outside_share": found.outside_share,
            "overlapped": overlaps.total(),
            "overlapped_kept": overlaps[tiling.KEPT],
        }

    return staging.commit(name, read(), details)


def _judge(
    job: Job, slide: slides.Slide, planned: Sequence[tiling.Field]
) -> Iterator[tuple[tiling.Field, np.ndarray | None]]:
    """Every planned field, in order; those that have to be read with their scores, their outcome and their image."""
    wanted = [field.box for field in planned if field.outcome == tiling.KEPT]
    images = slides.read_fields(slide, wanted, patch_px=job.fields.patch_px)
    for field in planned:
        if field.outcome != tiling.KEPT:
            yield field, None
            continue
        image = next(images)
        scores = quality.measure(image)
        reason = quality.reject(scores, job.quality)
        judged = replace(field, scores=scores)
        yield (replace(judged, outcome=reason, label="") if reason else judged), image


def _open(job: Job, source: Source) -> tuple[slides.Slide, annotations.Annotated]:
    table = {} if source.mpp is None else {source.slide.name: source.mpp}
    slide = slides.open_slide(source.slide, scale_table=table)
    return slide, annotations.of_slide(slide, source.regions, source.label, job.class_map)


def draw(job: Job, placed: Placed) -> None:
    """Write the overlay of one slide, and examples of what was kept and rejected.

    Raises:
        DiffpathError: the slide or its annotations cannot be read any more.
    """
    slide, found = _open(job, placed.source)
    fields = staged_fields(shards.Staging.begun(job.out, where=socket.gethostname()).describe(placed.name))
    folder = job.out / qa.FOLDER
    overlay = folder / f"{placed.name}.png"
    qa.draw_overlay(overlay, slide, found.regions, fields, placed.assigned, job.class_map.names)
    qa.draw_examples(folder / qa.EXAMPLES, placed.name, slide, fields, patch_px=job.fields.patch_px)


def tasks(job: Job) -> tuple[functools.partial[Prepared], functools.partial[None]]:
    """The two tasks of a job, ready to be sent to other processes."""
    return functools.partial(prepare, job), functools.partial(draw, job)
