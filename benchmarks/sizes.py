"""Images of several sizes from one model: trained on one size, or on crops of all of them (the paper's Table 4).

    python -m benchmarks.sizes --dataset DATASET --out OUT --px 16 24 32 48 56 --one 32

Both models are the same recipe and get the same minutes of one core each; both see the same images, cut to squares of
``--one`` px, or of any of ``--px``. Images of each size are compared with squares of held-out images, in every space of
the duel that orders its ladder at that size. Written: ``OUT/sizes.json``, ``OUT/sizes.png``. Needs ``make duel``.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks import cores, measure
from benchmarks.duel import encoders
from benchmarks.duel.contestants import RECIPE
from benchmarks.duel.real import read_evenly
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.data.pipeline import read_arrays
from diffpath_jax.io.files import write_json

MODELS = ("one size", "all sizes")


def main(argv: Sequence[str] | None = None) -> int:
    """Train both, draw every size, and measure."""
    arguments = _arguments(argv)
    sides = {"one size": (arguments.one,), "all sizes": tuple(arguments.px)}
    runs = {name: arguments.out / name.replace(" ", "_") for name in MODELS}
    cores.run_all([_training(runs[name], sides[name], arguments) for name in MODELS])
    cores.run_all([_drawing(runs[name], px, arguments) for px in arguments.px for name in MODELS])
    real = [read_evenly(arguments.dataset, split, arguments.per_class)[0] for split in ("test", "train")]
    encode = encoders.open_encoder()
    sizes = {str(px): _measure(px, runs, *real, encode) for px in arguments.px}
    content = {
        "machine": measure.machine(),
        "settings": {"minutes": arguments.minutes, "per_class": arguments.per_class, "one": arguments.one},
        "sizes": sizes,
    }
    write_json(arguments.out / "sizes.json", content)
    _draw(arguments.out / "sizes.png", sizes, arguments.one)
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="data set as large as the largest size")
    parser.add_argument("--out", type=Path, required=True, help="directory; a second start goes on there")
    parser.add_argument("--px", type=int, nargs="+", required=True, help="sizes that are drawn")
    parser.add_argument("--one", type=int, required=True, help="size that the other model is trained on")
    parser.add_argument("--minutes", type=float, default=10.0, help="of each training (default: %(default)s)")
    parser.add_argument("--per_class", type=int, default=200, help="images drawn of each class and size")
    return parser.parse_args(argv)


def _training(run: Path, sides: Sequence[int], arguments: argparse.Namespace) -> cores.Work:
    words = RECIPE.training(run, arguments.dataset, minutes=arguments.minutes, seed=0)
    words.append(f"--config.data.crop_px=({','.join(map(str, sides))},)")
    return cores.Work(("diffpath_jax.cli", *words), log=run.with_suffix(".log"))


def _drawing(run: Path, px: int, arguments: argparse.Namespace) -> cores.Work:
    drawn = run / f"drawn_{px}"
    words = RECIPE.drawing(run, drawn, per_class=arguments.per_class, seed=0)
    words += ["--patch_px", str(px)]
    return cores.Work(("diffpath_jax.cli", *words), log=drawn.with_suffix(".log"), done=drawn / "manifest.json")


def _measure(
    px: int, runs: Mapping[str, Path], held_out: np.ndarray, others: np.ndarray, encode: encoders.Encoder
) -> dict[str, dict]:
    """Returns what is measured at one size, by space."""
    drawn = {name: read_arrays(open_dataset(run / f"drawn_{px}"), "train")["image"] for name, run in runs.items()}
    real = [_middle(images, px) for images in (held_out, others)]
    return encoders.measure_spaces(encode, *real, drawn)


def _middle(images: np.ndarray, px: int) -> np.ndarray:
    """Returns the square in the middle of each image."""
    corner = (images.shape[1] - px) // 2
    return images[:, corner : corner + px, corner : corner + px]


def _draw(path: Path, sizes: Mapping[str, Mapping[str, dict]], one: int) -> None:
    """Draw the distance over the floor against the size, a panel for each space that counts at all of them."""
    spaces = [name for name in next(iter(sizes.values())) if all(size[name]["counts"] for size in sizes.values())]
    figure = Figure(figsize=(4 * len(spaces), 3.2), layout="constrained")
    for axis, space in zip(figure.subplots(1, len(spaces), squeeze=False)[0], spaces, strict=True):
        for model in MODELS:
            excess = [size[space]["distances"][model] - size[space]["floor"] for size in sizes.values()]
            axis.plot([int(px) for px in sizes], excess, marker="o", label=model)
        axis.axvline(one, color="0.8", zorder=0)
        axis.set(title=space, xlabel="side (px)", ylim=(0, None))
        axis.legend()
    figure.supylabel("distance over the floor")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    raise SystemExit(main())
