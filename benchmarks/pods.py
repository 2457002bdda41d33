"""Train steps at full size, compiled for slices of TPUs that are not here: memory, traffic, share of the peak.

    python -m benchmarks.pods [--out FILE] [--picture FILE] [--tiny]

Nothing runs: XLA compiles the step of each row of ``CASES`` for its slice. Time is XLA's own estimate of the
arithmetic and of the memory of one chip; the interconnect comes on top at its published rate, as if nothing overlapped,
so that the efficiency is a lower bound by these numbers, and no measurement. A row takes minutes of a core and is
written when it is there; the same command goes on with those that are not. Needs ``pip install 'diffpath[topology]'``.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure

from benchmarks import measure
from benchmarks.measure import Row
from benchmarks.tables import pod_state
from diffpath_jax.config import checks, files, sections
from diffpath_jax.devices import sharding
from diffpath_jax.io.files import write_json
from diffpath_jax.runs import topology
from diffpath_jax.runs.cost import RunShapes, bytes_on_one, shapes_of
from diffpath_jax.runs.topology import Traffic

ROOT = Path(__file__).parents[1]
RESULTS, PICTURE = ROOT / "benchmarks" / "results" / "pods.json", ROOT / "docs" / "pods.png"
PX, CLASSES, GIB = 128, 5, 2**30
CHIPS, SHARED_BY = (1, 4, 16, 64, 256), 64
# Bytes a second that a chip sends over all its links ("Cloud TPU system architecture").
INTERCONNECT = {"TPU v5 lite": 200e9, "TPU v5": 600e9}


@dataclass(frozen=True)
class Model:
    """A config, and how it is trained on a pod.

    Attributes:
        config: file of ``configs/`` and variant.
        batch: images a chip.
        stored: true where batches are stored latents.
    """

    config: str
    batch: int
    stored: bool = False


@dataclass(frozen=True)
class Case:
    """A model on a slice.

    Attributes:
        model: its name.
        slice: of TPUs.
        fsdp: chips that share a state; 1 copies it to each.
    """

    model: str
    slice: str
    fsdp: int

    @property
    def row(self) -> Row:
        """The values that name it in a table."""
        return {"model": self.model, "slice": self.slice, "fsdp": self.fsdp}


MODELS = {
    "ADM-256": Model("ddpm_pkgh224.py", 4),
    "ADM-128": Model("ddpm_pkgh224.py:small", 16),
    "LDM": Model("ldm_pkgh224.py", 32, stored=True),
    "VQGAN": Model("vqgan_f4_pkgh.py", 4),
}
CASES = (
    Case("ADM-256", "v5p:4x4x4", 64),
    Case("ADM-256", "v5p:4x4x4", 1),
    Case("LDM", "v5e:4x4", 1),
    Case("LDM", "v5e:8x8", 64),
    Case("ADM-128", "v5e:2x2", 1),
    Case("ADM-128", "v5e:16x16", 64),
    Case("VQGAN", "v5e:2x2", 1),
    Case("VQGAN", "v5e:16x16", 64),
)
# A debug network on one device of this machine.
TINY = (Case("ADM-256", "", 1),)


def config_of(model: Model, *, chips: int, fsdp: int, tiny: bool) -> sections.RunConfig:
    """Returns the config of a model on some chips, in one part a step."""
    name = f"{model.config.partition(':')[0]}:debug" if tiny else model.config
    content = files.load(str(ROOT / "configs" / name), [], checks.with_defaults)
    content["data"]["batch_size"] = model.batch * chips
    content["optim"]["accumulate"] = 1
    content["train"]["fsdp"] = fsdp
    return checks.run_config(content, where=name)


def sent_bytes(traffic: Mapping[str, Traffic], *, fsdp: int) -> float:
    """Returns the bytes that a chip sends in a step, by rings (Chan et al. 2007); bounds for many chips.

    Args:
        traffic: sizes of results by kind.
        fsdp: chips of a group whose sum is scattered.
    """
    times = {"all-reduce": 2.0, "reduce-scatter": fsdp - 1.0}
    return sum(times.get(kind, 1.0) * each.bytes for kind, each in traffic.items())


def compiled_row(case: Case, *, tiny: bool) -> Row:
    """Returns what the compiler says of a case."""
    start, model = time.process_time(), MODELS[case.model]
    devices = topology.slice_devices(case.slice) if case.slice else jax.devices()[:1]
    config, run = _shapes(model, chips=len(devices), fsdp=case.fsdp, tiny=tiny)
    mesh = sharding.make_mesh(devices, fsdp=case.fsdp)
    program = topology.describe(topology.compile_step(config, run, mesh), mesh)
    rate = INTERCONNECT.get(program.device_kind)
    sent = sent_bytes(program.traffic, fsdp=case.fsdp)
    link = sent / rate if rate else None
    return {
        **case.row,
        "chip": program.device_kind,
        "chips": program.devices,
        "batch a chip": model.batch,
        "arguments GiB": program.argument_bytes / GIB,
        "temporary GiB": program.temporary_bytes / GIB,
        "fits": "yes" if program.free_bytes >= 0 else "no",
        "TFLOP": program.flop / 1e12,
        **{f"{kind} MB": each.bytes / 1e6 for kind, each in program.traffic.items()},
        "sent MB": sent / 1e6,
        "step ms": 1e3 * program.seconds,
        "share of peak": program.share_of_peak if rate else None,
        "interconnect ms": 1e3 * link if link is not None else None,
        "efficiency": program.seconds / (program.seconds + link) if link is not None and program.seconds else None,
        "compile CPU s": time.process_time() - start,
    }


def state_rows(names: Sequence[str], *, tiny: bool) -> Iterator[Row]:
    """Yields the state that a chip holds where all chips, 64 at most, share it: by the rules, without compiling."""
    for name in names:
        for chips in CHIPS[:2] if tiny else CHIPS:
            fsdp = min(chips, SHARED_BY)
            state = _shapes(MODELS[name], chips=chips, fsdp=fsdp, tiny=tiny)[1].state
            places = sharding.state_shardings(state, sharding.abstract_mesh(chips, fsdp=fsdp))
            yield {"model": name, "chips": chips, "fsdp": fsdp, "state GiB": bytes_on_one(state, places) / GIB}


def _shapes(model: Model, *, chips: int, fsdp: int, tiny: bool) -> tuple[sections.RunConfig, RunShapes]:
    config = config_of(model, chips=chips, fsdp=fsdp, tiny=tiny)
    side = 16 if tiny else PX
    return config, shapes_of(config, image_px=(side, side), num_classes=CLASSES, stored=model.stored)


def draw(path: Path, content: Mapping[str, Any]) -> None:
    """Draw the memory of a chip against the chips that share the state, and each step with its traffic."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    memory, speed = figure.subplots(1, 2)
    for name in dict.fromkeys(row["model"] for row in content["state"]):
        rows = [row for row in content["state"] if row["model"] == name]
        (line,) = memory.plot([row["chips"] for row in rows], [row["state GiB"] for row in rows], label=name)
        own = [row for row in content["rows"] if row["model"] == name and row["fsdp"] > 1]
        whole = [row["arguments GiB"] + row["temporary GiB"] for row in own]
        memory.plot([row["chips"] for row in own], whole, "o", color=line.get_color())
    memory.set(xscale="log", yscale="log", xlabel="chips", ylabel="GiB a chip", title="state, split (dots: whole step)")
    memory.set_xticks(CHIPS, [str(chips) for chips in CHIPS])
    memory.minorticks_off()
    memory.legend()
    names = [
        f"{row['model']}, {row['chips']} {row['slice'].split(':')[0]}, {pod_state(row['fsdp'])}"
        for row in content["rows"]
    ]
    step = [row["step ms"] for row in content["rows"]]
    link = [row["interconnect ms"] or 0.0 for row in content["rows"]]
    speed.barh(names, step, height=0.6, label="chip")
    speed.barh(names, link, height=0.6, left=step, label="interconnect")
    speed.set(xlabel="ms a step, by XLA's estimate", title="nothing overlapping")
    # From above, with a line left for the legend.
    speed.set_ylim(len(names) + 0.2, -0.6)
    speed.legend(loc="lower right", ncols=2)
    figure.savefig(path, dpi=150)


def main(argv: Sequence[str] | None = None) -> int:
    """Compile what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="default: %(default)s")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="default: %(default)s")
    parser.add_argument(
        "--tiny", action="store_true", help="tiny networks on this machine's devices: to see that it works"
    )
    arguments = parser.parse_args(argv)
    jax.config.update("jax_platforms", "cpu")
    cases = TINY if arguments.tiny else CASES
    content = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {"rows": []}
    content |= {"machine": measure.machine()}
    content["state"] = list(state_rows(list(dict.fromkeys(case.model for case in cases)), tiny=arguments.tiny))
    for case in cases:
        if not any(case.row.items() <= row.items() for row in content["rows"]):
            content["rows"].append(compiled_row(case, tiny=arguments.tiny))
            write_json(arguments.out, content)
            print(measure.table(content["rows"][-1:]), flush=True)
    draw(arguments.picture, content)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
