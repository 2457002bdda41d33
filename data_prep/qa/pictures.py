"""Pictures that show what was taken from where, for a person to check."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib.patches
import matplotlib.path
import numpy as np
import shapely
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure

from data_prep.annotations.regions import Region
from data_prep.fields import caps, duplicates, quality, tiling
from data_prep.slide.slides import Box, Slide, read_thumbnail
from data_prep.splits import splits
from diffpath_jax.io.files import replace_file, sweep
from diffpath_jax.render import image_grid

FOLDER = "qa"
EXAMPLES = "examples"
THUMBNAIL_PX = 1400
# Okabe and Ito's palette: told apart with any colour vision, and against pink and purple.
CLASS_COLOURS = ("#0072B2", "#009E73", "#E69F00", "#56B4E9", "#D55E00", "#F0E442", "#000000")
OUTCOME_COLOURS = {
    "train": "#0072B2",
    "val": "#E69F00",
    "test": "#009E73",
    **{splits.fold_name(i): CLASS_COLOURS[i % len(CLASS_COLOURS)] for i in range(splits.MAX_FOLDS)},
    splits.GAP: "#999999",
    tiling.AMBIGUOUS: "#D55E00",
    tiling.NO_TISSUE: "#000000",
    quality.BLURRED: "#F0E442",
    quality.PALE: "#FFFFFF",
    quality.INK: "#56B4E9",
    duplicates.DROPPED: "#8B5A2B",
    **dict.fromkeys((caps.OVER_SLIDE, caps.OVER_CLASS, caps.CAPPED), "#CC79A7"),
}
# What is said of kept fields that have no split.
DROPPED = {splits.GAP: "dropped in the gap", duplicates.DROPPED: "dropped as duplicates"}
# Examples of an outcome in a source, and the side in pixels at which they are shown.
_SHOWN, _SHOWN_PX = 8, 128


@dataclass(frozen=True)
class Example:
    """The choice of examples of an outcome: evenly along a score, so that the limit can be judged.

    Attributes:
        score_fn: what they are sorted by.
        order: the order in words.
    """

    score_fn: Callable[[tiling.Field], float]
    order: str


def _score(name: str) -> Callable[[tiling.Field], float]:
    return lambda field: getattr(field.scores, name)


EXAMPLE_OUTCOMES = {
    tiling.KEPT: Example(_score("blur"), "from sharp to blurred"),
    quality.BLURRED: Example(_score("blur"), "from the least blurred"),
    quality.PALE: Example(lambda field: -_score("saturation")(field), "from the most colourful"),
    quality.INK: Example(_score("pen_share"), "from the least ink"),
    tiling.NO_TISSUE: Example(lambda field: -(field.tissue_share or 0), "from the most tissue"),
    tiling.AMBIGUOUS: Example(lambda field: -field.roi_share, "from the most of one class"),
}


def picture_file(name: str) -> str:
    """File of the picture of a source: a slide with its fields, or a sheet of images."""
    return f"{name}.png"


def example_file(name: str, outcome: str) -> str:
    """File of the examples of an outcome in a source."""
    return f"{EXAMPLES}/{name}-{outcome.replace(' ', '-')}.jpg"


def keep_only(folder: Path, names: Sequence[str]) -> None:
    """Remove the pictures of sources that are no longer part of a job, and what a killed run left."""
    for path in (*folder.glob("*.png"), *(folder / EXAMPLES).glob("*.jpg")):
        if path.stem.partition("-")[0] not in names:
            path.unlink()
    sweep(folder)
    sweep(folder / EXAMPLES)


def draw_examples(
    folder: Path,
    name: str,
    fields: Sequence[tiling.Field],
    read: Callable[[Sequence[int]], Sequence[UInt8[np.ndarray, "px px 3"]]],
) -> None:
    """Write a strip of stored images for each outcome of a source's fields.

    Args:
        folder: of all pictures.
        name: of the source's unit.
        fields: all of the source.
        read: gives the images of some of them.
    """
    for outcome, example in EXAMPLE_OUTCOMES.items():
        members = [i for i, field in enumerate(fields) if field.outcome == outcome]
        if members:
            members.sort(key=lambda i: example.score_fn(fields[i]))
            chosen = np.unique(np.linspace(0, len(members) - 1, _SHOWN).round().astype(int))
            write_strip(folder / example_file(name, outcome), read([members[i] for i in chosen]))


def write_strip(path: Path, images: Sequence[np.ndarray]) -> None:
    """Write images side by side as a JPEG file."""
    # Reduced smoothly, enlarged so that pixels are seen.
    interpolation = cv2.INTER_AREA if max(images[0].shape[:2]) > _SHOWN_PX else cv2.INTER_NEAREST
    resized = np.stack([cv2.resize(image, (_SHOWN_PX, _SHOWN_PX), interpolation=interpolation) for image in images])
    strip = cv2.cvtColor(image_grid.tile(resized, columns=len(resized)), cv2.COLOR_RGB2BGR)
    with replace_file(path) as temporary:
        temporary.write_bytes(cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes())


def draw_overlay(
    path: Path,
    slide: Slide,
    regions: Sequence[Region],
    fields: Sequence[tiling.Field],
    assigned: Sequence[str],
    classes: Sequence[str],
) -> None:
    """Write a PNG: left the slide with its regions by class, right the centre of every field by split or reason."""
    picture = read_thumbnail(slide, max_px=THUMBNAIL_PX)
    aspect = picture.shape[0] / picture.shape[1]
    figure = Figure(figsize=(15, 0.6 + 7.2 * aspect), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.imshow(picture, extent=(0, slide.size[0], slide.size[1], 0))
        axes.set_xlabel("level-0 px")
        axes.tick_params(labelsize=7)
    _draw_regions(left, regions, classes)
    _draw_fields(right, fields, assigned)
    with replace_file(path) as temporary:
        figure.savefig(temporary, format="png", pil_kwargs={"compress_level": 1})


def _draw_regions(axes: matplotlib.axes.Axes, regions: Sequence[Region], classes: Sequence[str]) -> None:
    handles = []
    for index, name in enumerate(classes):
        colour = CLASS_COLOURS[index % len(CLASS_COLOURS)]
        shapes = [region.shape for region in regions if region.name == name]
        outlines = [_outline(part) for shape in shapes for part in shape.geoms]
        axes.add_collection(
            PatchCollection(outlines, facecolor=colour + "30", edgecolor=colour, linewidth=1.5, match_original=False)
        )
        handles.append(matplotlib.patches.Patch(color=colour, label=name))
    axes.legend(handles=handles, loc="upper right", fontsize=8)
    axes.set_title("regions by class", fontsize=10)


def _outline(polygon: shapely.Polygon) -> matplotlib.patches.PathPatch:
    rings = [np.asarray(ring.coords) for ring in (polygon.exterior, *polygon.interiors)]
    return matplotlib.patches.PathPatch(
        matplotlib.path.Path.make_compound_path(*(matplotlib.path.Path(ring, closed=True) for ring in rings))
    )


def _draw_fields(axes: matplotlib.axes.Axes, fields: Sequence[tiling.Field], assigned: Sequence[str]) -> None:
    kept = iter(assigned)
    groups = [next(kept) if field.outcome == tiling.KEPT else field.outcome for field in fields]
    handles = []
    for group, colour in OUTCOME_COLOURS.items():
        chosen = [f.box for f, own in zip(fields, groups, strict=True) if own == group]
        if chosen:
            centres = _thinned(chosen)
            axes.plot(
                centres[:, 0],
                centres[:, 1],
                ".",
                color=colour,
                markersize=8,
                markeredgecolor="white",
                markeredgewidth=0.4,
            )
            handles.append(matplotlib.patches.Patch(color=colour, label=f"{group} ({len(chosen)})"))
    for side in [field.box for field in fields[:1]]:
        corner = (axes.get_xlim()[1] - side.width * 1.2, axes.get_ylim()[0] - side.height * 1.2)
        axes.add_patch(
            matplotlib.patches.Rectangle(corner, side.width, side.height, fill=False, edgecolor="black", linewidth=1.5)
        )
    axes.legend(handles=handles, loc="upper right", fontsize=8)
    axes.set_title("centres of the fields of view, thinned; the black square is one field", fontsize=10)


def _thinned(boxes: Sequence[Box]) -> np.ndarray:
    """Centres of boxes, at most one in each third of a field, so that the tissue shows between them."""
    centres = np.array([(box.x + box.width / 2, box.y + box.height / 2) for box in boxes])
    cells = np.floor(centres / np.array([boxes[0].width, boxes[0].height]) * 3)
    _, first = np.unique(cells, axis=0, return_index=True)
    return centres[first]
