"""Images of a job that are there twice: found over all slides and splits, listed, and left out if that is wished."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int, Shaped

from data_prep import duplicates, shards, tiling, unit
from data_prep.unit import PRIVATE, Job, Placed, Prepared, Source
from diffpath_jax.files import replace_file

FILE = "duplicates.parquet"
# Listed only, or left out of the data set but for the first: in the order train, val, test, then in that of the slides.
# What is left of val and test then shows nothing that was trained on, and training loses nothing to them.
RULES = ("report", "drop")


@dataclass(frozen=True)
class Repeats:
    """The images of a job that repeat an earlier one.

    Attributes:
        pairs: each with the earlier one.
        slide: of every image, the position of its slide.
        index: of every image, its position in its slide.
        label: of every image, its class.
        split: of every image, its split before any was left out.
    """

    pairs: duplicates.Pairs
    slide: Int[np.ndarray, "n"]
    index: Int[np.ndarray, "n"]
    label: Shaped[np.ndarray, "n"]
    split: Shaped[np.ndarray, "n"]


def find(staging: shards.Staging, placed: Sequence[Placed], names: Sequence[str]) -> Repeats:
    """Look for duplicates among the images that have a split; only fingerprints are in memory.

    Args:
        staging: where they are.
        placed: slides with the splits of their images.
        names: the splits, in the order in which an image counts as the first of its kind.
    """
    parts = [
        _of_slide(staging.describe(slide.name), number, slide.assigned, names) for number, slide in enumerate(placed)
    ]
    images = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(images["split"], kind="stable")
    images = {name: values[order] for name, values in images.items()}
    index, label = images.pop("index"), images.pop("label")
    pairs = duplicates.find(duplicates.Images(**images))
    return Repeats(pairs, images["slide"], index, label, np.array(names)[images["split"]])


def _of_slide(
    described: shards.Unit, number: int, assigned: Sequence[str], names: Sequence[str]
) -> dict[str, np.ndarray]:
    kept = [field for field in unit.staged_fields(described) if field.outcome == tiling.KEPT]
    boxes = [field.box for field in kept]
    chosen = np.array([split in names for split in assigned], bool)
    prints = described.details["fingerprints"]
    signs = "".join(found["signs"] or "0" * (duplicates.BITS // 4) for found in prints)
    every = {
        "pixels": np.frombuffer(bytes.fromhex("".join(found["pixels"] for found in prints)), np.uint8).reshape(-1, 16),
        "signs": np.frombuffer(bytes.fromhex(signs), np.uint8).reshape(-1, duplicates.BITS // 8),
        "plain": np.array([not found["signs"] for found in prints], bool),
        "slide": np.full(len(prints), number),
        "split": np.array([names.index(split) if split in names else -1 for split in assigned], int),
        "places": np.array([(box.x, box.y, box.width, box.height) for box in boxes], float).reshape(-1, 4),
        "index": np.arange(len(prints)),
        "label": np.array([field.label for field in kept], str),
    }
    return {name: values[chosen] for name, values in every.items()}


def drop(placed: Sequence[Placed], repeats: Repeats) -> list[Placed]:
    """The slides of a job, without a split for the images that repeat an earlier one."""
    assigned = [list(slide.assigned) for slide in placed]
    for image in np.unique(repeats.pairs.second):
        assigned[repeats.slide[image]][repeats.index[image]] = duplicates.DROPPED
    return [replace(slide, assigned=found) for slide, found in zip(placed, assigned, strict=True)]


def summary(job: Job, repeats: Repeats) -> dict[str, Any]:
    """Images that repeat an earlier one: how many, exactly or nearly, each counted once, where it is worst."""
    pairs = repeats.pairs
    worst = np.lexsort((~pairs.exact, -pairs.where, pairs.second))
    images, first = np.unique(pairs.second[worst], return_index=True)
    where, exact = pairs.where[worst][first], pairs.exact[worst][first]
    counts = {
        kind: {name: int((chosen & (where == i)).sum()) for i, name in enumerate(duplicates.WHERE)}
        for kind, chosen in (("exact", exact), ("near", ~exact))
    }
    other = pairs.second[repeats.label[pairs.first] != repeats.label[pairs.second]]
    return {
        "rule": job.duplicates,
        **counts,
        "of another class": len(np.unique(other)),
        "dropped": len(images) if job.duplicates == "drop" else 0,
    }


def write_table(job: Job, slides: Sequence[tuple[Source, Prepared]], repeats: Repeats) -> None:
    """List all pairs. Names slides: for the group's own eyes."""
    pairs = repeats.pairs
    columns: dict[str, Any] = {
        "kind": np.where(pairs.exact, "exact", "near"),
        "where": np.array(duplicates.WHERE)[pairs.where],
        "turned": pairs.turned,
        "differing_bits": pairs.bits,
    }
    for ending, images in (("first", pairs.first), ("second", pairs.second)):
        whose = [slides[number] for number in repeats.slide[images]]
        columns |= {
            f"slide_file_{ending}": [source.slide.name for source, _ in whose],
            f"slide_{ending}": [prepared.identity.slide for _, prepared in whose],
            f"index_{ending}": repeats.index[images],
            f"split_{ending}": repeats.split[images],
            f"class_{ending}": repeats.label[images],
        }
    with replace_file(job.out / PRIVATE / FILE) as temporary:
        temporary.touch(mode=0o600)
        pq.write_table(pa.table(columns), temporary)
