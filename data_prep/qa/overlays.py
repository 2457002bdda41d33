"""Pictures of one slide: its regions and tissue, its fields by split or reason, some at zoom; with a scale bar."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib.patches
import numpy as np
import shapely
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.figure import Figure

from data_prep.annotations.regions import Region
from data_prep.fields import tiling
from data_prep.qa.pictures import CLASS_COLOURS, MAX_ZOOMS, OUTCOME_COLOURS, fields_file, picture_file, zoom_file
from data_prep.slide.slides import Box, Slide, read_fields, read_thumbnail
from data_prep.slide.tissue import TissueMask
from diffpath_jax.io.files import replace_file

THUMBNAIL_PX = 1400
# Inches of a picture, so that its words can be read on a telephone, of its title and of its margins; pixels an inch.
_WIDTH, _TITLE, _MARGIN, _DPI = 5.2, 0.36, 0.08, 160
TISSUE, FOLD = "#00796B", OUTCOME_COLOURS[tiling.FOLDED]
# Fields along the side of a zoomed window, and its pixels.
_ACROSS, _WINDOW_PX = 5, 480
# A part of a mask, or a hole in one, of less than this share of the slide is not drawn.
_SPECK = 1 / 20_000
# A scale bar is at most this share of the picture.
_LONGEST_BAR = 0.25


@dataclass(frozen=True)
class Marks:
    """What is drawn over a slide.

    Attributes:
        regions: of its annotations.
        tissue: its tissue.
        folds: folds of it.
        fields: all of its fields.
        assigned: split of each that is kept.
    """

    regions: Sequence[Region]
    tissue: TissueMask
    folds: TissueMask
    fields: Sequence[tiling.Field]
    assigned: Sequence[str]

    @property
    def groups(self) -> list[str]:
        """Split of each kept field, outcome of each other."""
        kept = iter(self.assigned)
        return [next(kept) if field.outcome == tiling.KEPT else field.outcome for field in self.fields]


def draw(folder: Path, name: str, slide: Slide, marks: Marks, classes: Sequence[str]) -> None:
    """Write the pictures of a slide.

    Args:
        folder: of all pictures.
        name: of the slide's unit.
        slide: the slide.
        marks: what is drawn over it.
        classes: of the data set.
    """
    picture = read_thumbnail(slide, max_px=THUMBNAIL_PX)
    figure, axes = _picture_of(slide, picture)
    _draw_regions(axes, marks, classes)
    _write(folder / picture_file(name), figure)
    figure, axes = _picture_of(slide, picture)
    _draw_fields(axes, marks)
    _write(folder / fields_file(name), figure)
    # On a small slide they are all the same.
    for number, window in enumerate(dict.fromkeys(_windows(slide, marks))):
        _draw_zoom(folder / zoom_file(name, number), slide, marks, window)


def _picture_of(slide: Slide, picture: UInt8[np.ndarray, "h w 3"]) -> tuple[Figure, Axes]:
    """Returns a figure of the whole slide with a scale bar."""
    figure, axes = _figure(_WIDTH, _WIDTH * picture.shape[0] / picture.shape[1])
    axes.imshow(picture, extent=(0, slide.size[0], slide.size[1], 0))
    _draw_bar(axes, slide, Box(0.0, 0.0, float(slide.size[0]), float(slide.size[1])))
    return figure, axes


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Returns axes of so many inches, with room for a title above: a layout that is computed takes twice the time."""
    wide, tall = width + 2 * _MARGIN, height + 2 * _MARGIN + _TITLE
    figure = Figure(figsize=(wide, tall), dpi=_DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((_MARGIN / wide, _MARGIN / tall, width / wide, height / tall))
    axes.set_xticks([])
    axes.set_yticks([])
    return figure, axes


def _write(path: Path, figure: Figure) -> None:
    with replace_file(path) as temporary:
        figure.savefig(temporary, format="png", pil_kwargs={"compress_level": 1})


def bar_mm(width_mm: float) -> float:
    """Returns the length of a scale bar: 1, 2 or 5 times a power of ten, at most a quarter of the width in mm."""
    longest = _LONGEST_BAR * width_mm
    power = 10.0 ** math.floor(math.log10(longest))
    return next(factor * power for factor in (5, 2, 1) if factor * power <= longest * (1 + 1e-9))


def _draw_bar(axes: Axes, slide: Slide, view: Box) -> None:
    """Draw a scale bar in mm at the lower left of what is shown."""
    length = bar_mm(view.width * slide.scale.x / 1000)
    pixels, thick = length * 1000 / slide.scale.x, view.height / 80
    left, bottom = view.x + view.width / 40, view.y + view.height * 0.975
    axes.add_patch(matplotlib.patches.Rectangle((left, bottom - thick), pixels, thick, color="black"))
    place = (left, bottom - 1.6 * thick)
    backing = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.5}
    axes.text(*place, f"{length:g} mm", ha="left", va="bottom", fontsize=11, bbox=backing)


def _draw_regions(axes: Axes, marks: Marks, classes: Sequence[str]) -> None:
    """Draw outlines alone, so that the tissue keeps its colours: regions by class, tissue, folds."""
    handles = []
    for index, name in enumerate(classes):
        colour = CLASS_COLOURS[index % len(CLASS_COLOURS)]
        axes.add_collection(LineCollection(_rings(marks.regions, name), colors=colour, linewidths=2.0))
        handles.append(matplotlib.patches.Patch(facecolor="none", edgecolor=colour, linewidth=2.0, label=name))
    for mask, colour, name in ((marks.tissue, TISSUE, "tissue"), (marks.folds, FOLD, "folds")):
        if mask.mask.any():
            axes.add_collection(LineCollection(_borders(mask), colors=colour, linewidths=0.9, linestyles="--"))
            handles.append(matplotlib.patches.Patch(facecolor="none", edgecolor=colour, linestyle="--", label=name))
    _draw_legend(axes, handles)
    axes.set_title("outlines of regions by class, and of the tissue", fontsize=12)


def _draw_legend(axes: Axes, handles: Sequence[matplotlib.patches.Patch]) -> None:
    axes.legend(handles=list(handles), loc="upper right", fontsize=8, framealpha=0.85)


def _borders(mask: TissueMask) -> list[np.ndarray]:
    """Returns the outlines of a mask in level-0 pixels, but for specks."""
    outlines, _ = cv2.findContours(mask.mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    shown = [each for each in outlines if cv2.contourArea(each) >= _SPECK * mask.mask.size]
    return [(np.concatenate([each, each[:1]])[:, 0] + 0.5) * mask.level0_px for each in shown]


def _rings(regions: Sequence[Region], name: str) -> list[np.ndarray]:
    """Returns the outlines of the regions of a class, with those of their holes."""
    shapes = [region.shape for region in regions if region.name == name]
    rings = shapely.get_rings(shapely.get_parts(shapes))
    return np.split(*_corners(rings)) if len(rings) else []


def _corners(rings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the corners of all rings, and where each ring but the first begins."""
    corners, ring = shapely.get_coordinates(rings, return_index=True)
    return corners, np.flatnonzero(np.diff(ring)) + 1


def _draw_fields(axes: Axes, marks: Marks) -> None:
    handles, groups = [], marks.groups
    for group, colour in OUTCOME_COLOURS.items():
        chosen = [field.box for field, own in zip(marks.fields, groups, strict=True) if own == group]
        if chosen:
            x, y = _thinned(chosen).T
            axes.plot(x, y, ".", color=colour, markersize=8, markeredgecolor="white", markeredgewidth=0.4)
            handles.append(matplotlib.patches.Patch(color=colour, label=f"{group} ({len(chosen)})"))
    _draw_legend(axes, handles)
    axes.set_title("centres of the fields of view, thinned", fontsize=12)


def _thinned(boxes: Sequence[Box]) -> np.ndarray:
    """Centres of boxes, at most one in each third of a field, so that the tissue shows between them."""
    centres = np.array([(box.x + box.width / 2, box.y + box.height / 2) for box in boxes])
    cells = np.floor(centres / np.array([boxes[0].width, boxes[0].height]) * 3)
    _, first = np.unique(cells, axis=0, return_index=True)
    return centres[first]


def _windows(slide: Slide, marks: Marks) -> Iterator[Box]:
    """Yields some windows around kept fields, spread over the slide; around any field where none is kept."""
    kept = [field.box for field in marks.fields if field.outcome == tiling.KEPT]
    boxes = kept or [field.box for field in marks.fields]
    for index in sorted({len(boxes) * (2 * i + 1) // (2 * MAX_ZOOMS) for i in range(MAX_ZOOMS)} if boxes else ()):
        box = boxes[index]
        fields = min(_ACROSS, slide.size[0] / box.width, slide.size[1] / box.height)
        sides = (fields * box.width, fields * box.height)
        centre = (box.x + box.width / 2, box.y + box.height / 2)
        left, top = (
            min(max(at - side / 2, 0.0), full - side) for at, side, full in zip(centre, sides, slide.size, strict=True)
        )
        yield Box(left, top, *sides)


def _draw_zoom(path: Path, slide: Slide, marks: Marks, window: Box) -> None:
    """Write a window of a slide with the square of every field in it, in the colour of its split or reason."""
    patch_px = min(_WINDOW_PX, int(min(window.width, window.height)))
    picture = next(read_fields(slide, [window], patch_px=patch_px))
    figure, axes = _figure(3.4, 3.4)
    right, bottom = window.x + window.width, window.y + window.height
    axes.imshow(picture, extent=(window.x, right, bottom, window.y), aspect="auto")
    shown = [
        (field.box, group)
        for field, group in zip(marks.fields, marks.groups, strict=True)
        if field.box.x < right and field.box.x + field.box.width > window.x
        if field.box.y < bottom and field.box.y + field.box.height > window.y
    ]
    for group in dict.fromkeys(group for _, group in shown):
        colour = OUTCOME_COLOURS.get(group, "none")
        squares = [matplotlib.patches.Rectangle((b.x, b.y), b.width, b.height) for b, own in shown if own == group]
        axes.add_collection(PatchCollection(squares, facecolor="none", edgecolor=colour, linewidth=1.8))
    for mask, colour in ((marks.tissue, TISSUE), (marks.folds, FOLD)):
        axes.add_collection(LineCollection(_borders(mask), colors=colour, linewidths=0.9, linestyles="--"))
    axes.set(xlim=(window.x, right), ylim=(bottom, window.y))
    _draw_bar(axes, slide, window)
    axes.set_title("squares of fields, by split or reason", fontsize=11)
    _write(path, figure)
