"""The duel: guided-diffusion and ours train on the same patches for the same minutes of one core each.

    python -m benchmarks.duel screen --dataset DATASET --out OUT      their settings, against validation patches
    python -m benchmarks.duel ablate --dataset DATASET --out OUT      our recipes, against validation patches
    python -m benchmarks.duel final --dataset DATASET --out OUT --names NAME NAME --seeds 3      against test patches

Every contestant has a core to itself; two at most run at once on two cores. What is done is not done again. The spaces
in which distances are measured, and the ladder that a space must order to count, are in ``encoders``. Written:
``OUT/STAGE.json`` and ``OUT/STAGE.png`` (images by class, side by side). ``--classifier RUN`` adds the space of a
classifier of other patches. Needs PyTorch's CPU build and the two packages of ``make duel``.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks import measure
from benchmarks.duel import encoders
from benchmarks.duel.contestants import our_recipes, their_settings
from benchmarks.duel.one import DRAWN, INFO
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.data.pipeline import read_arrays
from diffpath_jax.io.files import write_json
from diffpath_jax.render import image_grid

_SHOWN = 8


def main(argv: Sequence[str] | None = None) -> int:
    """Run a stage, and measure all that it has."""
    arguments = _arguments(argv)
    names = (
        arguments.names
        or {
            "screen": [one.name for one in their_settings()],
            "ablate": [one.name for one in our_recipes()],
            "final": [],
        }[arguments.stage]
    )
    runs = [(name, seed) for seed in range(arguments.seeds) for name in names]
    _run_all(runs, arguments)
    _measure(runs, arguments)
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("screen", "ablate", "final"))
    parser.add_argument("--dataset", type=Path, required=True, help="data set with train, val and test")
    parser.add_argument("--classifier", type=Path, help="run of a classifier of other patches")
    parser.add_argument("--out", type=Path, required=True, help="directory; a second start goes on there")
    parser.add_argument("--names", nargs="*", default=[], help="contestants (default: all of the stage)")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training (default: %(default)s)")
    parser.add_argument("--per_class", type=int, default=200, help="images drawn of each class")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each contestant")
    arguments = parser.parse_args(argv)
    if arguments.stage == "final" and not arguments.names:
        parser.error("final needs --names")
    return arguments


def _place(out: Path, name: str, seed: int, minutes: float) -> Path:
    return out / f"{name}-{minutes:g}min" / f"seed_{seed}"


def _run_all(runs: Sequence[tuple[str, int]], arguments: argparse.Namespace) -> None:
    """Run what is not done yet, each on a core of its own."""
    cores: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in sorted(os.sched_getaffinity(0)):
        cores.put(core)

    def run(one: tuple[str, int]) -> None:
        name, seed = one
        place = _place(arguments.out, name, seed, arguments.minutes)
        if (place / INFO).exists():
            return
        core = cores.get()
        try:
            _run_one(name, seed, place, core, arguments)
        finally:
            cores.put(core)
        print(f"{name} seed {seed}: {(place / INFO).read_text()}", flush=True)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(run, runs))


def _run_one(name: str, seed: int, place: Path, core: int, arguments: argparse.Namespace) -> None:
    words = [sys.executable, "-m", "benchmarks.duel.one", name, "--seed", str(seed), "--out", str(place)]
    words += ["--dataset", str(arguments.dataset), "--minutes", str(arguments.minutes)]
    words += ["--per_class", str(arguments.per_class)]
    place.mkdir(parents=True, exist_ok=True)
    with (place / "log.txt").open("w") as log:
        subprocess.run(
            ["taskset", "--cpu-list", str(core), *words],
            check=True,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"},
        )


def _real(dataset: Path, split: str, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of a split and their labels, as many of each class as are drawn, evenly spread."""
    data = read_arrays(open_dataset(dataset), split)
    images, labels = data["image"], data["label"]
    chosen = np.concatenate(
        [
            own[np.linspace(0, len(own) - 1, min(per_class, len(own))).astype(int)]
            for own in (np.flatnonzero(labels == label) for label in np.unique(labels))
        ]
    )
    return images[chosen], labels[chosen]


def _measure(runs: Sequence[tuple[str, int]], arguments: argparse.Namespace) -> None:
    """Write every distance, the ladders, and the images side by side."""
    split = "test" if arguments.stage == "final" else "val"
    reference, labels = _real(arguments.dataset, split, arguments.per_class)
    others, _ = _real(arguments.dataset, "train", arguments.per_class)
    classifier = encoders.classifier_features(arguments.classifier) if arguments.classifier else None
    drawn = {
        run: np.load(_place(arguments.out, *run, arguments.minutes) / DRAWN)["images"] for run in dict.fromkeys(runs)
    }
    spaces = {name: _space(encode, reference, others, drawn) for name, encode in encoders.encoders(classifier).items()}
    images = {"real": reference, **{f"{name} {seed}": images for (name, seed), images in drawn.items()}}
    content = {
        "machine": measure.machine(),
        "settings": {"minutes": arguments.minutes, "per_class": arguments.per_class, "against": split},
        "runs": {f"{name} {seed}": _info(arguments, name, seed) for name, seed in drawn},
        "spaces": spaces,
        "nyquist_power": {name: encoders.nyquist_power(each) for name, each in images.items()},
    }
    write_json(arguments.out / f"{arguments.stage}.json", content)
    _draw(arguments.out / f"{arguments.stage}.png", images, labels, arguments)
    print(measure.table(list(_rows(spaces))))


def _info(arguments: argparse.Namespace, name: str, seed: int) -> dict[str, float]:
    return json.loads((_place(arguments.out, name, seed, arguments.minutes) / INFO).read_text())


def _space(
    encode: encoders.Encoder, reference: np.ndarray, others: np.ndarray, drawn: Mapping[tuple[str, int], np.ndarray]
) -> dict[str, object]:
    """Distances in one space: the ladder's, the floor of other real patches, and the contestants'."""
    ladder = {name: encoders.distance(encode, each, reference) for name, each in encoders.ladder(others, 0)}
    return {
        "counts": encoders.counts(ladder),
        "floor": ladder["real"],
        "ladder": ladder,
        "distances": {f"{n} {seed}": encoders.distance(encode, each, reference) for (n, seed), each in drawn.items()},
    }


def _rows(spaces: Mapping[str, dict]) -> Iterator[measure.Row]:
    """A row for each contestant: its distance in every space, seeds averaged, less the floor."""
    names = dict.fromkeys(run.rpartition(" ")[0] for run in next(iter(spaces.values()))["distances"])
    for name in names:
        row: measure.Row = {"contestant": name}
        for title, space in spaces.items():
            own = [value for run, value in space["distances"].items() if run.rpartition(" ")[0] == name]
            mark = "" if space["counts"] else " (does not count)"
            row[title + mark] = f"{np.mean(own) - space['floor']:.3g}"
        yield row


def _draw(path: Path, images: Mapping[str, np.ndarray], labels: np.ndarray, arguments: argparse.Namespace) -> None:
    """Draw the first images of each class, a row a contestant."""
    classes = open_dataset(arguments.dataset).schema.classes
    first = [np.flatnonzero(labels == label)[0] for label in range(len(classes))]
    drawn = [arguments.per_class * label for label in range(len(classes))]
    rows = {
        name: np.concatenate([each[start : start + _SHOWN] for start in (first if name == "real" else drawn)])
        for name, each in images.items()
    }
    image_grid.write_png(path, image_grid.sheet(rows, classes))


if __name__ == "__main__":
    raise SystemExit(main())
