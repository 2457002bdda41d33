"""The one resumable job: pieces of work that are staged as they are done, and a data set when all are.

Sampling, encoding and reconstructing run by it. ``diffpath prep`` stages its slides the same way (:class:`Staging`) and
goes its own way around that: its pieces are done by workers elsewhere, and some may fail.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from diffpath_jax.data import manifest
from diffpath_jax.data.staging import Renew, Staging, Unit, finished, recorded_job
from diffpath_jax.io.progress import track


@dataclass(frozen=True)
class Piece:
    """A piece of work that is done or not done.

    Attributes:
        name: unique in the job, safe as a file name.
        size: images that it takes.
    """

    name: str
    size: int


@dataclass(frozen=True)
class Done:
    """A piece that is done.

    Attributes:
        piece: which one.
        items: its records.
        details: what the end of the job wants to know of it (JSON).
    """

    piece: Piece
    items: Iterable[bytes]
    details: Mapping[str, Any]


@runtime_checkable
class Produce(Protocol):
    """Does the pieces that are missing."""

    def __call__(self, missing: Sequence[Piece], /) -> Iterator[Done]:
        """Yields each of them as it is done, in any order."""


@runtime_checkable
class Write(Protocol):
    """Writes the data set."""

    def __call__(self, staging: Staging, units: Sequence[Unit], settings: Mapping[str, Any], /) -> object:
        """Writes it from the staged units, in the order of the pieces; ``settings`` belong into its manifest."""


@runtime_checkable
class Team(Protocol):
    """The processes that share a job; each calls :func:`run` with the same job."""

    @property
    def index(self) -> int:
        """Number of this process, from 0; the first writes what exists once."""

    @property
    def count(self) -> int:
        """Number of pieces."""

    def wait(self, reason: str, /) -> None:
        """Returns when every process has come here."""


class Alone:
    """A team of one."""

    index, count = 0, 1

    def wait(self, reason: str, /) -> None:
        """Returns at once."""


@dataclass(frozen=True)
class Job:
    """A data set to make, piece by piece.

    Attributes:
        out: directory to write.
        settings: everything that decides its records; a rerun must match it.
        pieces: of the whole job, in the order of its records.
        produce: does some of them.
        write: makes a data set of all.
        title: for the progress bar.
        renew: brings the settings that an earlier version recorded to today's names.
    """

    out: Path
    settings: Mapping[str, Any]
    pieces: Sequence[Piece]
    produce: Produce
    write: Write
    title: str
    renew: Renew = dict


def run(job: Job, team: Team | None = None) -> manifest.Dataset:
    """Do what is missing of a job and write the data set; a finished job is returned as it is.

    The processes of a team share the pieces; the first writes the data set when all are done.

    Raises:
        DiffpathError: the directory belongs to another job (exit code 4).
    """
    team = team or Alone()
    if complete := finished(job.out, job.settings, job.renew):
        return complete
    if team.index == 0:
        Staging(job.out, job.settings, job.renew)
    team.wait("the job is described")
    staging = Staging(job.out, job.settings, job.renew)
    _do(job, job.pieces[team.index :: team.count], staging)
    team.wait("all pieces are done")
    if team.index == 0:
        # The job as it was begun, perhaps by an earlier version: the same command has to find it again.
        settings = recorded_job(job.out) or job.settings
        job.write(staging, [staging.describe(piece.name) for piece in job.pieces], settings)
        staging.clear()
    team.wait("the data set is written")
    return manifest.open_dataset(job.out)


def _do(job: Job, pieces: Sequence[Piece], staging: Staging) -> None:
    """Do those of some pieces that are not staged yet."""
    missing = [piece for piece in pieces if staging.find(piece.name) is None]
    total, left = (sum(piece.size for piece in some) for some in (pieces, missing))
    with track(job.title, total=total, done=total - left, unit="img") as progress:
        for done in job.produce(missing):
            staging.commit(done.piece.name, done.items, done.details)
            progress.advance(done.piece.size)
