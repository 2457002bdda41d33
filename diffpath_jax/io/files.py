"""Files that are either whole or absent, their digests, and one owner per directory.

Everything the project writes goes through :func:`replace_file`: temporary name, flush to disk, rename.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffpath_jax.io.errors import DiffpathError, ExitCode

LOCK_NAME = ".lock"
TEMPORARY_SUFFIX = ".tmp"


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sync_directory(path: Path) -> None:
    """Flush a directory entry to disk, so that a rename survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it becomes ``path``, on failure it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes on two machines can share a number, and a cluster may run one unit twice.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(directory: Path) -> None:
    """Remove what killed processes left of files that they were writing; the directory must be this process's own."""
    for path in directory.glob(f".*{TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text so that readers see the old file or the new one, never half of it."""
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; NaN and infinity are refused, as JSON has no such numbers."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, *, what: str, fix: str) -> Any:
    """Read a JSON file or raise one clear line.

    Raises:
        DiffpathError: the file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise DiffpathError(what, where=path, why="no such file", fix=fix) from None
    except (OSError, ValueError, RecursionError) as error:
        raise DiffpathError(what, where=path, why=f"cannot be read as JSON ({error})", fix=fix) from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


@contextlib.contextmanager
def own_directory(directory: Path) -> Iterator[None]:
    """Hold a directory for this process; the kernel lets go when the process ends, however it ends.

    Raises:
        DiffpathError: another job holds it (exit code 4).
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / LOCK_NAME
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise DiffpathError(
                "output directory",
                where=directory,
                why=f"in use by {owner}",
                fix="wait for that job, or name another directory",
                code=ExitCode.REFUSED,
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


@contextlib.contextmanager
def new_directory_or_nothing(directory: Path) -> Iterator[None]:
    """Remove ``directory`` again when the block fails on bad input and nothing but the lock was written."""
    existed = directory.exists()
    try:
        yield
    except DiffpathError:
        if not existed and directory.exists() and {p.name for p in directory.iterdir()} <= {LOCK_NAME}:
            (directory / LOCK_NAME).unlink(missing_ok=True)
            directory.rmdir()
        raise
