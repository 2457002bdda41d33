"""The tables in docs/SPEED.md and docs/EVALUATION.md, made from ``benchmarks/results``.

    python -m benchmarks.tables [--write]

Prints each block; ``--write`` puts it between its marks in its page, where a test looks for the very same text.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.duel import summary

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SPEED, EVALUATION = (ROOT / "docs" / name for name in ("SPEED.md", "EVALUATION.md"))
# Time of ours over PyTorch's at most, and share of the peak at least.
CPU_GOALS = {"forward": 1.15, "train step": 1.45, "memory": 2.0}
SHARE_GOALS = {"ADM 256 channels": 0.5, "ADM 128 channels": 0.4}
SAMPLING_GOAL = 0.6
# Distance over the floor, ours over theirs, at most.
DUEL_GOAL = 0.7
NAMES = {
    "128 channels, 128 px, batch 1": "ADM, 128 channels (105 M), 128 px, batch 1",
    "64 channels, 64 px, batch 8": "64 channels (7.7 M), 64 px, batch 8",
}
# Devices whose run measured its own peak as it should; the first one waited after every single product.
SOUND_PEAKS = ("h200",)
DEVICES = {"h200": "H200", "h100": "H100"}
KINDS = ("convolution", "reduction", "elementwise", "matrix product", "copy", "attention")

Rows = list[dict[str, Any]]


def cpu_training() -> Iterator[str]:
    """Time of our forward pass and train step over PyTorch's, and memory."""
    content = json.loads((RESULTS / "cpu-2core.json").read_text(encoding="utf-8"))
    yield from _head("network", "forward", "train step", "peak memory")
    for setting, name in NAMES.items():
        speed = {
            row["what"]: row["ours / this, medians"]
            for row in content["speed"]
            if (row["setting"], row["side"]) == (setting, "PyTorch")
        }
        memory = {row["side"]: row["peak MiB"] for row in content["memory"] if row["setting"] == setting}
        values = {**speed, "memory": memory["ours"] / memory["PyTorch"]}
        cells = (_judged(f"{values[what]:.2f}", missed=values[what] > goal) for what, goal in CPU_GOALS.items())
        yield _line(name, *cells)


def gpu() -> Iterator[str]:
    """Training and sampling in bfloat16 on GPUs, beside compiled PyTorch of the same run."""
    found = {name: _sections(name) for name in DEVICES}
    peak = _peak(found["h200"])
    yield f"The peak is {peak:.0f} TFLOP/s, what large bfloat16 products of random numbers reached in the same run."
    yield ""
    yield from _head(
        "bfloat16, 128 px",
        "GPU",
        "images / s",
        "TFLOP/s",
        "of the peak",
        "compiled PyTorch, images / s",
        "ours over it",
    )
    for device, sections in found.items():
        torch = {(row["network"], row["what"]): row for row in sections["torch"] if "compiled" in row.get("how", "")}
        for row in sorted(sections["training"], key=lambda row: row["img/s"]):
            yield _training_line(device, row, torch.get((row["network"], "train step")))
        for row in sections["sampling"]:
            forward = torch.get((row["network"], "forward")) if row["how"] == "network alone" else None
            yield _sampling_line(device, row, forward, peak)
    yield ""
    for row in found["h200"]["training"]:
        yield _profile_line(row, found["h200"]["profile"])


def duel() -> Iterator[str]:
    """Distances over the floor in the spaces that count, and ours over the best of theirs."""
    content = json.loads((RESULTS / "duel.json").read_text(encoding="utf-8"))
    spaces = {name: space for name, space in content["spaces"].items() if space["counts"]}
    yield from _head("distance over the floor", *spaces)
    for row in summary.rows(spaces):
        yield _line(*map(str, row.values()))
    for name in next(iter(content["compared"].values()))["ratios"]:
        ratios = [content["compared"][space]["ratios"][name] for space in spaces]
        yield _line(f"{name} over the best of theirs", *map(_ratio, ratios))


def pods() -> Iterator[str]:
    """Train steps compiled for slices of TPUs that were not there."""
    content = json.loads((RESULTS / "pods.json").read_text(encoding="utf-8"))
    yield from _head(
        "network, images a chip",
        "slice",
        "state",
        "GiB a chip: state and batch + temporary",
        "sent a chip, MB",
        "ms a step + interconnect",
        "of the peak",
        "efficiency",
    )
    for row in content["rows"]:
        yield _line(
            f"{row['model']}, {row['batch a chip']}",
            row["slice"],
            pod_state(row["fsdp"]),
            f"{row['arguments GiB']:.2f} + {row['temporary GiB']:.2f}{'' if row['fits'] == 'yes' else ', too much'}",
            f"{row['sent MB']:,.0f}",
            f"{row['step ms']:.1f} + {row['interconnect ms']:.1f}",
            f"{row['share of peak']:.0%}",
            f"{row['efficiency']:.0%}",
        )
    yield ""
    yield "State of a chip by how many share it, as the rules split it (a test asks for less than a 32nd at 64):"
    yield ""
    shared = {(row["model"], row["fsdp"]): row["state GiB"] for row in content["state"]}
    counts = sorted({fsdp for _, fsdp in shared})
    yield from _head("GiB a chip", *map(str, counts))
    for model in dict.fromkeys(model for model, _ in shared):
        yield _line(model, *(f"{shared[model, count]:.3g}" for count in counts))


def pod_state(fsdp: int) -> str:
    """Returns how chips hold a state, by how many share it."""
    return f"split over {fsdp}" if fsdp > 1 else "copied"


def variations() -> Iterator[str]:
    """What samples that are told features of images have of these, and what that costs."""
    content = json.loads((RESULTS / "variations.json").read_text(encoding="utf-8"))
    agreement, sets = content["agreement"], content["sets"]
    spaces = list(next(iter(agreement.values())))
    floor = next(iter(sets.values()))["floor"]
    columns = [f"agreement, {space}: all (same class; mirrored reference)" for space in spaces]
    yield from _head("drawn", *columns, f"distance (floor {floor:.2f})", "recall", "flagged as copies")
    for name, row in sets.items():
        found = [agreement[name][space] for space in spaces] if name in agreement else []
        texts = [f"{each['all']:.3f} ({each['same class']:.3f}; {each['mirrored']:.3f})" for each in found]
        cells = texts or [""] * len(spaces)
        yield _line(name, *cells, f"{row['distance']:.2f}", f"{row['recall']:.2f}", f"{row['flagged']:.2%}")


def _ratio(found: dict[str, float | None]) -> str:
    """A ratio beside its goal; one without a value is that of a distance at the floor."""
    if found["ratio"] is None:
        return "at the floor"
    interval = f" ({found['low']:.2f} to {found['high']:.2f})" if found["low"] is not None else ""
    return _judged(f"{found['ratio']:.2f}{interval}", missed=found["ratio"] > DUEL_GOAL, goal=f"goal {DUEL_GOAL}")


def _training_line(device: str, row: dict[str, Any], torch: dict[str, Any] | None) -> str:
    goal = SHARE_GOALS.get(row["network"])
    share = "" if device not in SOUND_PEAKS else f"{row['share of peak']:.0%}"
    if share and goal:
        share = _judged(share, missed=row["share of peak"] < goal, goal=f"goal {goal:.0%}")
    name = f"train step, {row['network']}, batch {row['batch']} ({row['peak GiB so far']:.1f} GiB)"
    return _compared(name, DEVICES[device], row["img/s"], f"{row['TFLOP/s']:.0f}", share, torch)


def _sampling_line(device: str, row: dict[str, Any], torch: dict[str, Any] | None, peak: float) -> str:
    alone = row["how"] == "network alone"
    share = row["share of limit"]
    judged = f"{share:.0%}" if alone else _judged(f"{share:.0%}", missed=share < SAMPLING_GOAL, goal="goal 60%")
    name = f"{'forward pass' if alone else row['how']}, {row['network']}, batch {row['batch']}"
    return _compared(name, DEVICES[device], row["img/s"], f"{share * peak:.0f}", judged, torch)


def _compared(name: str, device: str, rate: float, tflops: str, share: str, torch: dict[str, Any] | None) -> str:
    other = (f"{torch['img/s']:.0f}", f"{rate / torch['img/s']:.2f}") if torch else ("", "")
    return _line(name, device, f"{rate:.3g}" if rate < 100 else f"{rate:.0f}", tflops, share, *other)


def _profile_line(training: dict[str, Any], profile: Rows) -> str:
    """Shares of the time in which kernels run; those of two streams may run at the same time."""
    of_kind = {row["what"]: row["ms"] for row in profile if row["network"] == training["network"]}
    total = sum(of_kind[kind] for kind in KINDS)
    shares = ", ".join(f"{kind} {of_kind[kind] / total:.0%}" for kind in KINDS)
    return f"Kernels of a train step of {training['network']} on the H200: {shares}."


def _sections(name: str) -> dict[str, Rows]:
    """Rows of a device by section; those of earlier states of the code, which have no part, are left out."""
    content = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    rows: dict[str, Rows] = {section: [] for section in ("peak", "training", "sampling", "torch", "profile")}
    for section in content["sections"]:
        if section["part"] is not None or section["section"] == "peak":
            rows.setdefault(section["section"], []).extend(section["rows"])
    return rows


def _peak(sections: dict[str, Rows]) -> float:
    return next(row["TFLOP/s"] for row in sections["peak"] if row["what"] == "bfloat16")


def _head(*names: str) -> Iterator[str]:
    yield _line(*names)
    yield _line(*("---" for _ in names))


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _judged(text: str, *, missed: bool, goal: str = "") -> str:
    """A number beside its goal."""
    if missed:
        return f"**{text}, {goal or 'goal'} missed**"
    return f"{text} ({goal})" if goal else text


BLOCKS: dict[Path, dict[str, Callable[[], Iterator[str]]]] = {
    SPEED: {"cpu-training": cpu_training, "gpu": gpu, "duel": duel, "pods": pods},
    EVALUATION: {"variations": variations},
}


def renewed(page: Path, text: str) -> str:
    """A page's text with every block as the results are now.

    Raises:
        ValueError: a block has no marks in the page.
    """
    for name, lines in BLOCKS[page].items():
        begin, end = f"<!-- benchmarks.tables: {name} -->\n", "<!-- end -->"
        marked = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        if not marked.search(text):
            raise ValueError(f"no block {name} in the page")
        content = begin + "\n".join(lines()) + "\n" + end
        text = marked.sub(lambda _, content=content: content, text, count=1)
    return text


def main(argv: list[str] | None = None) -> int:
    """Print the blocks, or renew the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="renew the pages")
    write = parser.parse_args(argv).write
    for page, blocks in BLOCKS.items():
        if write:
            page.write_text(renewed(page, page.read_text(encoding="utf-8")), encoding="utf-8")
        else:
            print("\n\n".join("\n".join(lines()) for lines in blocks.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
