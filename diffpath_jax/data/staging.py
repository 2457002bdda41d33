"""The unfinished part of a dataset directory: finished units of a job, so that it goes on where it stopped.

A job is a list of units (a slide, a batch of samples). Each finished unit is staged as two whole files, its records
and its description; :mod:`diffpath_jax.data.writer` then lays the records of all units into shards.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffpath_jax.data import details, manifest
from diffpath_jax.data.writer import write_shard
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import sha256_file
from diffpath_jax.io.sealed import read_sealed, write_sealed

STAGING = ".staging"
JOB = "job.json"
Renew = Callable[[Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class _Description:
    """Stored result of a unit."""

    shard: manifest.Shard
    details: dict[str, Any]


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


class Staging:
    """The unfinished part of a dataset directory: one pair of files a finished unit.

    Args:
        out: dataset directory.
        job: everything that decides what the records are (settings, digests); a rerun must match it.
        renew: brings the record of a job that an earlier version began to today's names.

    Raises:
        DiffpathError: ``out`` was begun or finished by another job (exit code 4), or nobody knows by which (exit code
            5).
    """

    def __init__(self, out: Path, job: Mapping[str, Any], renew: Renew = dict) -> None:
        self._directory = out / STAGING
        self._directory.mkdir(parents=True, exist_ok=True)
        recorded = out / STAGING / JOB
        if self.names() and not recorded.exists() and (out / manifest.MANIFEST).exists():
            # What a finished job left that was killed as it tidied up.
            self.clear()
            self._directory.mkdir()
        # The record comes first: where there are units without one, it is lost, and they may be of other settings.
        if recorded.exists() or self.names():
            refuse_other_job(out, renew(_recorded_job(out)), job)
        else:
            write_sealed(recorded, job)

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
        stored = self._stored(name)
        data = self._directory / stored.shard.file
        if data.name != stored.shard.file or not data.is_file() or sha256_file(data) != stored.shard.sha256:
            return None
        return Unit(name, stored.shard.count, stored.details)

    def describe(self, name: str) -> Unit:
        """A unit that is known to be finished."""
        stored = self._stored(name)
        return Unit(name, stored.shard.count, stored.details)

    def _description(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    def _stored(self, name: str) -> _Description:
        fix = "delete this file and run the same command again"
        return read_sealed(self._description(name), _Description, what="unit", fix=fix)

    def commit(self, name: str, items: Iterable[bytes], details: Mapping[str, Any]) -> Unit:
        """Stage the records of a unit; its description comes last and makes it count.

        Args:
            name: of the unit.
            items: its records.
            details: looked at when all records are taken, so that these may still add to it.
        """
        shard = write_shard(self._directory / f"{name}.array_record", items)
        write_sealed(self._description(name), {"shard": asdict(shard), "details": details})
        return Unit(name, shard.count, details)

    def read(self, unit: Unit, indices: Sequence[int] | None = None) -> Iterator[bytes]:
        """Records of a finished unit, as bytes, in order, or those of some indices."""
        return manifest.read_shard(self._directory / f"{unit.name}.array_record", indices)

    def names(self) -> list[str]:
        """Names of the units that were finished, in order."""
        return sorted(path.stem for path in self._directory.glob("*.json") if path.name != JOB)

    def holds_records(self) -> bool:
        """True if some finished unit has a record."""
        return any(self.describe(name).count for name in self.names())

    def clear(self) -> None:
        """Remove the staged files, once the manifest is written."""
        shutil.rmtree(self._directory)


def _recorded_job(out: Path) -> dict[str, Any]:
    path = out / STAGING / JOB
    if not path.exists():
        why, fix = "there are finished units and no record of their job", "name a new output directory"
        raise DiffpathError("job", where=path, why=why, fix=fix, code=ExitCode.DAMAGED)
    return read_sealed(path, dict, what="job", fix="name a new output directory")


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


def recorded_job(out: Path) -> Mapping[str, Any] | None:
    """Returns the job that began or finished the directory, as it was recorded; none where there is none."""
    if (out / manifest.MANIFEST).exists():
        return details.from_json(manifest.read_stored(out).details).job
    return _recorded_job(out) if (out / STAGING / JOB).exists() else None


def finished(out: Path, job: Mapping[str, Any], renew: Renew = dict) -> manifest.Dataset | None:
    """The finished dataset in ``out`` if this very job wrote it; ``renew`` as in :class:`Staging`.

    Raises:
        DiffpathError: another job wrote it (exit code 4), or it is damaged (exit code 5).
    """
    if not (out / manifest.MANIFEST).exists():
        return None
    dataset = manifest.open_dataset(out)
    refuse_other_job(out, renew(dataset.details.job), job)
    return dataset
