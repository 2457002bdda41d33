"""Which fields of view to read: a grid over the slide, each field kept with a class or rejected with a reason."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from data_prep.annotations import Region
from data_prep.slides import Box, Scale, Slide
from data_prep.tissue import TissueMask
from diffpath_jax.errors import DiffpathError

KEPT = "kept"
OUTSIDE = "outside every region"
AMBIGUOUS = "in regions of two classes"
NO_TISSUE = "too little tissue"


@dataclass(frozen=True)
class FieldSpec:
    """Size and grid of the fields of view. ``fov_um = patch_px * mpp``.

    Attributes:
        fov_um: side of a field in um.
        patch_px: side of the stored image in pixels.
        mpp: um per pixel of the stored image.
        stride_um: distance of neighbouring fields in um.
        roi_min: least share of a field that regions of its class must cover.
        tissue_min: least share of tissue in a field.
    """

    fov_um: float
    patch_px: int
    mpp: float
    stride_um: float
    roi_min: float
    tissue_min: float


@dataclass(frozen=True)
class Field:
    """One field of view: its place, why it was kept or rejected, and its scores.

    Attributes:
        box: level-0 pixels.
        label: class name; empty when the field is rejected.
        outcome: ``KEPT`` or the reason of rejection.
        roi_share: share covered by regions of the best class.
        tissue_share: share of tissue.
    """

    box: Box
    label: str
    outcome: str
    roi_share: float
    tissue_share: float


def field_spec(
    *,
    fov_um: float | None,
    patch_px: int | None,
    mpp: float | None,
    stride_um: float | None,
    roi_min: float,
    tissue_min: float,
) -> FieldSpec:
    """Complete the size of a field from any two of field of view, patch size and um/px.

    Raises:
        DiffpathError: not exactly two are given, or a number is out of range.
    """
    given = {"--fov_um": fov_um, "--patch_px": patch_px, "--mpp": mpp}
    if sum(value is not None for value in given.values()) != 2:
        named = [name for name, value in given.items() if value is not None]
        raise DiffpathError(
            "field of view",
            where="the command line",
            why=f"two of {', '.join(given)} define the third, and {len(named)} are given",
            fix="give exactly two, e.g. --fov_um 112 --patch_px 128",
        )
    positive = {**given, "--stride_um": stride_um}
    shares = {"--roi_min": roi_min, "--tissue_min": tissue_min}
    for name, value in {**positive, **shares}.items():
        if value is not None and not (0 <= value <= 1 if name in shares else 0 < value < 1e6):
            wanted = "a share from 0 to 1" if name in shares else "a positive number"
            raise DiffpathError(name, where="the command line", why=f"{value} is not {wanted}", fix="change it")
    if fov_um is None:
        assert patch_px is not None and mpp is not None
        fov_um = patch_px * mpp
    if patch_px is None:
        assert mpp is not None
        patch_px = max(1, round(fov_um / mpp))
    return FieldSpec(
        fov_um=fov_um,
        patch_px=patch_px,
        mpp=fov_um / patch_px,
        stride_um=stride_um if stride_um is not None else fov_um,
        roi_min=roi_min,
        tissue_min=tissue_min,
    )


def field_size(spec: FieldSpec, scale: Scale) -> tuple[float, float]:
    """Width and height of a field in level-0 pixels."""
    return spec.fov_um / scale.x, spec.fov_um / scale.y


def plan_fields(slide: Slide, regions: Sequence[Region], tissue: TissueMask, spec: FieldSpec) -> tuple[Field, ...]:
    """Lay the grid over the slide and decide on every field that touches a region.

    A field belongs to a class when regions of that class cover at least ``roi_min`` of it. A field that two
    classes cover so is ambiguous and rejected. Order: top to bottom, left to right.

    Raises:
        DiffpathError: reading such a field would enlarge the slide's pixels.
    """
    width, height = field_size(spec, slide.scale)
    if min(width, height) < spec.patch_px:
        raise DiffpathError(
            "field of view",
            where=slide.path,
            why=f"{spec.fov_um:g} um are {min(width, height):.0f} px of this slide, fewer than --patch_px "
            f"{spec.patch_px}",
            fix="take a larger field of view or a smaller patch",
        )
    xs = np.arange(0, slide.size[0] - width + 1e-6, spec.stride_um / slide.scale.x)
    ys = np.arange(0, slide.size[1] - height + 1e-6, spec.stride_um / slide.scale.y)
    y, x = (grid.ravel() for grid in np.meshgrid(ys, xs, indexing="ij"))
    boxes = shapely.box(x, y, x + width, y + height)
    names = list(dict.fromkeys(region.name for region in regions))
    areas = [shapely.union_all([r.shape for r in regions if r.name == name]) for name in names]
    shares = np.stack([_covered(boxes, area) for area in areas]) / (width * height)
    touched = np.flatnonzero(shares.max(axis=0) > 0)
    tissue_share = tissue.share(x[touched], y[touched], width, height)
    return tuple(
        _decide(Box(float(x[i]), float(y[i]), width, height), names, shares[:, i], float(share), spec)
        for i, share in zip(touched, tissue_share, strict=True)
    )


def _covered(boxes: np.ndarray, area: shapely.Geometry) -> np.ndarray:
    """Area of each box that ``area`` covers, in square level-0 pixels."""
    shapely.prepare(area)
    covered = np.zeros(len(boxes))
    hit = shapely.intersects(area, boxes)
    covered[hit] = shapely.area(shapely.intersection(area, boxes[hit]))
    return covered


def _decide(box: Box, names: list[str], shares: np.ndarray, tissue_share: float, spec: FieldSpec) -> Field:
    best = int(shares.argmax())
    enough = int((shares >= spec.roi_min).sum())
    field = Field(box, "", OUTSIDE, float(shares[best]), tissue_share)
    if enough > 1:
        return dataclasses.replace(field, outcome=AMBIGUOUS)
    if enough == 0:
        return field
    if tissue_share < spec.tissue_min:
        return dataclasses.replace(field, outcome=NO_TISSUE)
    return dataclasses.replace(field, label=names[best], outcome=KEPT)
