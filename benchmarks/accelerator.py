"""Everything that needs an accelerator, in one run of a few minutes.

    python -m benchmarks.accelerator --out DIRECTORY [--minutes 9] [--patches FILE.npz] [--sections a,b] [--tiny]

Sections (see ``benchmarks.sections``), each in a process of its own, so that each has the whole memory and none can
overrun or take the others with it:

    peak         FLOP a second of large matrix products
    correctness  accelerator against CPU in float32
    training     images a second, share of the peak, memory and compile time of ADM in bfloat16
    torch        the same networks in PyTorch (left out where that is missing)
    sampling     images a second, share of the limit, cost of the sampling loop and of guidance
    run          a short training run on real patches (``benchmarks.make_patches``), its loss and samples

What finds no time is left out and said to be. Writes ``accelerator.json`` after every section, prints tables last.
Needs JAX, Flax, Optax and NumPy; PyTorch and Matplotlib are used where they are. ``--tiny`` shows that it works.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import measure
from benchmarks.measure import Row
from diffpath_jax.io.files import write_json

# Section: its part of the time. What one leaves over goes to the next.
WEIGHTS = {"peak": 2, "correctness": 4, "training": 8, "torch": 5, "sampling": 6, "run": 4}
# Seconds below which a section is not begun, and the factor by which it may overrun before it is stopped.
LEAST_SECONDS = 15
PATIENCE = 1.3
# Sections that compile nothing for the accelerator through JAX must not take its memory.
_ENVIRONMENT = {"torch": {"JAX_PLATFORMS": "cpu"}}


@dataclass(frozen=True)
class Result:
    """What became of a section.

    Attributes:
        section: its name.
        status: ``ok``; ``stopped`` (out of time; its rows count); ``skipped`` (not begun); ``failed``.
        seconds: how long it took.
        rows: what was measured; a row with ``left out`` says what was not.
        why: reason, unless it is ``ok``.
    """

    section: str
    status: str
    seconds: float
    rows: list[Row]
    why: str = ""


def share_of_time(section: str, remaining: list[str], left: float) -> float:
    """Seconds for a section, of those left for it and all that remain."""
    return left * WEIGHTS[section] / sum(WEIGHTS[name] for name in remaining)


def run_section(section: str, options: argparse.Namespace, *, seconds: float, left: float, peak: float) -> Result:
    """Run a section in a process of its own."""
    if seconds < LEAST_SECONDS:
        return Result(section, "skipped", 0.0, [], f"{seconds:.0f} s are left for it")
    environment = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95", **os.environ, **_ENVIRONMENT.get(section, {})}
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "rows.jsonl"
        command = [sys.executable, "-m", "benchmarks.sections", section, "--rows", str(path), "--out", str(options.out)]
        command += ["--seconds", f"{seconds:.1f}", "--peak", repr(peak)]
        command += ["--patches", str(options.patches)] if options.patches else []
        command += ["--tiny"] if options.tiny else []
        status, why = _wait(command, environment, min(left, seconds * PATIENCE))
        lines = path.read_text().splitlines() if path.exists() else []
    return Result(section, status, time.monotonic() - start, [json.loads(line) for line in lines], why)


def _wait(command: list[str], environment: dict[str, str], seconds: float) -> tuple[str, str]:
    """Run a command; its status and, if it did not end well, why."""
    try:
        done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return "stopped", f"still at work after {seconds:.0f} s"
    if done.returncode == 0:
        return "ok", ""
    return "failed", "\n".join(done.stderr.strip().splitlines()[-15:])


def peak_of(results: list[Result]) -> float:
    """FLOP a second in bfloat16, if measured; else 0."""
    rows = [row for result in results if result.section == "peak" for row in result.rows]
    return next((float(row["TFLOP/s"] or 0) * 1e12 for row in rows if row.get("what") == "bfloat16"), 0.0)


def tables(results: list[Result]) -> str:
    """All results as text."""
    parts = []
    for result in results:
        why = f" ({result.why})" if result.why else ""
        parts.append(f"== {result.section}: {result.status}{why}, {result.seconds:.0f} s")
        parts += [measure.table(result.rows)] if result.rows else []
    return "\n".join(parts)


def main(argv: list[str] | None = None) -> int:
    """Run the sections in turn; the exit code is 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")), help="default: $OUT, or here")
    parser.add_argument("--minutes", type=float, default=9.0, help="time for everything")
    parser.add_argument("--patches", type=Path, help="file of benchmarks.make_patches")
    parser.add_argument("--sections", default=",".join(WEIGHTS), help="which to run")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes: only to see that it works")
    options = parser.parse_args(argv)
    remaining = options.sections.split(",")
    if unknown := set(remaining) - set(WEIGHTS):
        parser.error(f"unknown sections {', '.join(sorted(unknown))}; known are {', '.join(WEIGHTS)}")
    end = time.monotonic() + 60 * options.minutes
    about = measure.machine()
    results: list[Result] = []
    while remaining:
        left = end - time.monotonic()
        section = remaining[0]
        seconds = share_of_time(section, remaining, left)
        results.append(run_section(section, options, seconds=seconds, left=left, peak=peak_of(results)))
        remaining.pop(0)
        content = {"machine": about, "tiny": options.tiny, "sections": [asdict(result) for result in results]}
        write_json(options.out / "accelerator.json", content)
        print(tables(results[-1:]), flush=True)
    print("\n" + tables(results))
    return int(any(result.status == "failed" for result in results))


if __name__ == "__main__":
    sys.exit(main())
