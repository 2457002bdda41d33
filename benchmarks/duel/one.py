"""One contestant, in a process of its own on one core: trains for its seconds, draws, and writes what it drew."""

import argparse
import contextlib
import json
import resource
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.duel.contestants import Contestant, Ours, Theirs, our_recipes, their_settings

DRAWN, INFO, RUN = "drawn.npz", "info.json", "run"


def contestants() -> dict[str, Contestant]:
    """Everybody by name."""
    return {one.name: one for one in (*their_settings(), *our_recipes())}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one contestant; its folder says by ``info.json`` that it is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(contestants()))
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--per_class", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    one = contestants()[arguments.name]
    arguments.out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    run = _theirs if isinstance(one, Theirs) else _ours
    images, labels, info = run(one, arguments)
    np.savez_compressed(arguments.out / DRAWN, images=images, labels=labels)
    used = resource.getrusage(resource.RUSAGE_SELF)
    info |= {"seconds": time.monotonic() - start, "cpu_seconds": used.ru_utime + used.ru_stime}
    (arguments.out / INFO).write_text(json.dumps(info))
    return 0


def _theirs(setting: Theirs, arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    import torch

    from benchmarks.duel import guided_diffusion
    from diffpath_jax.data.manifest import open_dataset
    from diffpath_jax.data.pipeline import read_arrays

    torch.set_num_threads(1)
    data = read_arrays(open_dataset(arguments.dataset), "train")
    images, labels = data["image"], data["label"]
    trained = guided_diffusion.train(images, labels, setting, seconds=60 * arguments.minutes, seed=arguments.seed)
    wanted = np.repeat(np.arange(labels.max() + 1), arguments.per_class)
    drawn = guided_diffusion.draw(trained.network, wanted, setting, px=images.shape[1], seed=arguments.seed)
    return drawn, wanted, {"steps": trained.steps, "images_seen": trained.steps * setting.batch}


def _ours(recipe: Ours, arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    from diffpath_jax import cli
    from diffpath_jax.data.manifest import open_dataset
    from diffpath_jax.data.pipeline import read_arrays
    from diffpath_jax.training.metrics_log import read_metrics

    run, drawn = arguments.out / RUN, arguments.out / "samples"
    _run(cli, recipe.training(run, arguments.dataset, minutes=arguments.minutes, seed=arguments.seed))
    _run(cli, recipe.drawing(run, drawn, per_class=arguments.per_class, seed=arguments.seed))
    data, steps = read_arrays(open_dataset(drawn), "train"), max((row["step"] for row in read_metrics(run)), default=0)
    # In the order of the classes, as the other side draws.
    order = np.argsort(data["label"], kind="stable")
    return data["image"][order], data["label"][order], {"steps": steps}


def _run(cli: object, words: list[str]) -> None:
    if code := cli.main(words):
        raise RuntimeError(f"diffpath {' '.join(words)}: exit code {code}")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        raise SystemExit(main())
