"""Everything that needs an accelerator, in one run of a few minutes.

    python -m benchmarks.accelerator --out DIRECTORY [--minutes 8] [--patches FILE.npz] [--sections a,b] [--tiny]

Sections (see ``benchmarks.sections``):

    peak         FLOP a second of large matrix products
    convolution  every distinct convolution with both gradients in bfloat16: what fails, how fast the rest is
    correctness  accelerator against CPU in float32
    training     images a second, share of the peak, memory and compile time in bfloat16
    profile      kinds of kernels in a train step
    sampling     images a second, share of the limit, cost of the sampling loop and of guidance
    flags        the train step with one option of XLA at a time
    torch        the same networks in PyTorch (left out where that is missing)
    run          a short training run on real patches (``benchmarks.make_patches``), its loss and samples

Every case is a process of its own. Several trace their programs at the same time; then each has the device to itself
while it compiles and measures (see ``benchmarks.turns``). PyTorch compiles beside the others. Writes
``accelerator.json`` whenever one ends, prints tables last. Needs JAX, Flax, Optax, NumPy and pydantic; PyTorch and
Matplotlib are used where they are. ``--tiny`` shows that it works.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import measure
from benchmarks.measure import Row
from benchmarks.turns import Turns
from diffpath_jax.io.files import write_json

# The sections, in the order in which they may use the device, and the processes of each. PyTorch needs minutes to
# compile, and begins first; the peak is needed by all others.
PARTS = {
    "torch": 4,
    "training": 4,
    "sampling": 3,
    "profile": 3,
    "flags": 4,
    "convolution": 1,
    "correctness": 1,
    "run": 1,
}
SECTIONS = ("peak", *PARTS)
# Seconds below which a part is not begun.
LEAST_SECONDS = 20
# Sections that compile nothing for the accelerator through JAX must not take its memory.
_ENVIRONMENT = {"torch": {"JAX_PLATFORMS": "cpu"}}


@dataclass(frozen=True)
class Part:
    """One process: a section, or one of its cases."""

    section: str
    number: int | None = None


@dataclass(frozen=True)
class Result:
    """What became of a section or of one of its parts.

    Attributes:
        section: its name.
        part: which of its cases; none for all.
        status: ``ok``; ``stopped`` (out of time; its rows count); ``skipped`` (not begun); ``failed``.
        seconds: how long it took, waiting included.
        rows: what was measured; a row with ``left out`` says what was not.
        why: reason, unless it is ``ok``.
    """

    section: str
    part: int | None
    status: str
    seconds: float
    rows: list[Row]
    why: str = ""


def parts_of(words: list[str], *, tiny: bool) -> list[Part]:
    """The processes that were asked for (``training``, ``training:0``), in the order of their turns; the peak aside."""
    parts = []
    for section, count in PARTS.items():
        if section in words:
            several = count > 1 and not tiny
            parts += [Part(section, number) for number in range(count)] if several else [Part(section)]
        parts += [Part(section, number) for number in range(count) if f"{section}:{number}" in words]
    return parts


def run_parts(parts: list[Part], options: argparse.Namespace, *, end: float, peak: float) -> Iterator[Result]:
    """Run processes side by side, as many as there are cores for; gives each result when it is there."""
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(measure.cores() // 2 + 1) as pool:
        running = [
            pool.submit(run_part, part, options, turns=Turns(Path(directory), number), end=end, peak=peak)
            for number, part in enumerate(parts)
        ]
        for done in as_completed(running):
            yield done.result()


def run_part(part: Part, options: argparse.Namespace, *, turns: Turns, end: float, peak: float) -> Result:
    """Run a section, or a part of it, in a process of its own; ``end`` is a ``time.monotonic()``."""
    if (left := end - time.monotonic()) < LEAST_SECONDS:
        return Result(part.section, part.number, "skipped", 0.0, [], f"{max(left, 0):.0f} s are left")
    # Memory is taken as it is needed, as all processes share the device; a program is compiled once.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(turns.directory / "compiled")}
    environment = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        **cache,
        **os.environ,
        **_ENVIRONMENT.get(part.section, {}),
    }
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "rows.jsonl"
        command = [sys.executable, "-m", "benchmarks.sections", part.section, "--rows", str(path)]
        command += ["--out", str(options.out), "--seconds", f"{end - start:.1f}", "--peak", repr(peak)]
        command += ["--turns", str(turns.directory), str(turns.number)]
        command += ["--patches", str(options.patches)] if options.patches else []
        command += ["--part", str(part.number)] if part.number is not None else []
        command += ["--tiny"] if options.tiny else []
        status, why = _wait(command, environment, end - start)
        turns.give_up()
        lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return Result(part.section, part.number, status, time.monotonic() - start, rows, why)


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
    for section in SECTIONS:
        own = [result for result in results if result.section == section]
        for result in own:
            number = "" if result.part is None else f" {result.part}"
            why = f" ({result.why})" if result.why else ""
            parts.append(f"== {section}{number}: {result.status}{why}, {result.seconds:.0f} s")
        rows = [row for result in own for row in result.rows]
        parts += [measure.table(rows)] if rows else []
    return "\n".join(parts)


def main(argv: list[str] | None = None) -> int:
    """Run the sections; the exit code is 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")), help="default: $OUT, or here")
    parser.add_argument("--minutes", type=float, default=8.0, help="time for everything")
    parser.add_argument("--patches", type=Path, help="file of benchmarks.make_patches")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="which to run; training:0 is one part of one")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes: only to see that it works")
    options = parser.parse_args(argv)
    words = options.sections.split(",")
    if unknown := {word.partition(":")[0] for word in words} - set(SECTIONS):
        parser.error(f"unknown sections {', '.join(sorted(unknown))}; known are {', '.join(SECTIONS)}")
    end = time.monotonic() + 60 * options.minutes
    about = measure.machine()
    results: list[Result] = []
    for parts in ([Part("peak")] if "peak" in words else [], parts_of(words, tiny=options.tiny)):
        for result in run_parts(parts, options, end=end, peak=peak_of(results)):
            results.append(result)
            content = {"machine": about, "tiny": options.tiny, "sections": [asdict(result) for result in results]}
            write_json(options.out / "accelerator.json", content)
            print(tables([result]), flush=True)
    print("\n" + tables(results))
    return int(any(result.status == "failed" for result in results))


if __name__ == "__main__":
    sys.exit(main())
