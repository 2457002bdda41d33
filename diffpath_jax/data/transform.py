"""A data set made out of another, image by image: latents, reconstructions. Resumable, as every job is."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from diffpath_jax.data import card, job, manifest, records, writer
from diffpath_jax.data.details import Details
from diffpath_jax.data.staging import Staging, Unit

# Images of a unit of work.
UNIT_IMAGES = 512

# (images, split, number of the first in it) -> their new records, in any number, and what is to be remembered of them
Transform = Callable[
    [Sequence[records.PatchRecord], str, int],
    tuple[Iterable[records.PatchRecord | records.LatentRecord], Mapping[str, Any]],
]


@dataclass(frozen=True)
class Derivation:
    """A data set to derive from another one.

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
    source, splits = derivation.source, derivation.splits
    settings = {**derivation.settings, "name": derivation.name, "source": source.digest, "splits": list(splits)}
    chunks = {
        job.Piece(f"{split}-{start // UNIT_IMAGES:06d}", min(UNIT_IMAGES, source.count(split) - start)): split
        for split in splits
        for start in range(0, source.count(split), UNIT_IMAGES)
    }
    return job.run(
        job.Job(
            out=derivation.out,
            settings=settings,
            pieces=list(chunks),
            produce=lambda missing: _transformed(derivation, chunks, set(missing)),
            write=lambda staging, units, recorded: _write(
                derivation, describe, staging, list(zip(units, chunks.values(), strict=True)), recorded
            ),
            title=title,
        )
    )


def _transformed(
    derivation: Derivation, chunks: Mapping[job.Piece, str], missing: Collection[job.Piece]
) -> Iterator[job.Done]:
    """New records of the chunks that are missing, in their order."""
    for split in derivation.splits:
        images, start = iter(derivation.source.read(split)), 0
        for piece in (piece for piece, of in chunks.items() if of == split):
            chunk = list(islice(images, piece.size))
            if piece in missing:
                transformed, remembered = derivation.transform(chunk, split, start)
                transformed = list(transformed)
                details = {"labels": [record.label for record in transformed], **remembered}
                yield job.Done(piece, (records.encode(record) for record in transformed), details)
            start += len(chunk)


def _write(
    derivation: Derivation,
    describe: Describe,
    staging: Staging,
    units: Sequence[tuple[Unit, str]],
    settings: Mapping[str, Any],
) -> None:
    of_split = {split: [unit for unit, of in units if of == split] for split in derivation.splits}
    labels = {split: [int(i) for unit in own for i in unit.details["labels"]] for split, own in of_split.items()}
    details = Details(
        mpp=derivation.source.details.mpp,
        fov_um=derivation.source.details.fov_um,
        job=dict(settings),
        source=derivation.source.images,
        versions=writer.versions("jax", "flax"),
        **describe({split: [unit.details for unit in own] for split, own in of_split.items()}),
    )
    writer.write_dataset(
        derivation.out,
        name=derivation.name,
        schema=derivation.schema,
        splits=labels,
        items={split: (data for unit in own for data in staging.read(unit)) for split, own in of_split.items()},
        details=details,
        card=card.dataset_card(derivation.name, derivation.schema, labels, details),
    )


def stacked(images: Sequence[records.PatchRecord]) -> np.ndarray:
    """Their pixels as one array."""
    return np.stack([record.image for record in images])
