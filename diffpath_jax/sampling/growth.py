"""What is there of a set already: of a finished one that is to hold more images, or of one begun in other batches.

Image i has its noise from a key of its own, so neither how many others there are nor how many were drawn at once
changes it. Images of a finished set are staged as one unit of the larger job before anything of the set is removed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Int

from diffpath_jax.data import manifest
from diffpath_jax.data.staging import JOB, STAGING, Renew, Staging, recorded_job

# The unit of images that a finished set had, and its details.
KEPT, INDICES, BATCH_SIZES = "kept", "indices", "batch_sizes"
# Another of these leads to the same images, or to more.
_MAY_DIFFER = {"counts", "batch_size"}
_BATCH = "batch-"
Indices = Int[np.ndarray, "_"]


def take_up(out: Path, settings: Mapping[str, Any], renew: Renew, *, table: str, split: str) -> None:
    """Make a finished set the begun part of a job that is to hold more; whatever else is in ``out`` stays as it is.

    Args:
        out: directory of the set.
        settings: of the larger job.
        renew: brings recorded settings to today's names.
        table: file of its images' indices and batch sizes.
        split: that holds them.
    """
    if not (out / manifest.MANIFEST).exists() or not _grows(renew(recorded_job(out) or {}), settings):
        return
    dataset, staging = manifest.open_dataset(out), Staging(out, settings, renew)
    if staging.find(KEPT) is None:
        rows = pq.read_table(out / table, columns=["index", "batch_size"]).to_pydict()
        stored = (data for path in dataset.paths(split) for data in manifest.read_shard(path))
        staging.commit(KEPT, stored, {INDICES: rows["index"], BATCH_SIZES: rows["batch_size"]})
    (out / manifest.MANIFEST).unlink()


def _grows(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Returns whether a job holds all images of another, and more."""
    if any(before.get(key) != now.get(key) for key in {*before, *now} - _MAY_DIFFER):
        return False
    pairs = list(zip(before["counts"], now["counts"], strict=False))
    return before["counts"] != now["counts"] and all(old <= new for old, new in pairs)


def staging_of(out: Path, settings: Mapping[str, Any], renew: Renew) -> Staging | None:
    """Returns what is staged of a job; none where it has not begun."""
    return Staging(out, settings, renew) if (out / STAGING / JOB).exists() else None


def kept_indices(staging: Staging | None) -> Indices:
    """Returns the indices of the images that a finished set had."""
    unit = staging.find(KEPT) if staging else None
    return np.asarray(unit.details[INDICES] if unit else [], np.int64)


def batches(staging: Staging | None, count: int, batch_size: int) -> dict[str, slice]:
    """Returns which of so many images are drawn together, by the name of their unit.

    What was staged in batches of another size stays as it is; the places between are filled in today's.
    """
    staged = _staged(staging) if staging else {}
    parts, at = dict[str, slice](), 0
    while at < count:
        size = staged.get(at) or min(batch_size, next((place for place in staged if place > at), count) - at)
        parts[f"{_BATCH}{at:09d}"] = slice(at, at + size)
        at += size
    return parts


def _staged(staging: Staging) -> dict[int, int]:
    """Returns the place of the first image of each batch that is whole -> how many it holds, in their order."""
    units = (staging.find(name) for name in staging.names() if name.startswith(_BATCH))
    return {int(unit.name.removeprefix(_BATCH)): unit.count for unit in units if unit}
