"""Train step, forward pass and memory of ours against PyTorch, on the CPU, in float32.

    python -m benchmarks.training --out benchmarks/results/NAME.json [--settings small,adm128] [--compile]

Both networks are ADM of the same shape, with random parameters, in one process, and are timed in turns (A B A B ...).
PyTorch runs eagerly with its default settings; ``--compile`` adds ``torch.compile``. Seconds are wall-clock; memory is
the peak resident set of a process that takes a few train steps and imports only its own side. Needs ``torch``.
"""

import argparse
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.measure import Row, Times
from benchmarks.shapes import ADM_128, SMALL, TINY, Calls, Setting
from diffpath_jax.io.files import write_json

# The setting and the turns that are timed of its forward pass and train step.
SETTINGS = {
    "tiny": (Setting("tiny, 16 px, batch 2", TINY, 16, 2), 2, 2),
    "small": (Setting("64 channels, 64 px, batch 8", SMALL, 64, 8), 7, 5),
    "adm128": (Setting("128 channels, 128 px, batch 1", ADM_128, 128, 1), 5, 3),
}
# The module that loads each side.
SIDES = {"ours": "benchmarks.ours", "PyTorch": "benchmarks.torch_adm"}
MEMORY_STEPS = 3


def measure_speed(name: str, *, compiled: bool) -> list[Row]:
    """Seconds of the forward pass and of the train step, ours over PyTorch's."""
    from benchmarks import ours, torch_adm

    torch_adm.use_all_cores()
    setting, forward_rounds, step_rounds = SETTINGS[name]
    sides = {"ours": ours.load(setting), "PyTorch": torch_adm.load(setting)}
    if compiled:
        sides["PyTorch compiled"] = torch_adm.load(setting, torch_adm.Mode(compiled=True))
    parts: dict[str, tuple[Callable[[Calls], Callable[[], None]], int]] = {
        "forward": (lambda calls: calls.forward, forward_rounds),
        "train step": (lambda calls: calls.train_step, step_rounds),
    }
    rows = []
    for what, (pick, rounds) in parts.items():
        times = measure.interleaved({side: pick(calls) for side, calls in sides.items()}, rounds=rounds)
        rows += [_speed_row(setting, what, side, times, sides) for side in sides]
    return rows


def _speed_row(setting: Setting, what: str, side: str, times: dict[str, Times], sides: dict[str, Calls]) -> Row:
    own, ours = times[side], times["ours"]
    other = side != "ours"
    return {
        "setting": setting.name,
        "what": what,
        "side": side,
        "parameters": sides[side].parameters,
        "median s": own.median,
        "fastest s": own.fastest,
        "slowest s": own.slowest,
        "n": own.count,
        "compile s": sides[side].compile_seconds or None,
        "ours / this, medians": ours.median / own.median if other else None,
        "ours / this, fastest": ours.fastest / own.fastest if other else None,
    }


def measure_memory(name: str) -> list[Row]:
    """Peak memory of training, each side in a process of its own."""
    found = {side: _in_child(name, side) for side in SIDES}
    return [
        {
            "setting": SETTINGS[name][0].name,
            "side": side,
            "peak MiB": peak,
            "of it imports MiB": before,
            "ours / this": found["ours"][0] / peak if side != "ours" else None,
        }
        for side, (peak, before) in found.items()
    ]


def _in_child(name: str, side: str) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.training", "--settings", name, "--memory_of", side]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak, before = json.loads(done.stdout.splitlines()[-1])
    return peak, before


def peak_memory(name: str, side: str) -> tuple[float, float]:
    """MiB of this process after some train steps (compilation included), and before the network existed."""
    module = importlib.import_module(SIDES[side])
    before = _peak_mib()
    calls = module.load(SETTINGS[name][0])
    for _ in range(MEMORY_STEPS):
        calls.train_step()
    return _peak_mib(), before


def _peak_mib() -> float:
    """Peak resident set of this program; ``getrusage`` would count that of the program which started it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main(argv: list[str] | None = None) -> int:
    """Measure, write JSON, print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--settings", default="small,adm128", help="some of " + ", ".join(SETTINGS))
    parser.add_argument("--compile", action="store_true", help="time torch.compile too")
    parser.add_argument("--memory_of", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    names = options.settings.split(",")
    if options.memory_of:
        print(json.dumps(peak_memory(names[0], options.memory_of)))
        return 0
    content: dict[str, Any] = {"what": " ".join((__doc__ or "").split()), "machine": measure.machine()}
    content |= {"speed": [], "memory": [], "load_average": [measure.machine()["load_average"]]}
    for name in names:
        content["speed"] += measure_speed(name, compiled=options.compile)
        content["memory"] += measure_memory(name)
        content["load_average"].append(measure.machine()["load_average"])
        if options.out:
            write_json(options.out, content)
    print(measure.table(content["memory"]), measure.table(content["speed"]), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
