"""Processes that prepare side by side and use the device one at a time. Standard library only.

Tracing a large network takes longer than compiling it for an accelerator, and needs the processor alone. Compiling
tries kernels on the device, as measuring does, and either disturbs the other. So processes trace at the same time, and
each then has the device to itself: of those that wait, the first in the order.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_LOOK_EVERY = 0.1


@dataclass(frozen=True)
class Turns:
    """The place of one process among several.

    Attributes:
        directory: shared by all, empty at first.
        number: place in the order, from 0.
    """

    directory: Path
    number: int

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the device, and hand it on afterwards; who dies hands it on too."""
        own = self._waiting(self.number)
        own.touch()
        with (self.directory / "device").open("w") as device:
            while not (self._is_first() and _locked(device.fileno())):
                time.sleep(_LOOK_EVERY)
            own.unlink(missing_ok=True)
            yield

    def give_up(self) -> None:
        """Wait no longer: of a process that was stopped, so that nobody waits for it."""
        self._waiting(self.number).unlink(missing_ok=True)

    def _waiting(self, number: int) -> Path:
        return self.directory / f"waiting-{number}"

    def _is_first(self) -> bool:
        return not any(self._waiting(number).exists() for number in range(self.number))


def _locked(descriptor: int) -> bool:
    """Whether the lock could be had at once; it is held until the file is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
