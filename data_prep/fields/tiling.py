"""The fields of view to read: a grid over the slide, each field kept with a class or rejected with a reason."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import shapely
from jaxtyping import UInt8

from data_prep.annotations.outlines import polygons_of
from data_prep.annotations.regions import Region
from data_prep.fields import quality
from data_prep.fields.sizes import FieldSize
from data_prep.slide import colour
from data_prep.slide.slides import Box, Scale, Slide
from data_prep.slide.tissue import TissueMask
from diffpath_jax.io.errors import DiffpathError

KEPT = "kept"
OUTSIDE = "outside every region"
AMBIGUOUS = "in regions of two classes"
NO_TISSUE = "too little tissue"
FOLDED = "fold of the tissue"
OVER_EDGE = "beyond the edge of the slide"
# Places of a slide's grid; each takes half a kilobyte while they are decided on.
MAX_PLACES = 10_000_000
# An outline of so few corners is cut once a field; a longer one is cut into pieces first.
_FEW_CORNERS = 256
# Of so few areas every pair is looked at.
_FEW_AREAS = 8


@dataclass(frozen=True)
class Folds:
    """Folds of a slide's tissue, and how much of them a field may hold.

    Attributes:
        mask: where they are.
        most: largest share of a field.
    """

    mask: TissueMask
    most: float


@dataclass(frozen=True)
class FieldSpec:
    """Size and grid of the fields of view. ``fov_um = patch_px * mpp``.

    Attributes:
        fov_um: side of a field in um.
        patch_px: side of the stored image in pixels.
        mpp: um per pixel of the stored image.
        stride_um: distance of neighbouring fields in um.
        origin_um: (x, y) in um from the slide's corner: the grid is laid so that a field would begin there.
        roi_min: least share of a field that regions of its class must cover.
        tissue_min: least share of tissue in a field.
    """

    fov_um: float
    patch_px: int
    mpp: float
    stride_um: float
    origin_um: tuple[float, float]
    roi_min: float
    tissue_min: float


@dataclass(frozen=True)
class Field:
    """One field of view: its place, why it was kept or rejected, and its scores.

    Attributes:
        box: level-0 pixels.
        label: class name; empty when the field is rejected.
        outcome: ``KEPT`` or the reason of rejection.
        roi_share: share covered by the best class's own area.
        overlap_share: share where regions of several classes overlap.
        tissue_share: share of tissue; None for a patch, which no picture of a slide shows.
        number: of a kept field, see :mod:`data_prep.fields.caps`.
        scores: of its image, once that is read.
        fold_share: share of folds of the tissue; None where they were not looked for.
    """

    box: Box
    label: str
    outcome: str
    roi_share: float
    overlap_share: float
    tissue_share: float | None
    number: float = 0.0
    scores: quality.Scores | None = None
    fold_share: float | None = None


def field_spec(
    size: FieldSize, *, stride_um: float, origin_um: tuple[float, float], roi_min: float, tissue_min: float
) -> FieldSpec:
    """Fields of one size on a grid, and what they must hold.

    Raises:
        DiffpathError: a share is none.
    """
    for name, value in {"--roi_min": roi_min, "--tissue_min": tissue_min}.items():
        if not (0 <= value <= 1):  # NaN fails too
            why = f"{value} is not a share from 0 to 1"
            raise DiffpathError(name, where="the command line", why=why, fix="change it")
    return FieldSpec(**asdict(size), stride_um=stride_um, origin_um=origin_um, roi_min=roi_min, tissue_min=tissue_min)


def judge(field: Field, image: UInt8[np.ndarray, "px px 3"], limits: quality.QualitySpec, stain: colour.Stain) -> Field:
    """The field with the scores of its image, kept or rejected for one of them."""
    scores = quality.measure(image, stain)
    judged, reason = replace(field, scores=scores), quality.reject(scores, limits)
    return replace(judged, label="", outcome=reason) if reason else judged


def field_size(spec: FieldSpec, scale: Scale) -> tuple[float, float]:
    """Width and height of a field in level-0 pixels."""
    return spec.fov_um / scale.x, spec.fov_um / scale.y


def plan_fields(
    slide: Slide,
    regions: Sequence[Region],
    tissue: TissueMask,
    spec: FieldSpec,
    *,
    priority: Sequence[str],
    folds: Folds | None = None,
    boxes: Sequence[Box] | None = None,
) -> tuple[Field, ...]:
    """Lay the grid over the slide and decide on every field that touches a region.

    A field belongs to a class when the class's own area covers at least ``roi_min`` of it. Where regions of several
    classes overlap, the area is excluded, or goes to the first of them in ``priority``. A field that its regions
    would give to a class, and its own area does not, is ambiguous and rejected, and so is one that two classes'
    own areas cover enough. Order: top to bottom, left to right.

    Args:
        slide: the slide.
        regions: of its annotations.
        tissue: its tissue.
        spec: size and grid of the fields, and what they must hold.
        priority: classes in the order in which they get what several cover.
        folds: its folds, where a field may not hold too much of them.
        boxes: where the fields are, at least one within the slide, instead of the grid; in this order.

    Raises:
        DiffpathError: reading such a field would enlarge the slide's pixels, or there are too many.
    """
    width, height = field_size(spec, slide.scale)
    if round(min(width, height)) < spec.patch_px:
        raise DiffpathError(
            "field of view",
            where=slide.path,
            why=f"{spec.fov_um:g} um are {min(width, height):.0f} px of this slide, fewer than --patch_px "
            f"{spec.patch_px}",
            fix="take a larger field of view or a smaller patch",
        )
    x, y = _grid(slide, width, height, spec) if boxes is None else np.array([(box.x, box.y) for box in boxes]).T
    outlines = shapely.box(x, y, x + width, y + height)
    areas = class_areas(regions)
    own, overlap = own_areas(areas, priority)
    claimed = _cover(outlines, areas, spec.roi_min)
    best = claimed if overlap.is_empty else _cover(outlines, own, spec.roi_min)
    overlap_share = _cover(outlines, {"": overlap}, spec.roi_min).share
    touched = np.flatnonzero(claimed.share > 0)
    tissue_share = tissue.share(x[touched], y[touched], width, height)
    fold_share: list[float | None] = [None] * len(touched)
    if folds:
        fold_share = folds.mask.share(x[touched], y[touched], width, height).tolist()
    fields = []
    for i, share, folded in zip(touched.tolist(), tissue_share.tolist(), fold_share, strict=True):
        outcome = _outcome(int(claimed.enough[i]), int(best.enough[i]), has_tissue=share >= spec.tissue_min)
        if folds and folded is not None and outcome == KEPT and folded > folds.most:
            outcome = FOLDED
        label = best.label[i] if outcome == KEPT else ""
        box = Box(float(x[i]), float(y[i]), width, height)
        shares = (float(best.share[i]), float(overlap_share[i]), share)
        fields.append(Field(box, label, outcome, *shares, fold_share=folded))
    return tuple(fields)


def _grid(slide: Slide, width: float, height: float, spec: FieldSpec) -> tuple[np.ndarray, np.ndarray]:
    """Left and top edges of all fields within the slide, row by row, in level-0 pixels.

    Raises:
        DiffpathError: there are more than fit into memory.
    """
    sides = zip(slide.size, (width, height), (slide.scale.x, slide.scale.y), spec.origin_um, strict=True)
    ranges = [
        (origin_um % spec.stride_um / mpp, slide_px - side + 1e-6, spec.stride_um / mpp)
        for slide_px, side, mpp, origin_um in sides
    ]
    places = math.prod(max(0.0, (stop - start) / step) for start, stop, step in ranges)
    if places > MAX_PLACES:
        why = f"the grid has {places:.2g} places on it, more than {MAX_PLACES:,}"
        fix = "give a larger --stride_um, or a smaller --overlap"
        raise DiffpathError("fields of view", where=slide.path, why=why, fix=fix)
    xs, ys = (np.arange(*each) for each in ranges)
    y, x = (grid.ravel() for grid in np.meshgrid(ys, xs, indexing="ij"))
    return x, y


def class_areas(regions: Sequence[Region]) -> dict[str, shapely.MultiPolygon]:
    """The area of each class, in the order in which the regions name them."""
    shapes: dict[str, list[shapely.MultiPolygon]] = {}
    for region in regions:
        shapes.setdefault(region.name, []).append(region.shape)
    return {name: _union(members) for name, members in shapes.items()}


def own_areas(
    areas: Mapping[str, shapely.MultiPolygon], priority: Sequence[str]
) -> tuple[dict[str, shapely.MultiPolygon], shapely.MultiPolygon]:
    """Returns the area of each class alone, and that of overlaps.

    Args:
        areas: the area of each class.
        priority: classes in the order in which they get the overlap; those that are not in it get none.
    """
    _, overlap = _union_and_overlap(list(areas.values()))
    if overlap.is_empty:
        return dict(areas), overlap
    own = {name: _difference(area, overlap) for name, area in areas.items()}
    left = overlap
    for name in priority:
        if name in areas:
            own[name] = _union([own[name], _intersection(areas[name], left)])
            left = _difference(left, areas[name])
    return own, overlap


def _union(shapes: Sequence[shapely.MultiPolygon]) -> shapely.MultiPolygon:
    """The area of all shapes. Only parts that meet are joined: joining 70,000 that do not takes half a minute."""
    if len(shapes) == 1:
        return shapes[0]
    parts = shapely.get_parts(shapes)
    one, other = shapely.STRtree(parts).query(parts, predicate="intersects")
    meet = np.unique(one[one != other])
    alone = np.delete(parts, meet)
    return shapely.MultiPolygon([*alone, *polygons_of(shapely.union_all(parts[meet])).geoms])


def _intersection(one: shapely.MultiPolygon, other: shapely.MultiPolygon) -> shapely.MultiPolygon:
    parts, others = shapely.get_parts(one), shapely.get_parts(other)
    i, j = shapely.STRtree(others).query(parts, predicate="intersects")
    return polygons_of(shapely.union_all(shapely.intersection(parts[i], others[j])))


def _difference(area: shapely.MultiPolygon, other: shapely.MultiPolygon) -> shapely.MultiPolygon:
    """The area without another. Only parts that meet it are cut, each by what it meets."""
    parts, others = shapely.get_parts(area), shapely.get_parts(other)
    meets, met = shapely.STRtree(others).query(parts, predicate="intersects")
    order = np.argsort(meets, kind="stable")
    cut, first = np.unique(meets[order], return_index=True)
    holes = [shapely.MultiPolygon([*others[group]]) for group in np.split(met[order], first[1:])] if len(cut) else []
    pieces = shapely.get_parts(shapely.difference(parts[cut], np.array(holes, object)))
    return polygons_of(shapely.GeometryCollection([*np.delete(parts, cut), *pieces]))


def _union_and_overlap(areas: Sequence[shapely.MultiPolygon]) -> tuple[shapely.MultiPolygon, shapely.MultiPolygon]:
    """Returns the union of areas, and what at least two cover: by halves, as ten thousand may lie in one place."""
    if len(areas) <= _FEW_AREAS:
        parts, owner = shapely.get_parts(areas, return_index=True)
        one, other = shapely.STRtree(parts).query(parts, predicate="intersects")
        one, other = (index[owner[one] < owner[other]] for index in (one, other))
        return _union(areas), polygons_of(shapely.union_all(shapely.intersection(parts[one], parts[other])))
    middle = len(areas) // 2
    (one, overlap_one), (other, overlap_other) = (_union_and_overlap(half) for half in (areas[:middle], areas[middle:]))
    return _union([one, other]), _union([overlap_one, overlap_other, _intersection(one, other)])


@dataclass(frozen=True)
class _Cover:
    """Cover of boxes by areas of classes: the best class, its share, and how many classes cover enough; one a box."""

    label: np.ndarray
    share: np.ndarray
    enough: np.ndarray


def _cover(boxes: np.ndarray, areas: Mapping[str, shapely.MultiPolygon], roi_min: float) -> _Cover:
    pieces, owner = [], []
    for number, area in enumerate(areas.values()):
        parts = [piece for part in area.geoms for piece in _pieces(part)]
        pieces += parts
        owner += [number] * len(parts)
    box, piece = shapely.STRtree(pieces).query(boxes, predicate="intersects")
    shared = shapely.area(shapely.intersection(boxes[box], np.array(pieces, object)[piece])) / shapely.area(boxes[box])
    # One row for each box and class that meet.
    pairs, row = np.unique(box * len(areas) + np.array(owner, int)[piece], return_inverse=True)
    box, index = np.divmod(pairs, len(areas))
    share = np.bincount(row, weights=shared)
    # The last one written stays: the largest share, and of equal ones the class named first.
    order = np.lexsort((-index, share))
    best, label = np.zeros(len(boxes)), np.full(len(boxes), "", object)
    best[box[order]] = share[order]
    label[box[order]] = np.array(list(areas), object)[index[order]]
    # Where roi_min is 0, a class that only touches a box does not cover it; sums of pieces are rounded.
    enough = (share >= roi_min - 1e-9) & (share > 0)
    return _Cover(label, best, np.bincount(box[enough], minlength=len(boxes)))


def _pieces(part: shapely.Polygon) -> Iterator[shapely.Polygon]:
    """Halves, and halves of halves, of few corners: cutting a million corners once a field would take hours."""
    left, top, right, bottom = part.bounds
    # Corners crowded within a pixel cannot be parted for ever.
    if shapely.get_num_coordinates(part) <= _FEW_CORNERS or max(right - left, bottom - top) < 1:
        yield part
        return
    x, y = (left + right) / 2, (top + bottom) / 2
    wide = right - left > bottom - top
    first = shapely.box(left, top, x, bottom) if wide else shapely.box(left, top, right, y)
    second = shapely.box(x, top, right, bottom) if wide else shapely.box(left, y, right, bottom)
    for half in (first, second):
        for piece in polygons_of(shapely.intersection(part, half)).geoms:
            yield from _pieces(piece)


def _outcome(enough_whole: int, enough_own: int, *, has_tissue: bool) -> str:
    if enough_own > 1 or (enough_own == 0 and enough_whole > 0):
        return AMBIGUOUS
    if enough_own == 0:
        return OUTSIDE
    return KEPT if has_tissue else NO_TISSUE
