"""Datasets on disk, real and generated: ArrayRecord shards in TFDS layout, and a manifest with digests.

The manifest is written last: a directory without one is an unfinished job (:mod:`diffpath_jax.data.staging`), whatever
else it holds.
"""

import functools
import importlib.metadata
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from diffpath_jax.data import manifest, records
from diffpath_jax.data.details import Details
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import replace_file, sha256_file, write_text
from diffpath_jax.io.sealed import write_sealed

# One record a group: any record can be read without its neighbours (65,000 random reads a second, not 4).
WRITER_OPTIONS = "group_size:1"
MAX_SHARD_BYTES = 256 * 2**20


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
            read_back = sum(1 for _ in manifest.read_shard(temporary))
        except DiffpathError as error:
            raise _cannot_write(path, str(error)) from error
        if read_back != count:
            raise _cannot_write(path, f"{count} records went in and {read_back} came back")
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
    fix = "make room on the disk and run the same command again"
    return DiffpathError("shard", where=path, why=why, fix=fix, code=ExitCode.SYSTEM)


def write_dataset(
    out: Path,
    *,
    name: str,
    schema: records.Schema,
    splits: Mapping[str, Sequence[int]],
    items: Mapping[str, Iterable[bytes]],
    details: Details,
    card: str,
    tables: Sequence[str] = (),
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
        tables: paths below ``out`` of tables that lie there already: their digests go into the manifest.
    """
    shards = write_shards(out, name=name, schema=schema, splits=splits, items=items)
    return write_description(
        out, name=name, schema=schema, shards=shards, splits=splits, details=details, card=card, tables=tables
    )


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
    record_bytes += 4 * ((schema.feature_width or 0) + len(schema.columns))
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
    details: Details,
    card: str,
    tables: Sequence[str] = (),
) -> manifest.Dataset:
    """Write what makes a dataset of shards: TFDS metadata, dataset card, and last the manifest.

    Other arguments are those of :func:`write_dataset`.
    """
    _write_tfds_metadata(out, name, schema, shards)
    write_text(out / "README.md", card)
    write_sealed(
        out / manifest.MANIFEST,
        {
            "format": manifest.FORMAT,
            "name": name,
            "image_px": list(schema.image_px),
            "classes": list(schema.classes),
            **({"latent_shape": list(schema.latent_shape)} if schema.latent_shape else {}),
            **manifest.beside(schema),
            "splits": {split: [asdict(shard) for shard in found] for split, found in shards.items()},
            "class_counts": {
                split: {c: int(np.sum(np.asarray(labels) == i)) for i, c in enumerate(schema.classes)}
                for split, labels in splits.items()
                if labels
            },
            "digest": manifest.content_digest(schema, shards),
            "files": {name: sha256_file(out / name) for name in tables},
            "details": details.to_json(),
        },
    )
    return manifest.open_dataset(out)


def _shard_length(count: int, number: int, index: int) -> int:
    return count // number + (index < count % number)


def tfds_features(schema: records.Schema) -> tfds.features.FeaturesDict:
    """Features by which TFDS reads the records; mirrors :func:`records.encode`."""
    scalar, text = tfds.features.Scalar, tfds.features.Text
    array = functools.partial(tfds.features.Tensor, encoding=tfds.features.Encoding.BYTES)
    own = {"image": array(shape=(*schema.image_px, 3), dtype=np.uint8)}
    if schema.latent_shape:
        own = {"latent": array(shape=schema.latent_shape, dtype=np.float16), "symmetry": scalar(np.int64)}
    for name, width in (("features", schema.feature_width), ("columns", len(schema.columns))):
        own |= {name: array(shape=(width,), dtype=np.float32)} if width else {}
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
