"""What a user is told when something cannot go on, and the exit code that goes with it."""

import enum


class ExitCode(enum.IntEnum):
    """Exit codes of every command (documented in docs/FILES.md)."""

    OK = 0
    BUG = 1
    BAD_INPUT = 2
    PARTIAL = 3
    REFUSED = 4
    DAMAGED = 5
    DIVERGED = 6
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
