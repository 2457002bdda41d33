"""Files that are either whole or absent, their digests, and one owner per directory.

Everything the project writes goes through :func:`replace_file`: temporary name, flush to disk, rename.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections import Counter
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
    """Yield a temporary path beside ``path``; on success it becomes ``path``, on failure it is removed.

    An error of the operating system names ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes on two machines can share a number, and a cluster may run one unit twice.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success it becomes ``path``, on failure it is removed.

    Raises:
        DiffpathError: there is something at ``path`` already (exit code 4).
    """
    fix = "name a new folder"
    if not path.name:
        raise DiffpathError("output directory", where=path, why="it has no name", fix=fix)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise DiffpathError("output directory", where=path, why="it is there already", fix=fix, code=ExitCode.REFUSED)
    with new_directory_or_nothing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
        temporary.mkdir()
        try:
            yield temporary
            temporary.replace(path)
            sync_directory(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


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
    """Read a JSON file that a user wrote, or raise one clear line.

    Raises:
        DiffpathError: the file is missing or not JSON.
    """
    data = read_bytes(path, what=what, fix=fix)
    try:
        return parse_json(data)
    except (ValueError, RecursionError) as error:
        raise DiffpathError(what, where=path, why=f"cannot be read as JSON ({error})", fix=fix) from error


def is_special(path: Path) -> bool:
    """Returns whether a path is a pipe, a device or a socket, of which one may have no end."""
    return path.exists() and not (path.is_file() or path.is_dir())


def read_bytes(path: Path, *, what: str, fix: str) -> bytes:
    """Returns the bytes of a file, which is no pipe or device.

    Raises:
        DiffpathError: there is no such file.
    """
    if not path.is_file():
        why = "not a file" if path.exists() else "no such file"
        raise DiffpathError(what, where=path, why=why, fix=fix)
    return path.read_bytes()


def parse_json(data: bytes) -> Any:
    """Returns a JSON value.

    Raises:
        ValueError: it is none; NaN and infinity are none either, nor is an object that has a name twice.
        RecursionError: it is nested too deeply.
    """
    return json.loads(data.decode(), parse_constant=_refuse_constant, object_pairs_hook=_each_name_once)


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two values of one name Python would take the last: what a damaged name, or a slip, hides behind it."""
    content = dict(pairs)
    if len(content) < len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"{name!r} stands there twice")
    return content


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


@contextlib.contextmanager
def own_directory(directory: Path) -> Iterator[None]:
    """Hold a directory for this process; the kernel lets go when the process ends, however it ends.

    Raises:
        DiffpathError: another job holds it (exit code 4).
    """
    directory.mkdir(parents=True, exist_ok=True)
    lock = directory / LOCK_NAME
    first = not lock.exists()
    with _locked(lock, "output directory", directory):
        try:
            yield
        except Exception:
            if first:
                lock.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def own_file(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a file that is about to be written; nothing is left beside it.

    Args:
        path: the file.
        wait: for other jobs that write the same file, which then may be there, rather than refuse.

    Raises:
        DiffpathError: another job holds it (exit code 4).
    """
    lock = path.with_name(f".{path.name}{LOCK_NAME}")
    with new_directory_or_nothing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(lock, "output file", path, wait=wait):
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path, what: str, where: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock file; ``what`` and ``where`` are for errors."""
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise DiffpathError(
                what,
                where=where,
                why=f"in use by {owner}",
                fix="wait for that job, or name another",
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
def own_results(directory: Path, *, marker: str) -> Iterator[None]:
    """Hold a directory whose files a command writes anew each time it is run; a new one goes again if it fails.

    Args:
        directory: the output directory.
        marker: file that every directory of this command has.

    Raises:
        DiffpathError: it holds other things, or another job holds it (exit code 4).
    """
    names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    if marker not in names and any(name != LOCK_NAME and not name.endswith(TEMPORARY_SUFFIX) for name in names):
        why = f"it holds other files and no {marker}"
        fix = "name a new directory, or one of this command"
        raise DiffpathError("output directory", where=directory, why=why, fix=fix, code=ExitCode.REFUSED)
    with new_directory_or_nothing(directory), own_directory(directory):
        yield


@contextlib.contextmanager
def new_directory_or_nothing(directory: Path) -> Iterator[None]:
    """Remove ``directory``, and those made above it, when the block fails and nothing but the lock was written."""
    new = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        yield
    except Exception:
        for path in new:
            if not path.is_dir() or {p.name for p in path.iterdir()} - {LOCK_NAME}:
                break
            (path / LOCK_NAME).unlink(missing_ok=True)
            path.rmdir()
        raise


def shareable(path: Path | str) -> str:
    """Returns a path as it may be passed on: a relative one as it is, of an absolute one its last name."""
    return Path(path).name if Path(path).is_absolute() else str(path)
