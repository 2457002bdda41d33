"""Images of a job that are there twice: found over all slides and splits, listed, and left out if that is wished."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int, Shaped

from data_prep.fields.duplicates import BITS, DROPPED, WHERE, Images, Pairs, find_pairs
from data_prep.job import source_tasks
from data_prep.job.source_tasks import Prepared, SplitAssignment
from data_prep.sources.source import PRIVATE, Job, Origin, Source, StagedSource
from diffpath_jax.data.details import DuplicateCounts
from diffpath_jax.data.staging import Staging
from diffpath_jax.io.files import replace_file

FILE = "duplicates.parquet"
# Listed only, or left out of the data set but for the first: in the order train, val, test (or that of the folds), then
# in that of the sources. What is left of val and test then shows nothing that was trained on, and training loses
# nothing to them. One rule for fields of slides and for files: neither is left out unasked, as equal pixels may be bare
# glass that is wanted; but files with the same bytes have one owner where no patient is known, and so stay together.
RULES = ("report", "drop")


@dataclass(frozen=True)
class JobDuplicates:
    """The images of a job that repeat an earlier one.

    Attributes:
        pairs: each with the earlier one.
        source: of every image, the position of its source.
        index: of every image, its position in its source.
        label: of every image, its class.
        split: of every image, its split before any was left out.
    """

    pairs: Pairs
    source: Int[np.ndarray, "n"]
    index: Int[np.ndarray, "n"]
    label: Shaped[np.ndarray, "n"]
    split: Shaped[np.ndarray, "n"]


def find(staging: Staging, assignments: Sequence[SplitAssignment], names: Sequence[str]) -> JobDuplicates:
    """Look for duplicates among the images that have a split; only fingerprints are in memory.

    Args:
        staging: where they are.
        assignments: sources with the splits of their images.
        names: the splits, in the order in which an image counts as the first of its kind.
    """
    parts, count = [], 0
    for number, each in enumerate(assignments):
        parts.append(_of_source(StagedSource.of_unit(staging.describe(each.name)), number, each, names, count))
        count += len(each.assigned)
    images = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(images["split"], kind="stable")
    images = {name: values[order] for name, values in images.items()}
    source, index, label = (images.pop(name) for name in ("source", "index", "label"))
    pairs = find_pairs(Images(**images))
    return JobDuplicates(pairs, source, index, label, np.array(names)[images["split"]])


def _of_source(
    staged: StagedSource, number: int, assignment: SplitAssignment, names: Sequence[str], start: int
) -> dict[str, np.ndarray]:
    """Returns fingerprints and places of one source's images; ``start`` images are in the sources before it."""
    chosen = np.array([split in names for split in assignment.assigned], bool)
    prints = staged.fingerprints
    signs = "".join(each.signs or "0" * (BITS // 4) for each in prints)
    index = np.arange(len(prints))
    every = {
        "pixels": np.frombuffer(bytes.fromhex("".join(each.pixels for each in prints)), np.uint8).reshape(-1, 16),
        "signs": np.frombuffer(bytes.fromhex(signs), np.uint8).reshape(-1, BITS // 8),
        "plain": np.array([not each.signs for each in prints], bool),
        "slide": np.full(len(prints), start) if assignment.source.is_spatial else start + index,
        "split": np.array([names.index(split) if split in names else -1 for split in assignment.assigned], int),
        "places": np.array([astuple(field.box) for field in staged.kept], float).reshape(-1, 4),
        "source": np.full(len(prints), number),
        "index": index,
        "label": np.array([field.label for field in staged.kept], str),
    }
    return {name: values[chosen] for name, values in every.items()}


def drop(assignments: Sequence[SplitAssignment], repeated: JobDuplicates) -> list[SplitAssignment]:
    """The sources of a job, without a split for the images that repeat an earlier one."""
    assigned = [list(source.assigned) for source in assignments]
    for image in np.unique(repeated.pairs.second):
        assigned[repeated.source[image]][repeated.index[image]] = DROPPED
    return [replace(source, assigned=splits) for source, splits in zip(assignments, assigned, strict=True)]


def summary(job: Job, repeated: JobDuplicates) -> DuplicateCounts:
    """Images that repeat an earlier one: how many, exactly or nearly, each counted once, where it is worst."""
    pairs = repeated.pairs
    worst = np.lexsort((~pairs.exact, -pairs.where, pairs.second))
    images, first = np.unique(pairs.second[worst], return_index=True)
    where, exact = pairs.where[worst][first], pairs.exact[worst][first]
    counts = {
        kind: {name: int((chosen & (where == i)).sum()) for i, name in enumerate(WHERE)}
        for kind, chosen in (("exact", exact), ("near", ~exact))
    }
    other = pairs.second[repeated.label[pairs.first] != repeated.label[pairs.second]]
    dropped = len(images) if job.duplicates == "drop" else 0
    return DuplicateCounts(job.duplicates, **counts, other_class=len(np.unique(other)), dropped=dropped)


def origins_of(
    job: Job,
    staging: Staging,
    done: Sequence[tuple[Source, Prepared]],
    repeated: JobDuplicates,
    images: Int[np.ndarray, "m"],
) -> list[Origin]:
    """Returns the origins of some images; one source's origins are in memory at a time."""
    by_image: dict[int, Origin] = {}
    for number in np.unique(repeated.source[images]).tolist():
        _, origins = source_tasks.kept_origins(job, staging, *done[number])
        of_source = np.unique(images[repeated.source[images] == number]).tolist()
        by_image |= {image: origins[repeated.index[image]] for image in of_source}
    return [by_image[image] for image in images.tolist()]


def write_table(job: Job, staging: Staging, done: Sequence[tuple[Source, Prepared]], repeated: JobDuplicates) -> None:
    """List all pairs. Names slides and files: for the group's own eyes."""
    pairs = repeated.pairs
    columns: dict[str, Any] = {
        "kind": np.where(pairs.exact, "exact", "near"),
        "where": np.array(WHERE)[pairs.where],
        "turned": pairs.turned,
        "differing_bits": pairs.bits,
    }
    for ending, images in (("first", pairs.first), ("second", pairs.second)):
        origins = origins_of(job, staging, done, repeated, images)
        columns |= {
            f"slide_file_{ending}": pa.array([origin.file for origin in origins], pa.string()),
            f"slide_{ending}": pa.array([origin.slide for origin in origins], pa.string()),
            # A file has one image.
            f"index_{ending}": np.where([origin.is_whole_file for origin in origins], 0, repeated.index[images]),
            f"split_{ending}": repeated.split[images],
            f"class_{ending}": repeated.label[images],
        }
    with replace_file(job.out / PRIVATE / FILE) as temporary:
        temporary.touch(mode=0o600)
        pq.write_table(pa.table(columns), temporary)
