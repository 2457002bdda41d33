"""Timing, a description of the machine, tables and JSON: what all benchmarks share. Needs the standard library only."""

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Value = str | float | int | None
# One line of a table: name of the column -> value.
Row = dict[str, Value]
_PACKAGES = ("numpy", "jax", "jaxlib", "libtpu", "flax", "optax", "torch", "diffusers", "triton")


@dataclass(frozen=True)
class Times:
    """Seconds of repeated calls: their median, the fastest, the slowest, and how many there were."""

    median: float
    fastest: float
    slowest: float
    count: int

    def shown(self) -> str:
        """Median and range."""
        return f"{self.median:.3g} ({self.fastest:.3g}-{self.slowest:.3g})"


def times_of(seconds: Sequence[float]) -> Times:
    """Sum up measured seconds."""
    return Times(statistics.median(seconds), min(seconds), max(seconds), len(seconds))


def seconds_of(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds that one call takes."""
    start = clock()
    call()
    return clock() - start


def in_turns(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of several calls in turns (A B A B ...), so that a slow moment of the machine meets all of them.

    Args:
        calls: what to time; each must return only when its work is done.
        rounds: turns that count.
        warmup: turns before them that do not.
        clock: wall-clock, or the processor time of this process where others load the machine.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warmup + rounds):
        for name, call in calls.items():
            seconds = seconds_of(call, clock)
            if turn >= warmup:
                taken[name].append(seconds)
    return taken


def interleaved(calls: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 1) -> dict[str, Times]:
    """The sum of what :func:`in_turns` measures."""
    return {name: times_of(seconds) for name, seconds in in_turns(calls, rounds=rounds, warmup=warmup).items()}


def median_ratio(seconds: Sequence[float], base: Sequence[float]) -> float:
    """Median over the turns of one call's time over another's in the same turn: steadier than the ratio of medians."""
    return statistics.median(own / other for own, other in zip(seconds, base, strict=True))


def repeated(call: Callable[[], object], *, rounds: int, warmup: int = 1) -> Times:
    """Time one call alone."""
    return interleaved({"": call}, rounds=rounds, warmup=warmup)[""]


def machine() -> dict[str, object]:
    """What the numbers were measured on: processor, cores, memory and how it is allocated, load, and versions."""
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_average": list(os.getloadavg()),
        "allocator": os.environ.get("GLIBC_TUNABLES", "as glibc has it"),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **_versions()},
    }


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _field(path: str, name: str) -> str:
    """The first ``name : value`` of a file of the kernel, or nothing."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def table(rows: Sequence[Mapping[str, Value]]) -> str:
    """Rows as aligned text; a row need not have every column."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, *([_cell(row.get(name)) for name in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines)


def _cell(value: Value) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
