"""The schema of what a manifest says of a data set beside its records: where they come from, and how they were made.

It is written by :meth:`Details.to_json` and read by :func:`from_json` alone. Keys on disk are the names of the fields,
but for :data:`_OTHER_CLASS`; what does not apply to a data set has no key.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from diffpath_jax.io.sealed import opened

# How splits keep images apart: no patient is in two; one slide is cut into parts; each image for itself.
SPLIT_BY = ("patient", "place", "image")
KINDS = ("real", "generated", "latents")
_OTHER_CLASS = "of another class"
# Keys of ``sampling``: whether a model was trained on the images that it started from, or that it was to be like; and
# what these images do, and what that means.
START_ORIGIN, LIKE_ORIGIN = "start_origin", "like_origin"
_VERBS = {START_ORIGIN: "start from", LIKE_ORIGIN: "are like"}
_ORIGINS = {
    "training": "images that the model was trained on, and repeat these",
    "unknown": "images that the model may have been trained on: its record does not name them",
}


# Where the um/px of image files come from: the option that states them.
STATED = "--mpp"


@dataclass(frozen=True)
class SlideScale:
    """Scale of a slide, or of a batch of images.

    Attributes:
        x: um per level-0 pixel along the width.
        y: um per level-0 pixel along the height.
        source: where these come from.
        doubts: what speaks against them.
        read_px: pixels that are read for a field of view, along x and y.
        read_mpp: um per pixel of those.
        slide: keyed hash of the slide.
    """

    x: float
    y: float
    source: str
    doubts: tuple[str, ...]
    read_px: tuple[int, ...]
    read_mpp: tuple[float, ...]
    slide: str = ""

    @property
    def is_of_images(self) -> bool:
        """True for a batch of images, of which the user states it."""
        return self.source == STATED

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "SlideScale":
        """Returns what was stored.

        Raises:
            ValueError: it is something else.
        """
        return opened(dict(content), cls)


@dataclass(frozen=True)
class AnnotationUse:
    """Parts of a slide's annotations that were not used as they are.

    Attributes:
        ignored: outlines of ignored classes, by class.
        cut_out: outlines that were cut out of all others, by class.
        left_out: what is annotated and is no region, by reason.
        outside_share: share of the outlines' area that lies outside the slide.
        overlapped: fields of view on overlaps of classes.
        overlapped_kept: those of them that are kept.
    """

    ignored: Mapping[str, int] = field(default_factory=dict)
    cut_out: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    outside_share: float = 0.0
    overlapped: int = 0
    overlapped_kept: int = 0

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "AnnotationUse":
        """Returns what was stored; raises ``ValueError`` where it is something else."""
        return opened(dict(content), cls)


@dataclass(frozen=True)
class DuplicateCounts:
    """Images that repeat an earlier one, each counted once, where it is worst.

    Attributes:
        rule: what is done with them: ``report`` or ``drop``.
        exact: with the same pixels, by where the two are.
        near: nearly the same, by where the two are.
        other_class: those that have another class than the one that they repeat.
        dropped: those that are left out.
    """

    rule: str
    exact: Mapping[str, int]
    near: Mapping[str, int]
    other_class: int
    dropped: int

    def to_json(self) -> dict[str, Any]:
        """Returns what is stored."""
        content = asdict(self)
        content[_OTHER_CLASS] = content.pop("other_class")
        return content


@dataclass(frozen=True)
class Details:
    """The details of a data set beside its records; None where one does not apply.

    Attributes:
        kind: one of :data:`KINDS`.
        mpp: um per pixel of the images.
        fov_um: side of their field of view in um.
        job: everything that decides what the records are; a rerun must match it.
        command: what wrote it.
        versions: of the programs that did.
        split_proof: one line on why the splits can be trusted, or why not.
        split_by: one of :data:`SPLIT_BY`; manifests of earlier versions say it in ``split_proof`` alone.
        outcomes: number of fields of view by outcome.
        duplicates: images that are there twice.
        annotations: notes on what of the annotations was not used as it is.
        scales: of the slides.
        failed: number of slides or images that are missing.
        fold: the fold that a data set of a cross-validation tests on.
        source: digest of the data set of images that it was made from.
        source_kind: what that was.
        latents: the space of latents: digest of the autoencoder, scale, augmentation.
        features: the encoder whose features of the images lie beside them: name, digest, description.
        first_stage: digest of the autoencoder that images went through.
        reconstruction: how near they came back.
        sampling: how images were sampled.
        training_data: digests of the data that the sampled model was trained on.
    """

    kind: str
    mpp: float
    fov_um: float
    job: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    split_proof: str | None = None
    split_by: str | None = None
    outcomes: Mapping[str, int] | None = None
    duplicates: DuplicateCounts | None = None
    annotations: tuple[str, ...] | None = None
    scales: tuple[SlideScale, ...] | None = None
    failed: int | None = None
    fold: int | None = None
    source: str | None = None
    source_kind: str | None = None
    latents: Mapping[str, Any] | None = None
    features: Mapping[str, Any] | None = None
    first_stage: str | None = None
    reconstruction: Mapping[str, Any] | None = None
    sampling: Mapping[str, Any] | None = None
    training_data: tuple[str, ...] | None = None

    @property
    def references(self) -> str:
        """What is wrong with what generated images start from or are like, as a predicate; empty for nothing."""
        origins = {verb: _ORIGINS.get((self.sampling or {}).get(key, "")) for key, verb in _VERBS.items()}
        return ", and ".join(f"{verb} {why}" for verb, why in origins.items() if why)

    @property
    def encoder(self) -> str:
        """Digest of the encoder whose features lie beside the images; empty where none do."""
        return str((self.features or {}).get("digest", ""))

    def to_json(self) -> dict[str, Any]:
        """Returns what is stored."""
        content = {name: value for name, value in asdict(self).items() if value is not None}
        return {**content, **({"duplicates": self.duplicates.to_json()} if self.duplicates else {})}


def from_json(content: Mapping[str, Any]) -> Details:
    """Returns what a manifest of this or an earlier version says.

    Raises:
        ValueError: a key is missing, or its value is not what it should be.
    """
    counts = content.get("duplicates")
    renamed = {"duplicates": _renamed(counts)} if isinstance(counts, Mapping) else {}
    split_by = {"split_by": _split_by(str(content.get("split_proof") or ""))}
    details = opened({**split_by, **content, **renamed}, Details)
    if details.kind not in KINDS:
        raise ValueError(f"kind is {details.kind!r}, none of {KINDS}")
    for name in ("mpp", "fov_um"):
        if not 0 < getattr(details, name) < math.inf:
            raise ValueError(f"{name} is {getattr(details, name)}")
    if details.kind == "latents" and not details.source:
        raise ValueError("it does not say which images its latents are made from")
    return details


def _split_by(proof: str) -> str | None:
    """Returns how splits were made, from the line that an earlier version wrote of them."""
    said = {"none in two splits": "patient", "split by place": "place", "patients are unknown": "image"}
    return next((kind for words, kind in said.items() if words in proof), None)


def _renamed(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns stored counts of duplicates under the names of the fields."""
    return {"other_class" if name == _OTHER_CLASS else name: value for name, value in counts.items()}
