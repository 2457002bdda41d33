"""Images that are patches already, as sources: a batch of them is one unit of work, and every image one field of view.

Where the images lie is a :class:`Images`: files in folders (:mod:`data_prep.sources.image_folder`), or a TFDS data set
(:mod:`data_prep.sources.tfds_images`). What is done with them is here.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress, islice
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import UInt8

from data_prep.fields import caps, tiling
from data_prep.qa import pictures
from data_prep.slide import colour, slides
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
from data_prep.splits.patients import PatientTable
from data_prep.tables import listed
from diffpath_jax.data import marking
from diffpath_jax.data.details import STATED, AnnotationUse, SlideScale
from diffpath_jax.data.image_files import decode_image, has_transparency
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.files import sha256_json
from diffpath_jax.io.tables import composed
from diffpath_jax.render import image_grid

# Images of a batch: enough to be worth a unit, few enough to be done again.
BATCH = 1000
IGNORED = "of no class that is used"
# So many images of so many batches are looked at to tell their size.
LOOKED_AT = 6
# A contact sheet shows this many images of a batch.
SHOWN, SHOWN_COLUMNS = 100, 10


@dataclass(frozen=True)
class Picture:
    """One image of a batch, before it is decoded.

    Attributes:
        label: its class, as the source names it.
        patient: whose it is; empty if unknown.
        content: bytes of an image file, or pixels; what was wrong where there are none.
    """

    label: str
    patient: str
    content: bytes | np.ndarray | DiffpathError


@runtime_checkable
class Images(Protocol):
    """The images of a batch, wherever they lie."""

    @property
    def where(self) -> Path:
        """Path that errors name."""

    @property
    def size(self) -> int:
        """Number of images."""

    @property
    def labels(self) -> Sequence[str]:
        """Classes that they may have."""

    @property
    def knows_patients(self) -> bool:
        """True where the patient of each is known."""

    def stamp(self) -> digests.Stamp:
        """Changes whenever their files do."""

    def content(self, memory: Path) -> Any:
        """Returns what decides their pixels, classes and patients (JSON); digests are remembered in a folder."""

    def read(self, positions: Sequence[int] | None = None) -> Iterator[Picture]:
        """All of them, in order, or those at some positions."""

    def names(self, positions: Sequence[int]) -> Sequence[tuple[str, str]]:
        """File and patient of some of them."""


@dataclass(frozen=True)
class ImageBatch:
    """Some images to prepare.

    Attributes:
        images: where they lie.
        split: where the user wants them, if anywhere.
        mpp: um per pixel.
    """

    images: Images
    split: str | None
    mpp: float
    item_noun: ClassVar[str] = "image"
    is_spatial: ClassVar[bool] = False

    @property
    def where(self) -> Path:
        """Path of the images."""
        return self.images.where

    @property
    def size(self) -> int:
        """Number of images."""
        return self.images.size

    @property
    def knows_patients(self) -> bool:
        """True where the patient of each image is known."""
        return self.images.knows_patients

    def stamp(self) -> digests.Stamp:
        """Stamps of the images' files."""
        return self.images.stamp()

    def identify(self, job: Job) -> Identity:
        """Take the digests of the images; they are remembered.

        Raises:
            DiffpathError: they cannot be read.
        """
        content = sha256_json(self.images.content(job.out / PRIVATE / DIGESTS))
        return Identity(slide=job.hashed(content), patient="", regions="", mpp=self.mpp)

    def read(self, job: Job, identity: Identity) -> Candidates:
        """Read, resize and judge every image.

        One that cannot be used fails alone: its position and the reason are remembered, but not its name, as the
        summary is no private place.
        """
        side = _side(job, self.mpp)
        box = slides.Box(0.0, 0.0, float(side), float(side))
        keys, positions, failed = list[str](), list[int](), list[tuple[int, str]]()
        transparent = 0
        for position, picture in enumerate(self.images.read()):
            try:
                candidate = _candidate(job, picture, box)
            except DiffpathError as error:
                failed.append((position, error.why))
                continue
            positions.append(position)
            transparent += isinstance(picture.content, bytes) and has_transparency(picture.content)
            if candidate.field.outcome == tiling.KEPT:
                keys.append(candidate.slide)
            yield candidate
        mpp = (self.mpp, self.mpp)
        doubts = (f"{transparent} of {self.size} images have transparent pixels, which show white",)
        scale = SlideScale(
            *mpp, STATED, doubts if transparent else (), read_px=(side, side), read_mpp=mpp, slide=identity.slide
        )
        size = f"{self.size:,} images of {side} x {side} px"
        return SourceSummary(size, scale, AnnotationUse(), keys, positions, failed)

    def names(self, job: Job, identity: Identity, origins: Sequence[Origin]) -> PrivateNames:
        """The first and the last of its files that gave a patch, and their patients."""
        ends = " to ".join(dict.fromkeys(origins[i].file for i in (0, -1))) if origins else self.where.name
        return PrivateNames(ends, {job.hashed(patient): patient for origin in origins if (patient := origin.patient)})

    def origins(self, job: Job, identity: Identity, staged: StagedSource) -> Sequence[Origin]:
        """Each image by itself, with its patient if that is known."""
        is_kept = (field.outcome == tiling.KEPT for field in staged.fields)
        names = self.images.names(list(compress(staged.summary.positions, is_kept)))
        return [
            Origin(file, patient, key, job.hashed(patient) if self.knows_patients else key, is_whole_file=True)
            for (file, patient), key in zip(names, staged.summary.keys, strict=True)
        ]

    def failures(self, summary: SourceSummary) -> Sequence[DiffpathError]:
        """The images that could not be used."""
        names = self.images.names([position for position, _ in summary.failed])
        return [
            DiffpathError("image", where=file, why=why, fix="replace it or take it out")
            for (file, _), (_, why) in zip(names, summary.failed, strict=True)
        ]

    def draw(self, job: Job, staged: StagedSource, assigned: Sequence[str], folder: Path) -> None:
        """Write a contact sheet of some of the kept ones, and examples."""
        side, patch_px = _side(job, self.mpp), job.fields.patch_px

        def stored(chosen: Sequence[int]) -> list[UInt8[np.ndarray, "px px 3"]]:
            positions = [staged.summary.positions[i] for i in chosen]
            return [_stored(picture, side, patch_px) for picture in self.images.read(positions)]

        kept = [i for i, field in enumerate(staged.fields) if field.outcome == tiling.KEPT]
        spread = np.linspace(0, len(kept) - 1, min(SHOWN, len(kept))).astype(int)
        if kept:
            sheet = image_grid.tile(np.stack(stored([kept[i] for i in spread])), columns=SHOWN_COLUMNS)
            image_grid.write_png(folder / pictures.picture_file(staged.name), sheet)
        pictures.draw_examples(folder, staged.name, staged.fields, stored)


def _candidate(job: Job, picture: Picture, box: slides.Box) -> Candidate:
    """Returns the field that an image is, judged; not decoded where its class is not used.

    Raises:
        DiffpathError: it cannot be used.
    """
    label = job.class_map.classes.get(picture.label, "")
    field = tiling.Field(box, label, tiling.KEPT if label else IGNORED, 1.0, 0.0, None)
    if not label:
        return Candidate(field)
    image = _stored(picture, round(box.width), job.fields.patch_px)
    digest = _digest(picture.content)
    number = caps.number_of(job.split.seed, digest, box)
    judged = tiling.judge(replace(field, number=number), image, job.quality, colour.STAINS[job.stain])
    return Candidate(judged, image, job.hashed(digest), job.hashed(picture.patient) if picture.patient else "")


def _side(job: Job, mpp: float) -> int:
    """Side in pixels of the files that show the job's field of view."""
    return round(job.fields.fov_um / mpp)


def _digest(content: bytes | np.ndarray | DiffpathError) -> str:
    assert not isinstance(content, DiffpathError)
    return hashlib.sha256(content if isinstance(content, bytes) else content.tobytes()).hexdigest()


def _decoded(content: bytes | np.ndarray | DiffpathError) -> UInt8[np.ndarray, "h w 3"]:
    if isinstance(content, DiffpathError):
        raise content
    return decode_image(content, where="the batch") if isinstance(content, bytes) else content


def _stored(picture: Picture, side: int, patch_px: int) -> UInt8[np.ndarray, "px px 3"]:
    """A square image of the job's field of view, area-averaged; any other would show another field."""
    image = _decoded(picture.content)
    height, width, _ = image.shape
    if (height, width) != (side, side):
        why = f"it has {width} x {height} px, and most have {side} x {side}"
        raise DiffpathError("image", where="the batch", why=why, fix="prepare images of another size by themselves")
    return cv2.resize(image, (patch_px, patch_px), interpolation=cv2.INTER_AREA)


def are_generated(batches: Sequence[ImageBatch]) -> bool:
    """Returns whether images say that they are generated, by the first of every batch; their set then says so too.

    Raises:
        DiffpathError: some do, and others do not.
    """
    firsts = [(batch, next(iter(batch.images.read([0])), None)) for batch in batches]
    marked = {
        isinstance(picture.content, bytes) and marking.says_so(picture.content): batch
        for batch, picture in firsts
        if picture
    }
    if len(marked) > 1:
        why, fix = "some of its images say that they are generated, and others do not", "prepare them by themselves"
        raise DiffpathError("images", where=marked[True].where, why=why, fix=fix)
    return True in marked


def table_notes(table: PatientTable, batches: Sequence[ImageBatch]) -> Iterator[str]:
    """Yields notes on rows of a table that name no image, and on patients that are none."""
    if not table.knows_patients and any(owner.patient for owner in table.owners.values()):
        yield "--patients calls each image's patient as the image, which tells no two apart: they are taken as unknown"
    files = (file for batch in batches for file, _ in batch.images.names(range(batch.size)))
    known = {composed(name) for file in files for name in (file, Path(file).name)}
    if unmatched := [name for name in table.owners if name not in known]:
        yield f"rows of --patients that match no image: {listed(unmatched)}"


def usual_side(batches: Sequence[ImageBatch]) -> int:
    """The side in pixels that most images have, from a look at some of several batches: it fixes the field of view.

    Raises:
        DiffpathError: none of them can be read, or they are not square.
    """
    chosen = sorted({int(i) for i in np.linspace(0, len(batches) - 1, LOOKED_AT)})
    shapes, failed = list[tuple[int, ...]](), list[DiffpathError]()
    for picture in (picture for i in chosen for picture in islice(batches[i].images.read(), LOOKED_AT)):
        try:
            shapes.append(_decoded(picture.content).shape)
        except DiffpathError as error:
            failed.append(error)
    if not shapes:
        why, fix = f"the first cannot be read ({failed[0].why})", failed[0].fix
        raise DiffpathError("images", where=batches[0].where, why=why, fix=fix)
    height, width, _ = max(set(shapes), key=lambda shape: (shapes.count(shape), shape))
    if height != width:
        why = f"most have {width} x {height} px, and fields of view are square"
        raise DiffpathError("images", where=batches[0].where, why=why, fix="cut them to squares")
    return height
