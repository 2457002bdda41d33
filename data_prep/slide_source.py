"""A slide as a source: its fields of view, in the regions of its annotations or under its label."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from data_prep import annotations, caps, digests, qa, shards, slides, tiling, tissue
from data_prep.unit import DIGESTS, PRIVATE, Identity, Job, Origin, kept_fields, staged_fields
from diffpath_jax.data import records
from diffpath_jax.errors import DiffpathError
from diffpath_jax.files import sha256_json

# A field with so much tissue on the small picture cannot be white.
MOSTLY = 0.5


@dataclass(frozen=True)
class SlideSource:
    """One slide to prepare.

    Attributes:
        slide: its file.
        regions: its annotation file, if it has one.
        label: annotation class of the whole slide, for a slide without an annotation file.
        patient: whose it is.
        split: where the user wants it, if anywhere.
        mpp: um per level-0 pixel, for a slide that does not state it.
    """

    slide: Path
    regions: Path | None
    label: str | None
    patient: str
    split: str | None
    mpp: float | None
    noun: ClassVar[str] = "slide"
    size: ClassVar[int] = 1
    knows_patients: ClassVar[bool] = True
    has_places: ClassVar[bool] = True

    @property
    def where(self) -> Path:
        """The slide's file."""
        return self.slide

    def stamp(self) -> digests.Stamp:
        """Stamp of the slide's file."""
        return digests.stamp(self.slide)

    def identify(self, job: Job) -> Identity:
        """Take the digests of the slide and of its annotations; the slide's is remembered.

        Raises:
            DiffpathError: one of them cannot be read.
        """
        (digest,) = digests.sha256_remembered([self.slide], job.out / PRIVATE / DIGESTS)
        return Identity(
            slide=job.hashed(digest),
            patient=job.hashed(self.patient),
            regions=digests.sha256(self.regions) if self.regions else sha256_json({"label": self.label}),
            mpp=self.mpp,
        )

    def read(self, job: Job, identity: Identity) -> tuple[Iterator[bytes], Mapping[str, Any]]:
        """Decide on every field that touches a region, and read those that are kept.

        Raises:
            DiffpathError: the slide or its annotations cannot be read.
        """
        slide, found = self._open(job)
        mask, priority = tissue.find_tissue(slide), job.class_map.priority
        fields = tiling.plan_fields(slide, found.regions, mask, job.fields, priority=priority)
        (digest,) = digests.sha256_remembered([self.slide], job.out / PRIVATE / DIGESTS)
        fields = caps.within_slide(fields, job.caps, seed=job.split.seed, slide=digest)
        kept = [field for field in fields if field.outcome == tiling.KEPT]

        def read() -> Iterator[bytes]:
            images = slides.read_fields(slide, [field.box for field in kept], patch_px=job.fields.patch_px)
            for index, (field, image) in enumerate(zip(kept, images, strict=True)):
                if field.tissue_share >= MOSTLY and image.min() == 255:
                    why, fix = (
                        "one of its levels is white where another shows tissue",
                        "export it again, or leave it out",
                    )
                    raise DiffpathError("slide", where=self.slide, why=why, fix=fix)
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

        reading = slides.choose_reading(
            slide, *tiling.field_size(job.fields, slide.scale), patch_px=job.fields.patch_px
        )
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
        return read(), details

    def origins(self, job: Job, identity: Identity, unit: shards.Unit) -> Sequence[Origin]:
        """The slide, once a field."""
        origin = Origin(self.slide.name, self.patient, identity.slide, identity.patient, whole=False)
        return [origin] * len(kept_fields(unit))

    def failures(self, unit: shards.Unit) -> Sequence[DiffpathError]:
        """None: a slide is done, or it is not."""
        return ()

    def draw(self, job: Job, unit: shards.Unit, items: Iterator[bytes], assigned: Sequence[str], path: Path) -> None:
        """Draw its overlay.

        Raises:
            DiffpathError: the slide or its annotations cannot be read any more.
        """
        slide, found = self._open(job)
        qa.draw_overlay(path, slide, found.regions, staged_fields(unit), assigned, job.class_map.names)

    def _open(self, job: Job) -> tuple[slides.Slide, annotations.Annotated]:
        table = {} if self.mpp is None else {self.slide.name: self.mpp}
        slide = slides.open_slide(self.slide, scale_table=table)
        return slide, annotations.of_slide(slide, self.regions, self.label, job.class_map)
