"""A data set made out of another, image by image: latents, reconstructions. Resumable, as every job is."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from diffpath_jax.data import card, manifest, records, writer
from diffpath_jax.data.details import Details
from diffpath_jax.data.staging import Staging, Unit, finished
from diffpath_jax.io.progress import track

# Images of a unit of work.
UNIT_IMAGES = 512

# (images, split) -> their new records, in any number, and what is to be remembered of them
Transform = Callable[
    [Sequence[records.PatchRecord], str], tuple[Iterable[records.PatchRecord | records.LatentRecord], Mapping[str, Any]]
]


@dataclass(frozen=True)
class Derivation:
    """What is to be made.

    Attributes:
        out: data set directory to write.
        name: data set name.
        source: data set to read.
        splits: those of its splits that are read.
        schema: of the new records.
        settings: what decides the new records besides the source; a rerun must match it.
        transform: makes new records.
    """

    out: Path
    name: str
    source: manifest.Dataset
    splits: tuple[str, ...]
    schema: records.Schema
    settings: Mapping[str, Any]
    transform: Transform


# (what was remembered of each unit, by split) -> the other fields of Details
Describe = Callable[[Mapping[str, Sequence[Mapping[str, Any]]]], Mapping[str, Any]]


def run(derivation: Derivation, describe: Describe, *, title: str) -> manifest.Dataset:
    """Do what is missing of a job and write the data set; a finished job is returned as it is.

    Raises:
        DiffpathError: the directory belongs to another job (exit code 4).
    """
    source = derivation.source
    job = {**derivation.settings, "name": derivation.name, "source": source.digest, "splits": list(derivation.splits)}
    if complete := finished(derivation.out, job):
        return complete
    staging = Staging(derivation.out, job)
    units: dict[str, list[Unit]] = {split: [] for split in derivation.splits}
    total = sum(source.count(split) for split in derivation.splits)
    with track(title, total=total, unit="img") as progress:
        for split in derivation.splits:
            images = iter(source.read(split))
            while chunk := list(islice(images, UNIT_IMAGES)):
                name = f"{split}-{len(units[split]):06d}"
                unit = staging.find(name)
                if unit is None:
                    made, remembered = derivation.transform(chunk, split)
                    made = list(made)
                    labels = [record.label for record in made]
                    encoded = (records.encode(record) for record in made)
                    unit = staging.commit(name, encoded, {"labels": labels, **remembered})
                    progress.advance(len(chunk))
                else:
                    progress.skip(len(chunk))
                units[split].append(unit)
    dataset = _assemble(derivation, job, describe, staging, units)
    staging.clear()
    return dataset


def _assemble(
    derivation: Derivation,
    job: Mapping[str, Any],
    describe: Describe,
    staging: Staging,
    units: Mapping[str, Sequence[Unit]],
) -> manifest.Dataset:
    labels = {split: [int(i) for unit in found for i in unit.details["labels"]] for split, found in units.items()}
    details = Details(
        mpp=derivation.source.details.mpp,
        fov_um=derivation.source.details.fov_um,
        job=dict(job),
        source=derivation.source.digest,
        versions=writer.versions("jax", "flax"),
        **describe({split: [unit.details for unit in found] for split, found in units.items()}),
    )
    return writer.write_dataset(
        derivation.out,
        name=derivation.name,
        schema=derivation.schema,
        splits=labels,
        items={split: (data for unit in found for data in staging.read(unit)) for split, found in units.items()},
        details=details,
        card=card.dataset_card(derivation.name, derivation.schema, labels, details),
    )


def stacked(images: Sequence[records.PatchRecord]) -> np.ndarray:
    """Their pixels as one array."""
    return np.stack([record.image for record in images])
