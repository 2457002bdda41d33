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
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks import cores, measure
from benchmarks.duel import encoders, summary
from benchmarks.duel.contestants import our_recipes, their_settings
from benchmarks.duel.one import DRAWN, INFO
from benchmarks.duel.real import read_evenly
from diffpath_jax.data.manifest import open_dataset
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
    cores.run_all([_work(name, seed, arguments) for name, seed in runs])
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


def _work(name: str, seed: int, arguments: argparse.Namespace) -> cores.Work:
    """Returns the training of a contestant."""
    place = _place(arguments.out, name, seed, arguments.minutes)
    words = ["benchmarks.duel.one", name, "--seed", str(seed), "--out", str(place)]
    words += ["--dataset", str(arguments.dataset), "--minutes", str(arguments.minutes)]
    words += ["--per_class", str(arguments.per_class)]
    return cores.Work(tuple(words), log=place / "log.txt", done=place / INFO)


def _measure(runs: Sequence[tuple[str, int]], arguments: argparse.Namespace) -> None:
    """Write every distance, the ladders, and the images side by side."""
    split = "test" if arguments.stage == "final" else "val"
    reference, labels = read_evenly(arguments.dataset, split, arguments.per_class)
    others, _ = read_evenly(arguments.dataset, "train", arguments.per_class)
    classifier = encoders.classifier_features(arguments.classifier) if arguments.classifier else None
    drawn = {
        run: np.load(_place(arguments.out, *run, arguments.minutes) / DRAWN)["images"] for run in dict.fromkeys(runs)
    }
    images = {f"{name} {seed}": images for (name, seed), images in drawn.items()}
    spaces = encoders.measure_spaces(encoders.open_encoder(classifier), reference, others, images)
    content = {
        "machine": measure.machine(),
        "settings": {"minutes": arguments.minutes, "per_class": arguments.per_class, "against": split},
        "runs": {f"{name} {seed}": _info(arguments, name, seed) for name, seed in drawn},
        "spaces": spaces,
        "compared": {name: summary.compared(space) for name, space in spaces.items() if space["counts"]},
        "nyquist_power": {name: encoders.nyquist_power(each) for name, each in {"real": reference, **images}.items()},
    }
    write_json(arguments.out / f"{arguments.stage}.json", content)
    _draw(arguments.out / f"{arguments.stage}.png", {"real": reference, **images}, labels, arguments)
    print(measure.table(summary.rows(spaces)))


def _info(arguments: argparse.Namespace, name: str, seed: int) -> dict[str, float]:
    return json.loads((_place(arguments.out, name, seed, arguments.minutes) / INFO).read_text())


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
