"""What the sections of ``benchmarks.accelerator`` measure, and how: traced beside others, then alone on the device."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax

from benchmarks import measure
from benchmarks.measure import Row
from benchmarks.shapes import LatentShape, Shape
from benchmarks.turns import Turns

# A call is repeated until about so many seconds are spent, within these bounds.
TIMED_SECONDS, FEWEST, MOST = 2.0, 3, 20

T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """One thing to measure: a network at a batch size, and how."""

    name: str
    shape: Shape | LatentShape
    px: int
    batch: int
    remat: bool = False
    how: Any = None
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def row(self) -> Row:
        """What names it in a table."""
        flags = "".join(f", {name}={value}" for name, value in self.options)
        row: Row = {"network": self.name + (", remat" if self.remat else "") + flags, "batch": self.batch}
        return row | ({"how": self.how.name} if self.how else {})


@dataclass(frozen=True)
class Context:
    """What a section is given.

    Attributes:
        deadline: ``time.monotonic()`` at which it should be done.
        peak: FLOP a second in bfloat16; 0 where unknown.
        tiny: tiny shapes.
        patches: images of the short run, if any.
        out: where pictures go.
        turns: when this process may measure.
        part: the case that it measures; none means all.
    """

    deadline: float
    peak: float
    tiny: bool
    patches: Path | None
    out: Path
    turns: Turns
    part: int | None = None

    def pick(self, cases: Sequence[T]) -> list[T]:
        """All cases, or the one that this process has."""
        return list(cases) if self.part is None else [cases[self.part]]

    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.monotonic()

    def share(self, flop_per_second: float) -> float | None:
        """Part of the peak."""
        return flop_per_second / self.peak if self.peak else None


# Measures a case: its programs are traced already, but nothing has touched the device yet.
Measurement = Callable[[], Row]


def one_by_one(
    cases: Sequence[Case], prepare: Callable[[Context, Case], Measurement], context: Context
) -> Iterator[Row]:
    """Trace all cases, and then, when it is this process's turn, compile and time one after the other."""
    prepared = [_promise(prepare, context, case) for case in cases]
    with context.turns.turn():
        for case, measurement in zip(cases, prepared, strict=True):
            yield {**case.row, **reported(lambda measurement=measurement: measurement.result()())}


def _promise(function: Callable[..., T], *inputs: Any) -> "Future[T]":
    """What a call gives or raises, to be asked for later."""
    future: Future[T] = Future()
    try:
        future.set_result(function(*inputs))
    except Exception as error:
        future.set_exception(error)
    return future


def compiled_together(
    cases: Sequence[Case], prepare: Callable[[Context, Case], Measurement], context: Context
) -> Iterator[Row]:
    """Many small cases: when it is this process's turn, ``prepare`` compiles all at once; then they are timed."""
    with context.turns.turn():
        with ThreadPoolExecutor(max(measure.cores() - 1, 1)) as pool:
            prepared = [pool.submit(prepare, context, case) for case in cases]
        for case, measurement in zip(cases, prepared, strict=True):
            yield {**case.row, **reported(lambda measurement=measurement: measurement.result()())}


def reported(measurement: Measurement) -> Row:
    """What was measured, or why not."""
    try:
        return measurement()
    except Exception as error:
        return {"left out": " ".join(str(error).split())[:300] or type(error).__name__}


def timed(call: Callable, *inputs: Any, calls: int = 1, seconds: float = TIMED_SECONDS) -> measure.Times:
    """Seconds of a call, repeated as often as there is time for; waited for after every ``calls`` of them."""

    def finished() -> None:
        jax.block_until_ready([call(*inputs) for _ in range(calls)])

    finished()
    first = measure.seconds_of(finished)
    rounds = min(max(int(seconds / first), FEWEST), MOST)
    times = measure.repeated(finished, rounds=rounds, warmup=0)
    return measure.Times(times.median / calls, times.fastest / calls, times.slowest / calls, times.count)


def planned_bytes(compiled: jax.stages.Compiled) -> float:
    """Device memory that a program needs: inputs, outputs that take none of theirs, and temporary buffers."""
    found = compiled.memory_analysis()
    if found is None:
        return float("nan")
    own = found.output_size_in_bytes - found.alias_size_in_bytes
    return float(found.argument_size_in_bytes + own + found.temp_size_in_bytes)


def peak_bytes() -> float:
    """Most memory in use since this process began; 0 where the device does not say."""
    return float((jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0))
