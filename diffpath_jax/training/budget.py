"""A budget in minutes: the time that a run has used, over all its starts, and the share of it that schedules follow."""

import time
from dataclasses import dataclass, field

import numpy as np

from diffpath_jax.devices import processes, sharding
from diffpath_jax.io.progress import console
from diffpath_jax.shapes import Tree

# Name, in the state of a run, of the seconds that it had used when its last step began.
SECONDS = "seconds"


@dataclass
class Budget:
    """The time that a run may take, on the first process's clock.

    Everything counts from the moment that a start reads its state on: compiling, looks and checkpoints too. What a
    start did after its last checkpoint is lost with it, and so is its time.

    Attributes:
        minutes: of all starts together; 0 for any.
        before: seconds of earlier starts.
        is_over: true once a step began at the end of the budget: it is the last.
        start: when this start began.
    """

    minutes: float
    before: float = 0.0
    is_over: bool = False
    start: float = field(default_factory=lambda: time.monotonic())

    @property
    def seconds(self) -> float:
        """Seconds used so far."""
        return self.before + time.monotonic() - self.start

    def recall(self, opt_state: Tree) -> None:
        """Take up the time that a run had used."""
        self.before = float(opt_state[SECONDS]) if self.minutes else 0.0
        self.is_over = self._reaches(self.before)

    def charge(self, opt_state: Tree) -> Tree:
        """Returns the state for the next step, with the time used until it begins; all processes agree on that."""
        if not self.minutes:
            return opt_state
        seconds = processes.agreed(round(1000 * self.seconds)) / 1000
        self.is_over = self._reaches(seconds)
        place = opt_state[SECONDS].sharding
        return {**opt_state, SECONDS: sharding.from_host(np.asarray(seconds, np.float32), place)}

    def _reaches(self, seconds: float) -> bool:
        return 0 < 60 * self.minutes <= seconds

    def say_compiled(self) -> None:
        """Tell how much of the budget is gone before the first step."""
        if self.minutes and processes.is_first():
            used = self.seconds - self.before
            text = f"budget: {used:.0f} s until the first step, compiling included, of {self.minutes:g} minutes"
            console.print(text + (f", {self.before:.0f} s used before" if self.before else ""), soft_wrap=True)
