"""Processes that prepare side by side and measure one at a time, in order. Standard library only.

XLA compiles a program on one core and needs minutes for a large one, so all are compiled at once; but what is measured
must have the device to itself. Each process tells that it is ready and waits until all are and it is its turn.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_LOOK_EVERY = 0.2


@dataclass(frozen=True)
class Turns:
    """The place of one process among several.

    Attributes:
        directory: shared by all, empty at first.
        number: place in the order, from 0.
        count: how many there are.
        until: ``time.time()`` after which nobody waits for those who are not ready.
    """

    directory: Path
    number: int
    count: int
    until: float

    def ready(self) -> None:
        """Tell that nothing more needs to be prepared."""
        (self.directory / f"ready-{self.number}").touch()

    def done(self) -> None:
        """Tell that the device is free: measured, failed or given up."""
        self.ready()
        (self.directory / f"done-{self.number}").touch()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for one's turn, and hand on afterwards."""
        self.ready()
        while not self._mine():
            time.sleep(_LOOK_EVERY)
        try:
            yield
        finally:
            self.done()

    def _mine(self) -> bool:
        late = time.time() > self.until
        for number in range(self.count):
            is_ready = (self.directory / f"ready-{number}").exists()
            if not is_ready and not late:
                return False
            if number < self.number and is_ready and not (self.directory / f"done-{number}").exists():
                return False
        return True
