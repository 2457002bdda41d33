"""A slide as a source: its fields of view, in the regions of its annotations or under its label."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import UInt8

from data_prep.annotations import regions as annotations
from data_prep.annotations import tissue_masks
from data_prep.fields import caps, tiling
from data_prep.fields.coordinates import is_within, read_boxes
from data_prep.qa import overlays, pictures
from data_prep.slide import colour, slides, tissue
from data_prep.slide.folds import find_folds
from data_prep.slide.readers.registry import ReaderKind
from data_prep.sources import digests
from data_prep.sources.source import (
    DIGESTS,
    PRIVATE,
    Candidate,
    Candidates,
    Identity,
    Job,
    Origin,
    PrivateNames,
    SourceSummary,
    StagedSource,
)
from diffpath_jax.data.details import AnnotationUse, SlideScale
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.files import sha256_json

# A field with so much tissue on the small picture cannot be white.
MOSTLY = 0.5


@dataclass(frozen=True)
class SlideSource:
    """One slide to prepare.

    Attributes:
        slide: its file.
        reader: opens it.
        regions: its annotation file, if it has one.
        label: annotation class of the whole slide, for a slide without an annotation file.
        patient: whose it is.
        split: where the user wants it, if anywhere.
        mpp: um per level-0 pixel, for a slide that does not state it.
        tissue_mask: file of its tissue; estimated where there is none.
        coordinates: file of the places of its fields; a grid where there is none.
    """

    slide: Path
    reader: ReaderKind
    regions: Path | None
    label: str | None
    patient: str
    split: str | None
    mpp: float | None
    tissue_mask: Path | None = None
    coordinates: Path | None = None
    item_noun: ClassVar[str] = "slide"
    size: ClassVar[int] = 1
    knows_patients: ClassVar[bool] = True
    is_spatial: ClassVar[bool] = True

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
        regions = digests.sha256(self.regions) if self.regions else sha256_json({"label": self.label})
        if self.tissue_mask:
            regions = sha256_json({"regions": regions, "tissue": digests.sha256(self.tissue_mask)})
        if self.coordinates:
            regions = sha256_json({"regions": regions, "coordinates": digests.sha256(self.coordinates)})
        return Identity(
            slide=job.hashed(digest),
            patient=job.hashed(self.patient),
            regions=regions,
            mpp=self.mpp,
        )

    def read(self, job: Job, identity: Identity) -> Candidates:
        """Decide on every field that touches a region; those that may be kept are read and judged.

        Raises:
            DiffpathError: the slide or its annotations cannot be read.
        """
        with self._open() as slide:
            regions = self._regions(slide, job)
            mask, priority = self._tissue(slide, job), job.class_map.priority
            folds = tiling.Folds(find_folds(slide, mask), job.fold_max) if job.fold_max < 1 else None
            boxes, over_edge = self._boxes(slide, job)
            planned = tiling.plan_fields(
                slide, regions.regions, mask, job.fields, priority=priority, folds=folds, boxes=boxes
            )
            planned += tuple(tiling.Field(box, "", tiling.OVER_EDGE, 0.0, 0.0, 0.0) for box in over_edge)
            (digest,) = digests.sha256_remembered([self.slide], job.out / PRIVATE / DIGESTS)
            fields = caps.numbered(planned, seed=job.split.seed, slide=digest)
            overlapped = Counter[str]()
            for field, image in caps.draw(fields, job.caps, lambda chosen: self._judged(job, slide, chosen)):
                overlapped[field.outcome] += field.overlap_share > 0
                yield Candidate(field, image, identity.slide, self._patient(job, identity, slide, field))
            use = AnnotationUse(
                ignored=regions.source.ignored,
                cut_out=regions.source.cut_out,
                left_out=regions.source.left_out,
                outside_share=regions.outside_share,
                overlapped=overlapped.total(),
                overlapped_kept=overlapped[tiling.KEPT],
            )
            size = f"{slide.size[0]:,} x {slide.size[1]:,} px"
            return SourceSummary(size, _scale(job, slide, identity), use)

    def _judged(
        self, job: Job, slide: slides.Slide, chosen: Sequence[tiling.Field]
    ) -> Iterator[tuple[tiling.Field, UInt8[np.ndarray, "px px 3"]]]:
        images = slides.read_fields(slide, [field.box for field in chosen], patch_px=job.fields.patch_px)
        for field, image in zip(chosen, images, strict=True):
            if field.tissue_share is not None and field.tissue_share >= MOSTLY and image.min() == 255:
                why = "one of its levels is white where another shows tissue"
                raise DiffpathError("slide", where=self.slide, why=why, fix="export it again, or leave it out")
            yield tiling.judge(field, image, job.quality, colour.STAINS[job.stain]), image

    def _patient(self, job: Job, identity: Identity, slide: slides.Slide, field: tiling.Field) -> str:
        """Returns the keyed hash of the patient, or of the block of the slide that stands in for one."""
        if not job.block_um:
            return identity.patient
        x = int((field.box.x + field.box.width / 2) * slide.scale.x // job.block_um)
        y = int((field.box.y + field.box.height / 2) * slide.scale.y // job.block_um)
        return job.hashed(f"{self.patient}, block {x} {y}")

    def names(self, job: Job, identity: Identity, origins: Sequence[Origin]) -> PrivateNames:
        """Name of the slide's file, and its patient."""
        return PrivateNames(self.slide.name, {identity.patient: self.patient})

    def origins(self, job: Job, identity: Identity, staged: StagedSource) -> Sequence[Origin]:
        """The slide, once a field."""
        origin = Origin(self.slide.name, self.patient, identity.slide, identity.patient, is_whole_file=False)
        return [origin] * len(staged.kept)

    def failures(self, summary: SourceSummary) -> Sequence[DiffpathError]:
        """None: a slide is done, or it is not."""
        return ()

    def draw(self, job: Job, staged: StagedSource, assigned: Sequence[str], folder: Path) -> None:
        """Draw its overlay, and examples.

        Raises:
            DiffpathError: the slide or its annotations cannot be read any more.
        """
        with self._open() as slide:
            regions = self._regions(slide, job).regions
            mask = self._tissue(slide, job)
            marks = overlays.Marks(regions, mask, find_folds(slide, mask), staged.fields, assigned)
            overlays.draw(folder, staged.name, slide, marks, job.class_map.names)
            boxes, patch_px = [field.box for field in staged.fields], job.fields.patch_px
            pictures.draw_examples(
                folder,
                staged.name,
                staged.fields,
                lambda chosen: [next(slides.read_fields(slide, [boxes[i]], patch_px=patch_px)) for i in chosen],
            )

    def _open(self) -> slides.Slide:
        table = {} if self.mpp is None else {self.slide.name: self.mpp}
        return slides.open_slide(self.slide, kind=self.reader, scale_table=table)

    def _boxes(self, slide: slides.Slide, job: Job) -> tuple[Sequence[slides.Box] | None, Sequence[slides.Box]]:
        """Returns the places of its fields, and those over its edge; none and none for a grid.

        Raises:
            DiffpathError: the file of places cannot be read, has another size of fields, or none within the slide.
        """
        if self.coordinates is None:
            return None, ()
        boxes = read_boxes(self.coordinates, slide, *tiling.field_size(job.fields, slide.scale))
        inside = [box for box in boxes if is_within(slide, box)]
        if not inside:
            why, fix = f"none of its {len(boxes)} places lies within {self.slide.name}", "give those of this slide"
            raise DiffpathError("coordinates", where=self.coordinates, why=why, fix=fix)
        return inside, [box for box in boxes if not is_within(slide, box)]

    def _tissue(self, slide: slides.Slide, job: Job) -> tissue.TissueMask:
        if self.tissue_mask:
            return tissue_masks.read_mask(self.tissue_mask, slide)
        return tissue.find_tissue(slide, colour.STAINS[job.stain])

    def _regions(self, slide: slides.Slide, job: Job) -> annotations.Annotated:
        return annotations.of_slide(slide, self.regions, self.label, job.class_map)


def _scale(job: Job, slide: slides.Slide, identity: Identity) -> SlideScale:
    """Returns the scale of a slide, and how a field of the job is read from it."""
    reading = slides.choose_reading(slide, *tiling.field_size(job.fields, slide.scale), patch_px=job.fields.patch_px)
    x, y = slide.scale.x * reading.steps[0], slide.scale.y * reading.steps[1]
    return SlideScale(**asdict(slide.scale), read_px=reading.size, read_mpp=(x, y), slide=identity.slide)
