"""Fields of view of one slide, read for a Python user: no data set, no split, nothing written."""

from collections.abc import Iterator
from pathlib import Path

from data_prep.annotations import regions as annotations
from data_prep.annotations.class_map import ClassMap
from data_prep.fields import sizes, tiling
from data_prep.slide import slides, tissue
from diffpath_jax.data.records import FieldOfView

# The class of a slide without annotations.
WHOLE_SLIDE = "tissue"


def fields_of_slide(
    path: Path,
    annotation_file: Path | None = None,
    *,
    fov_um: float | int,
    patch_px: int,
    stride_um: float | int | None = None,
    class_map: ClassMap | None = None,
    roi_min: float = 0.75,
    tissue_min: float = 0.5,
    slide_mpp: float | None = None,
) -> Iterator[FieldOfView]:
    """Read the fields of view of a slide that its regions cover, row by row, with one image in memory at a time.

    Args:
        path: the slide.
        annotation_file: its regions, in any format that ``diffpath prep`` reads; without it all tissue is of one class.
        fov_um: side of a field in um.
        patch_px: side of its image in pixels.
        stride_um: distance of two fields in um; a field's side if not given.
        class_map: which annotation classes are used; all of them if not given.
        roi_min: least share of a field in the regions of its class.
        tissue_min: least share of tissue in a field.
        slide_mpp: um per level-0 pixel, for a slide that does not state it.

    Raises:
        DiffpathError: the slide or its annotations cannot be read, um/px is not known, or a field would have to be
            enlarged.
    """
    class_map = class_map or _every_class(annotation_file)
    size = sizes.from_options({"fov_um": float(fov_um), "patch_px": patch_px})
    spec = tiling.field_spec(
        size, stride_um=float(stride_um or fov_um), origin_um=(0.0, 0.0), roi_min=roi_min, tissue_min=tissue_min
    )
    with slides.open_slide(path, scale_table=None if slide_mpp is None else {path.name: slide_mpp}) as slide:
        kept = _kept(slide, annotation_file, spec, class_map)
        images = slides.read_fields(slide, [field.box for field in kept], patch_px=patch_px)
        for field, image in zip(kept, images, strict=True):
            box = (field.box.x, field.box.y, field.box.width, field.box.height)
            yield FieldOfView(image, field.label, box, size.mpp, field.roi_share, field.tissue_share or 0.0)


def _every_class(annotation_file: Path | None) -> ClassMap:
    """Every class of the annotations; of a slide without any, all tissue."""
    if annotation_file is None:
        return annotations.all_classes([], slide_labels=[WHOLE_SLIDE])
    return annotations.all_classes([annotation_file], slide_labels=[])


def _kept(
    slide: slides.Slide, annotation_file: Path | None, spec: tiling.FieldSpec, class_map: ClassMap
) -> list[tiling.Field]:
    """The fields that lie in a region and show tissue."""
    regions = annotations.of_slide(slide, annotation_file, WHOLE_SLIDE, class_map).regions
    planned = tiling.plan_fields(slide, regions, tissue.find_tissue(slide), spec, priority=class_map.priority)
    return [field for field in planned if field.outcome == tiling.KEPT]
