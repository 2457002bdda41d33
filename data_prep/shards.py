"""Datasets on disk, real and generated: ArrayRecord shards in TFDS layout, a manifest with digests, resumable.

A job is a list of units (a slide, a batch of samples). Each finished unit is staged as two whole files, its records
and its description; :func:`write_dataset` then lays the records of all units into shards, and writes the manifest
last. A directory without a manifest is an unfinished job, whatever else it holds.
"""

import functools
import importlib.metadata
import itertools
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from diffpath_jax.data import manifest, records
from diffpath_jax.errors import DiffpathError, ExitCode
from diffpath_jax.files import read_json, replace_file, sha256_file, write_json, write_text

STAGING = ".staging"
JOB = "job.json"
# One record a group: any record can be read without its neighbours (65,000 random reads a second, not 4).
WRITER_OPTIONS = "group_size:1"
MAX_SHARD_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Unit:
    """A finished piece of a job.

    Attributes:
        name: file-name-safe name, unique in the job.
        count: records it gave.
        details: what the job wants to know of it later (JSON).
    """

    name: str
    count: int
    details: Mapping[str, Any]


def write_shard(path: Path, data: Iterable[bytes]) -> manifest.Shard:
    """Write records to one ArrayRecord file: temporary name, close, read back, rename.

    Raises:
        DiffpathError: what was written does not read back (a full disk shows only then).
    """
    with replace_file(path) as temporary:
        try:
            count = _write_records(temporary, data)
        except (RuntimeError, OSError) as error:
            raise _cannot_write(path, str(error)) from error
        try:
            found = sum(1 for _ in manifest.read_shard(temporary))
        except DiffpathError as error:
            raise _cannot_write(path, str(error)) from error
        if found != count:
            raise _cannot_write(path, f"{count} records went in and {found} came back")
        digest = sha256_file(temporary)
    return manifest.Shard(path.name, count, digest)


def _write_records(path: Path, data: Iterable[bytes]) -> int:
    count = 0
    writer = array_record_module.ArrayRecordWriter(str(path), WRITER_OPTIONS)
    for item in data:
        writer.write(item)
        count += 1
    writer.close()
    return count


def _cannot_write(path: Path, why: str) -> DiffpathError:
    return DiffpathError("shard", where=path, why=why, fix="make room on the disk and run the same command again")


class Staging:
    """The unfinished part of a dataset directory: one pair of files a finished unit.

    Args:
        out: dataset directory.
        job: everything that decides what the records are (settings, digests); a rerun must match it.

    Raises:
        DiffpathError: ``out`` was begun or finished by another job (exit code 4).
    """

    def __init__(self, out: Path, job: Mapping[str, Any]) -> None:
        self._directory = out / STAGING
        self._directory.mkdir(parents=True, exist_ok=True)
        recorded = out / STAGING / JOB
        if recorded.exists():
            refuse_other_job(out, _recorded_job(out), job)
        else:
            write_json(recorded, job)

    @classmethod
    def begun(cls, out: Path, *, where: str) -> "Staging":
        """The staging area of a job that another process has begun.

        Args:
            out: dataset directory.
            where: the machine that looks for it.

        Raises:
            DiffpathError: there is none (exit code 4): this machine sees another file system.
        """
        if not (out / STAGING / JOB).is_file():
            raise DiffpathError(
                "output directory",
                where=out,
                why=f"the worker on {where} does not see it",
                fix="put --out, slides and annotations on a file system that all workers share",
                code=ExitCode.REFUSED,
            )
        return cls(out, _recorded_job(out))

    def find(self, name: str) -> Unit | None:
        """The unit if it is finished and its records are as they were written, else nothing."""
        if not self._description(name).exists():
            return None
        content = self._content(name)
        shard = manifest.Shard(**content["shard"])
        data = self._directory / shard.file
        if not data.is_file() or sha256_file(data) != shard.sha256:
            return None
        return Unit(name, shard.count, content["details"])

    def describe(self, name: str) -> Unit:
        """A unit that is known to be finished."""
        content = self._content(name)
        return Unit(name, content["shard"]["count"], content["details"])

    def _description(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    def _content(self, name: str) -> Any:
        fix = "delete this file and run the same command again"
        return read_json(self._description(name), what="unit", fix=fix)

    def commit(self, name: str, items: Iterable[bytes], details: Mapping[str, Any]) -> Unit:
        """Stage the records of a unit; its description comes last and makes it count.

        Args:
            name: of the unit.
            items: its records.
            details: looked at when all records are taken, so that these may still add to it.
        """
        shard = write_shard(self._directory / f"{name}.array_record", items)
        write_json(self._description(name), {"shard": asdict(shard), "details": details})
        return Unit(name, shard.count, details)

    def read(self, unit: Unit, indices: Sequence[int] | None = None) -> Iterator[bytes]:
        """Records of a finished unit, as bytes, in order, or those of some indices."""
        return manifest.read_shard(self._directory / f"{unit.name}.array_record", indices)

    def holds_records(self) -> bool:
        """Whether some finished unit has a record."""
        names = [path.stem for path in self._directory.glob("*.json") if path.name != JOB]
        return any(self.describe(name).count for name in names)

    def clear(self) -> None:
        """Remove the staged files, once the manifest is written."""
        shutil.rmtree(self._directory)


def _recorded_job(out: Path) -> Any:
    return read_json(out / STAGING / JOB, what="job", fix="name a new output directory")


def refuse_other_job(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Compare a job with the one a directory belongs to.

    Raises:
        DiffpathError: they differ (exit code 4); the keys are named.
    """
    changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    if changed:
        raise DiffpathError(
            "output directory",
            where=out,
            why=f"it belongs to a job with another {', '.join(changed)}",
            fix="name a new --out, or run with the settings of before",
            code=ExitCode.REFUSED,
        )


def finished(out: Path, job: Mapping[str, Any]) -> manifest.Dataset | None:
    """The finished dataset in ``out`` if this very job wrote it.

    Raises:
        DiffpathError: another job wrote it (exit code 4), or it is damaged (exit code 5).
    """
    if not (out / manifest.MANIFEST).exists():
        return None
    dataset = manifest.open_dataset(out)
    refuse_other_job(out, dataset.details["job"], job)
    return dataset


def write_dataset(
    out: Path,
    *,
    name: str,
    schema: records.Schema,
    splits: Mapping[str, Sequence[int]],
    items: Mapping[str, Iterable[bytes]],
    details: Mapping[str, Any],
    card: str,
) -> manifest.Dataset:
    """Write shards, TFDS metadata and dataset card, then the manifest.

    Args:
        out: dataset directory.
        name: dataset name.
        schema: image size and classes.
        splits: labels of each split's records, in order.
        items: serialised records of each split, in the same order.
        details: provenance; goes into the manifest.
        card: Markdown text of the dataset card.
    """
    shards = write_shards(out, name=name, schema=schema, splits=splits, items=items)
    return write_description(out, name=name, schema=schema, shards=shards, splits=splits, details=details, card=card)


def write_shards(
    out: Path,
    *,
    name: str,
    schema: records.Schema,
    splits: Mapping[str, Sequence[int]],
    items: Mapping[str, Iterable[bytes]],
) -> dict[str, tuple[manifest.Shard, ...]]:
    """Write the shards of every split that has records; arguments are those of :func:`write_dataset`."""
    # From here on, until the new manifest is there, the directory holds no dataset. An earlier run with other units
    # may have left shards under names that this one does not write.
    (out / manifest.MANIFEST).unlink(missing_ok=True)
    for leftover in out.glob(f"{name}-*.array_record-*"):
        leftover.unlink()
    record_bytes = 2 * math.prod(schema.latent_shape) if schema.latent_shape else 3 * math.prod(schema.image_px)
    per_shard = max(1, MAX_SHARD_BYTES // record_bytes)
    shards = {}
    for split, labels in splits.items():
        if not labels:
            continue
        number = -(-len(labels) // per_shard)
        source = iter(items[split])
        shards[split] = tuple(
            write_shard(
                out / shard_name(name, split, i, number),
                itertools.islice(source, _shard_length(len(labels), number, i)),
            )
            for i in range(number)
        )
    return shards


def shard_name(name: str, split: str, index: int, number: int) -> str:
    """File name of one of a split's shards, as TFDS wants it."""
    return f"{name}-{split}.array_record-{index:05d}-of-{number:05d}"


def write_description(
    out: Path,
    *,
    name: str,
    schema: records.Schema,
    shards: Mapping[str, Sequence[manifest.Shard]],
    splits: Mapping[str, Sequence[int]],
    details: Mapping[str, Any],
    card: str,
) -> manifest.Dataset:
    """Write what makes a dataset of shards: TFDS metadata, dataset card, and last the manifest.

    Other arguments are those of :func:`write_dataset`.
    """
    _write_tfds_metadata(out, name, schema, shards)
    write_text(out / "README.md", card)
    write_json(
        out / manifest.MANIFEST,
        {
            "format": manifest.FORMAT,
            "name": name,
            "image_px": list(schema.image_px),
            "classes": list(schema.classes),
            **({"latent_shape": list(schema.latent_shape)} if schema.latent_shape else {}),
            "splits": {split: [asdict(shard) for shard in found] for split, found in shards.items()},
            "class_counts": {
                split: {c: int(np.sum(np.asarray(labels) == i)) for i, c in enumerate(schema.classes)}
                for split, labels in splits.items()
                if labels
            },
            "digest": manifest.content_digest(schema, shards),
            "details": details,
        },
    )
    return manifest.open_dataset(out)


def _shard_length(count: int, number: int, index: int) -> int:
    return count // number + (index < count % number)


def tfds_features(schema: records.Schema) -> tfds.features.FeaturesDict:
    """What TFDS must know to read the records; mirrors :func:`records.encode`."""
    scalar, text = tfds.features.Scalar, tfds.features.Text
    array = functools.partial(tfds.features.Tensor, encoding=tfds.features.Encoding.BYTES)
    own = {"image": array(shape=(*schema.image_px, 3), dtype=np.uint8)}
    if schema.latent_shape:
        own = {"latent": array(shape=schema.latent_shape, dtype=np.float16), "symmetry": scalar(np.int64)}
    return tfds.features.FeaturesDict(
        {
            **own,
            "label": tfds.features.ClassLabel(names=schema.classes),
            "slide": text(),
            "patient": text(),
            "mpp": scalar(np.float32),
            "fov_um": scalar(np.float32),
            "index": scalar(np.int64),
        }
    )


def _write_tfds_metadata(
    out: Path, name: str, schema: records.Schema, shards: Mapping[str, Sequence[manifest.Shard]]
) -> None:
    split_infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[shard.count for shard in found],
            num_bytes=sum((out / shard.file).stat().st_size for shard in found),
            filename_template=tfds.core.ShardedFileTemplate(
                data_dir=out, dataset_name=name, split=split, filetype_suffix="array_record"
            ),
        )
        for split, found in shards.items()
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=str(out), features=tfds_features(schema), split_infos=split_infos, check_data=False
    )


def versions(*packages: str) -> dict[str, str]:
    """Installed versions, for the manifest."""
    return {package: importlib.metadata.version(package) for package in ("diffpath", *packages)}
