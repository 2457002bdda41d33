"""Pictures that show what was taken from where, for a person to check."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from data_prep.fields import caps, duplicates, quality, tiling
from data_prep.splits import splits
from diffpath_jax.io.files import replace_file, sweep
from diffpath_jax.render import image_grid

FOLDER = "qa"
EXAMPLES = "examples"
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
    tiling.FOLDED: "#7B3294",
    quality.BLURRED: "#F0E442",
    quality.PALE: "#FFFFFF",
    quality.INK: "#56B4E9",
    duplicates.DROPPED: "#8B5A2B",
    **dict.fromkeys((caps.OVER_SLIDE, caps.OVER_CLASS, caps.CAPPED), "#CC79A7"),
}
# What is said of kept fields that have no split.
DROPPED = {splits.GAP: "dropped in the gap", duplicates.DROPPED: "dropped as duplicates"}
# Most zoomed windows of a slide.
MAX_ZOOMS = 3
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
    tiling.FOLDED: Example(lambda field: field.fold_share or 0, "from the least folded"),
    tiling.AMBIGUOUS: Example(lambda field: -field.roi_share, "from the most of one class"),
}


def picture_file(name: str) -> str:
    """File of the picture of a source: a slide with its fields, or a sheet of images."""
    return f"{name}.png"


def fields_file(name: str) -> str:
    """File of the picture of a slide with the centres of its fields."""
    return f"{name}-fields.png"


def zoom_file(name: str, number: int) -> str:
    """File of a window of a slide with the squares of its fields."""
    return f"{name}-zoom-{number}.png"


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
