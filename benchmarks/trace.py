"""Where the time of a step goes, from a profile of JAX's own profiler: kernels by kind, and what they leave idle."""

import re
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jax

from benchmarks.measure import Row

# Kind of kernel: names that tell it. The first that fits counts.
KINDS = {
    "attention": r"fmha|flash|sdpa",
    "convolution": r"convolution|fprop|dgrad|wgrad|implicit|xmma.*nhwc|cudnn",
    "matrix product": r"gemm|nvjet|cutlass|matmul|_dot",
    "copy": r"memcpy|memset|copy|transpose|nchw|nhwc",
    "reduction": r"reduce",
    "elementwise": r"",
}


def shares(call: Callable[[], object], calls: int = 3) -> list[Row]:
    """Milliseconds a call, share and kernels a call of each kind, and of the longest kernels; idle time as well."""
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            jax.block_until_ready([call() for _ in range(calls)])
        (path,) = Path(directory).rglob("*.xplane.pb")
        events = _kernels(jax.profiler.ProfileData.from_file(str(path)))
    if not events:
        return [{"left out": "the profile shows no kernels"}]
    span = max(end for _, _, end in events) - min(start for _, start, _ in events)
    taken: Counter[str] = Counter()
    number: Counter[str] = Counter()
    kernels: Counter[str] = Counter()
    for name, start, end in events:
        kind = next(kind for kind, pattern in KINDS.items() if re.search(pattern, name.lower()))
        taken[kind] += end - start
        number[kind] += 1
        kernels[name] += end - start
    rows = [_row(kind, taken[kind], number[kind], span, calls) for kind in KINDS if number[kind]]
    rows.append(_row("idle", span - _covered(events), 0, span, calls))
    return rows + [_row(name[:90], time, 0, span, calls) for name, time in kernels.most_common(25)]


def _covered(events: list[tuple[str, float, float]]) -> float:
    """Nanoseconds in which at least one kernel runs; those of several streams may run at the same time."""
    covered, until = 0.0, float("-inf")
    for _, start, end in sorted(events, key=lambda event: event[1]):
        covered += max(end - max(start, until), 0.0)
        until = max(until, end)
    return covered


def _row(what: str, nanoseconds: float, number: int, span: float, calls: int) -> Row:
    return {
        "what": what,
        "ms": nanoseconds / 1e6 / calls,
        "share": nanoseconds / span,
        "kernels": number / calls or None,
    }


def _kernels(profile: jax.profiler.ProfileData) -> list[tuple[str, float, float]]:
    """(name, start, end) in ns of what ran on the GPU's streams."""
    found = []
    for plane in profile.planes:
        if not plane.name.startswith("/device:GPU"):
            continue
        for line in plane.lines:
            if line.name.startswith("Stream"):
                found += [(event.name, event.start_ns, event.start_ns + event.duration_ns) for event in line.events]
    return found
