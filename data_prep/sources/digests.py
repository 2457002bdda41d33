"""Digests of input files, remembered for as long as the files' stamps stay what they were.

Hashing a thousand slides takes as long as reading them. A digest is therefore taken once, by the worker that reads the
file next (which then comes from memory), and kept with the file's stamp. Any write changes the stamp: the kernel
sets the time of the last change itself, and no program can set it back.
"""

import hashlib
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.files import sha256_file
from diffpath_jax.io.sealed import read_sealed, write_sealed

Stamp = list[int]


@dataclass(frozen=True)
class _Remembered:
    """Stamps of some files, and the digests that they had then."""

    stamps: list[Stamp]
    sha256: list[str]


def stamp(path: Path) -> Stamp:
    """Size, times of the last write and the last change (ns), and inode of a file.

    Raises:
        DiffpathError: it cannot be read, or is no file: a pipe or a device may have no end.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise DiffpathError("file", where=path, why="it is a directory or a device, not a file", fix="leave it out")
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def sha256(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        DiffpathError: it cannot be read.
    """
    try:
        return sha256_file(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def sha256_remembered(paths: Sequence[Path], folder: Path) -> list[str]:
    """SHA-256 of files, from ``folder`` if they have the stamps that they had when their digests were taken.

    Raises:
        DiffpathError: a file cannot be read.
    """
    names = "\n".join(str(path.absolute()) for path in paths)
    memory = folder / f"{hashlib.sha256(names.encode(errors='surrogateescape')).hexdigest()[:32]}.json"
    now = [stamp(path) for path in paths]
    if memory.exists():
        fix = "delete this file and run the same command again"
        stored = read_sealed(memory, _Remembered, what="digest", fix=fix)
        if stored.stamps == now:
            return stored.sha256
    taken = [sha256(path) for path in paths]
    write_sealed(memory, {"stamps": now, "sha256": taken})
    return taken


def _unreadable(path: Path, error: OSError) -> DiffpathError:
    return DiffpathError(
        "file", where=path, why=f"cannot be read ({error.strerror})", fix="check the path and its permissions"
    )
