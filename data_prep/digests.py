"""Digests of large input files, remembered for as long as a file's stamp stays what it was.

Hashing a thousand slides takes as long as reading them. A digest is therefore taken once, by the worker that reads the
slide next (which then comes from memory), and kept with the file's stamp. Any write changes the stamp: the kernel
sets the time of the last change itself, and no program can set it back.
"""

import hashlib
from pathlib import Path

from diffpath_jax.errors import DiffpathError
from diffpath_jax.files import read_json, sha256_file, write_json

Stamp = list[int]


def stamp(path: Path) -> Stamp:
    """Size, times of the last write and the last change (ns), and inode of a file.

    Raises:
        DiffpathError: it cannot be read.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
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


def sha256_remembered(path: Path, folder: Path) -> str:
    """SHA-256 of a file, from ``folder`` if the file has the stamp that it had when its digest was taken.

    Raises:
        DiffpathError: the file cannot be read.
    """
    memory = folder / f"{hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:32]}.json"
    now = stamp(path)
    if memory.exists():
        found = read_json(memory, what="digest", fix="delete this file and run the same command again")
        if found["stamp"] == now:
            return found["sha256"]
    digest = sha256(path)
    write_json(memory, {"stamp": now, "sha256": digest})
    return digest


def _unreadable(path: Path, error: OSError) -> DiffpathError:
    return DiffpathError(
        "file", where=path, why=f"cannot be read ({error.strerror})", fix="check the path and its permissions"
    )
