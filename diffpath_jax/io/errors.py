"""Errors that a user reads, and their exit codes."""

import enum
import errno
import os


class ExitCode(enum.IntEnum):
    """Exit codes of every command (documented in docs/FILES.md)."""

    OK = 0
    BUG = 1
    BAD_INPUT = 2
    PARTIAL = 3
    REFUSED = 4
    DAMAGED = 5
    DIVERGED = 6
    SYSTEM = 7
    INTERRUPTED = 130
    TERMINATED = 143


class DiffpathError(Exception):
    """One clear line: ``<what> in <where>: <why>; fix: <fix>``.

    Args:
        what: the thing that is wrong, e.g. ``um/px``.
        where: the file, directory or option it was found in.
        why: what is wrong with it.
        fix: what the user can do about it.
        code: exit code of the command.
    """

    def __init__(self, what: str, *, where: object, why: str, fix: str, code: ExitCode = ExitCode.BAD_INPUT) -> None:
        self.what, self.where, self.why, self.fix, self.code = what, str(where), why, fix, code
        super().__init__(" ".join(f"{what} in {where}: {why}; fix: {fix}".split()))

    def __reduce__(self) -> tuple:
        """Survive the trip from a worker process (``Exception`` alone forgets keyword arguments)."""
        return _rebuild, (self.what, self.where, self.why, self.fix, self.code)


def _rebuild(what: str, where: str, why: str, fix: str, code: ExitCode) -> DiffpathError:
    return DiffpathError(what, where=where, why=why, fix=fix, code=code)


_ROOM = "make room there and run the same command again"
_PLACE = "name another path, or change its permissions"
_HANDLES = "raise the limit (ulimit -n 4096) and run the same command again"
# The user named something else than was asked for: bad input, and no refusal of the machine.
_NAMED = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP}
# What the system refuses, and what helps. The text of an error can come through a library that hides its number.
_FIXES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _ROOM),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _PLACE),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), _HANDLES),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR), "name another path"),
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "check the disk, and run the same command again",
    errno.ENOMEM: "free memory, or ask for less at once",
}


# Of these the machine is the reason, whatever file was being read.
_OF_THE_MACHINE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


# What XLA's error begins with where a device has no room.
_DEVICE_FULL = "RESOURCE_EXHAUSTED"
_SMALLER = (
    "train with a higher optim.accumulate, with network.remat=True, or on more devices with train.fsdp; "
    "elsewhere lower --batch_size"
)


def from_system(error: BaseException, *, where: object = "the file system") -> DiffpathError | None:
    """Returns one line on what the machine refused (room, permission, handles, memory, a name), if it did.

    Libraries raise errors of their own over it: its number is looked for in what an error was raised from, and its
    words in their texts.

    Args:
        error: anything that was raised.
        where: what was being read or written, if the error does not say.
    """
    if isinstance(error, DiffpathError):
        return _by_reason(error)
    if isinstance(error, BaseExceptionGroup):
        members = [from_system(member, where=where) for member in error.exceptions]
        return None if None in members else members[0]
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return DiffpathError("name", where=ascii(error.object), why="a file name is not UTF-8", fix="rename the file")
    if str(error).startswith(_DEVICE_FULL):
        why = str(error).removeprefix(_DEVICE_FULL).partition(".")[0].strip(": ").lower()
        return DiffpathError("memory", where="a device", why=why, fix=_SMALLER, code=ExitCode.SYSTEM)
    if isinstance(error, MemoryError):
        return _refused("memory", "this machine", errno.ENOMEM)
    if isinstance(error, OSError) and error.errno is not None:
        return _refused("file", error.filename or where, error.errno)
    for number in _FIXES:
        if os.strerror(number) in str(error):
            return _refused("file", where, number)
    return from_system(error.__cause__, where=where) if error.__cause__ else None


def _by_reason(error: DiffpathError) -> DiffpathError:
    """Returns the error, which is the machine's and not the file's where it was raised over a refusal of that."""
    number = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
    if number not in _OF_THE_MACHINE:
        return error
    return DiffpathError(error.what, where=error.where, why=error.why, fix=_FIXES[number], code=ExitCode.SYSTEM)


def _refused(what: str, where: object, number: int) -> DiffpathError:
    place = where.decode(errors="backslashreplace") if isinstance(where, bytes) else str(where)
    fix = _FIXES.get(number, "check the path, and run the same command again")
    code = ExitCode.BAD_INPUT if number in _NAMED else ExitCode.SYSTEM
    return DiffpathError(what, where=place, why=os.strerror(number).lower(), fix=fix, code=code)
