"""The manifest of a dataset directory: what it holds, with digests. Readers open only what it lists."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from array_record.python import array_record_module

from diffpath_jax.data import details, records
from diffpath_jax.data.columns import Column
from diffpath_jax.data.details import Details
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import sha256_file, sha256_json
from diffpath_jax.io.names import check_names
from diffpath_jax.io.sealed import read_sealed

MANIFEST = "manifest.json"
FORMAT = "diffpath-dataset-1"
_FIX = "name a dataset directory, as written by `diffpath prep` or `diffpath sample`"
_REWRITE = "run the command that wrote it again, into a new directory"


@dataclass(frozen=True)
class Shard:
    """One ArrayRecord file of a split."""

    file: str
    count: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Stored:
    """The file as it is written; attributes are those of :class:`Dataset`.

    Attributes:
        format: of the directory.
        name: dataset name.
        image_px: (height, width).
        classes: class names.
        latent_shape: of latents.
        feature_width: of features.
        columns: of a user's table.
        splits: shards of each split.
        class_counts: images per split and class.
        digest: of the content.
        details: of :func:`diffpath_jax.data.details.from_json`.
        files: SHA-256 of the tables beside the shards, by path; they may be left out when the data set is passed on.
    """

    format: Literal["diffpath-dataset-1"]
    name: str
    image_px: tuple[int, int]
    classes: tuple[str, ...]
    latent_shape: tuple[int, int, int] | None = None
    feature_width: int | None = None
    columns: tuple[Column, ...] = ()
    splits: dict[str, tuple[Shard, ...]]
    class_counts: dict[str, dict[str, int]]
    digest: str
    details: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """A dataset directory as its manifest describes it.

    Attributes:
        directory: where it lies.
        name: dataset name, the prefix of its shards.
        schema: image size and classes.
        splits: shards of each split.
        class_counts: images per split and class.
        details: everything else in the manifest: um/px, command, settings, sources, versions.
        digest: SHA-256 over the schema and the shards' digests; two datasets with one digest hold the same records.
    """

    directory: Path
    name: str
    schema: records.Schema
    splits: Mapping[str, tuple[Shard, ...]]
    class_counts: Mapping[str, Mapping[str, int]]
    details: Details
    digest: str

    @property
    def images(self) -> str:
        """Digest of the images that latents are made from, or beside which something lies; of others, their own."""
        derived = self.schema.latent_shape or self.schema.feature_width or self.schema.columns
        return self.details.source or self.digest if derived else self.digest

    def check_images(self) -> None:
        """Refuse latents.

        Raises:
            DiffpathError: it holds them.
        """
        if self.schema.latent_shape:
            fix = "name the data set that they were made from"
            raise DiffpathError("data set", where=self.directory, why="it holds latents, not images", fix=fix)

    def count(self, split: str) -> int:
        """Number of records in a split."""
        return sum(shard.count for shard in self.shards(split))

    def shards(self, split: str) -> tuple[Shard, ...]:
        """Shards of a split.

        Raises:
            DiffpathError: there is no such split.
        """
        if split not in self.splits:
            why, fix = "the data set has no such split", f"use one of {list(self.splits)}"
            raise DiffpathError(f"split {split!r}", where=self.directory, why=why, fix=fix)
        return self.splits[split]

    def paths(self, split: str) -> list[Path]:
        """Files of a split."""
        return [self.directory / shard.file for shard in self.shards(split)]

    def read(self, split: str) -> Iterator[records.PatchRecord]:
        """Every image of a split, in stored order.

        Raises:
            DiffpathError: there is no such split, or it holds latents.
        """
        self.check_images()
        for path in self.paths(split):
            for data in read_shard(path):
                yield records.decode(data, self.schema)


def content_digest(schema: records.Schema, splits: Mapping[str, Sequence[Shard]]) -> str:
    """Digest of what a dataset holds, independent of where it lies and who made it."""
    latents = {"latent_shape": list(schema.latent_shape)} if schema.latent_shape else {}
    return sha256_json(
        {
            "image_px": list(schema.image_px),
            "classes": list(schema.classes),
            **latents,
            **beside(schema),
            "shards": {split: [s.sha256 for s in shards] for split, shards in splits.items()},
        }
    )


def beside(schema: records.Schema) -> dict[str, Any]:
    """Returns what a schema says of the things that lie beside the images, as it is stored; no key for none."""
    columns = [column.as_json() for column in schema.columns]
    stored = {"feature_width": schema.feature_width, "columns": columns}
    return {name: value for name, value in stored.items() if value}


def read_shard(path: Path, indices: Sequence[int] | None = None) -> Iterator[bytes]:
    """Raw records of one ArrayRecord file, in order, or those of some indices.

    Raises:
        DiffpathError: the file is damaged (exit code 5); ArrayRecord's own errors do not name the file.
    """
    try:
        # ArrayRecord does not say why it cannot open a file, be it for want of handles; Python does.
        path.open("rb").close()
        reader = array_record_module.ArrayRecordReader(str(path))
        count = reader.num_records()
        if not reader.ok():
            raise ValueError("not a readable ArrayRecord file")
        if indices is not None:
            yield from reader.read(list(indices))
            return
        for _ in range(count):
            yield reader.read()
    except DiffpathError:
        raise
    except Exception as error:
        raise _damaged(path, str(error)) from error


def open_dataset(directory: Path, *, verify: bool = True) -> Dataset:
    """Read a dataset's manifest and, unless told not to, check the digest of every shard it lists.

    Raises:
        DiffpathError: no dataset there (exit code 2), or a shard is missing or damaged (exit code 5).
    """
    path = directory / MANIFEST
    if not path.is_file():
        why = "no such directory" if not directory.is_dir() else f"it has no {MANIFEST}"
        raise DiffpathError("dataset", where=directory, why=why, fix=_FIX)
    stored = read_stored(directory)
    try:
        dataset = _described(directory, stored)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"not a valid manifest: {error}") from error
    if verify:
        for shard in (shard for shards in dataset.splits.values() for shard in shards):
            check_shard(directory / shard.file, shard)
        for name, sha256 in stored.files.items():
            if (directory / name).is_file() and sha256_file(directory / name) != sha256:
                raise _damaged(directory / name, "its bytes do not match the digest in the manifest")
    return dataset


def read_stored(directory: Path) -> Stored:
    """Read a manifest and no more.

    Raises:
        DiffpathError: there is none (exit code 2), or it is damaged (exit code 5).
    """
    return read_sealed(directory / MANIFEST, Stored, what="manifest", fix=_REWRITE)


def _described(directory: Path, stored: Stored) -> Dataset:
    """Returns the data set of a manifest.

    Raises:
        ValueError: it contradicts itself, or names something that no data set may.
    """
    schema = records.Schema(stored.image_px, stored.classes, stored.latent_shape, stored.feature_width, stored.columns)
    check_names(stored.name, *stored.classes, *stored.splits)
    if stored.digest != content_digest(schema, stored.splits):
        raise ValueError("its digest does not match its shard list")
    return Dataset(
        directory=directory,
        name=stored.name,
        schema=schema,
        splits=stored.splits,
        class_counts=stored.class_counts,
        details=details.from_json(stored.details),
        digest=stored.digest,
    )


def check_shard(path: Path, shard: Shard) -> None:
    """Compare a shard's bytes with its digest.

    Raises:
        DiffpathError: it is missing or differs (exit code 5).
    """
    if Path(shard.file).name != shard.file:
        raise _damaged(path, "the manifest names a file outside the dataset directory")
    if not path.is_file():
        raise _damaged(path, "listed in the manifest but missing")
    if sha256_file(path) != shard.sha256:
        raise _damaged(path, "its bytes do not match the digest in the manifest")


def _damaged(path: Path, why: str) -> DiffpathError:
    return DiffpathError("dataset", where=path, why=why, fix=_REWRITE, code=ExitCode.DAMAGED)
