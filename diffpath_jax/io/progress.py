"""Progress of long work: a bar with rate and time left on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import rich.console
import rich.progress

console = rich.console.Console(stderr=True, highlight=False)
# Without a terminal (a cluster's log file) a line is printed this often.
LINE_SECONDS = 20.0

T = TypeVar("T")


class Progress:
    """Counts units of work (images, fields) and shows their rate."""

    def __init__(self, bar: rich.progress.Progress | None, title: str, total: int, done: int, unit: str) -> None:
        self._bar = bar
        self._title, self._total, self._unit = title, total, unit
        self._start_time = self._line_time = time.monotonic()
        self._start_done = self._done = done
        self._rate = 0.0
        self._task = bar.add_task(title, total=total, completed=done, note="") if bar else None

    @property
    def rate(self) -> float:
        """Units a second since the start of this process."""
        return self._rate

    def skip(self, count: int) -> None:
        """Say that ``count`` more units were done by an earlier run; they do not count for the rate."""
        self._start_done += count
        self.advance(count)

    def advance(self, count: int, note: str = "") -> None:
        """Say that ``count`` more units are done."""
        self._done += count
        now = time.monotonic()
        self._rate = (self._done - self._start_done) / max(now - self._start_time, 1e-9)
        text = f"{self._rate:.1f} {self._unit}/s {note}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, note=text)
        elif now - self._line_time > LINE_SECONDS or self._done == self._total:
            self._line_time = now
            left = (self._total - self._done) / max(self._rate, 1e-9)
            console.print(
                f"{self._title} {self._done}/{self._total}, {text}, {left:.0f} s left",
                soft_wrap=True,
                markup=False,
            )

    def each(self, items: Iterable[T]) -> Iterator[T]:
        """Yields units of work, and counts each as done when the next is asked for."""
        for item in items:
            yield item
            self.advance(1)


@contextmanager
def track(title: str, *, total: int, done: int = 0, unit: str) -> Iterator[Progress]:
    """Show progress of ``total`` units, ``done`` of which were done by an earlier run."""
    if not console.is_terminal:
        yield Progress(None, title, total, done, unit)
        return
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TextColumn("left"),
        rich.progress.TimeRemainingColumn(elapsed_when_finished=False),
        rich.progress.TextColumn("{task.fields[note]}"),
    )
    with rich.progress.Progress(*columns, console=console) as bar:
        yield Progress(bar, title, total, done, unit)
