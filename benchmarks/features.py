"""Images a second through the Inception network of FID: ours against PyTorch, on the CPU, in float32.

    python -m benchmarks.features --out benchmarks/results/NAME.json [--batch 16] [--px 299] [--rounds 7] [--one_core]

Both have the same random parameters with norms folded and get the same images in NHWC, in one process, timed in turns
(A B A B ...). PyTorch runs eagerly and as a frozen trace, which lets it lay out weights and fuse ahead of time. "From
128 px" is ours with its resize. Seconds are wall-clock; with ``--one_core`` they are processor time on one core, which
other programs on the machine hardly change. Needs ``torch``.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure, ours
from benchmarks.measure import Row
from diffpath_jax.evaluation.features.resize import resize
from diffpath_jax.io.files import write_json
from diffpath_jax.networks.inception import InceptionV3
from diffpath_jax.networks.pure import count_parameters, purify
from diffpath_jax.shapes import Tree
from diffpath_jax.weights.safetensors_file import flatten

SMALL_PX = 128
OURS = "ours"
NETWORK = purify(lambda rngs: InceptionV3(rngs=rngs))


def our_calls(params: Tree, images: np.ndarray, small: np.ndarray) -> dict[str, Callable[[], jax.Array]]:
    """The network alone, and with the resize before it; compiled."""

    def features(params: Tree, x: jax.Array) -> jax.Array:
        return NETWORK.apply(params, {}, x)[0].features

    def from_pixels(params: Tree, pixels: jax.Array) -> jax.Array:
        return features(params, resize(pixels, "clean"))

    inputs = {OURS: (features, jnp.asarray(images)), f"ours, from {SMALL_PX} px": (from_pixels, jnp.asarray(small))}
    compiled = {name: (jax.jit(call).lower(params, x).compile(), x) for name, (call, x) in inputs.items()}
    return {name: lambda call=call, x=x: call(params, x).block_until_ready() for name, (call, x) in compiled.items()}


def torch_calls(params: Tree, images: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    """The same network in PyTorch, eager and traced."""
    import torch

    from benchmarks import torch_adm, torch_inception

    torch_adm.use_all_cores()
    network = torch_inception.load(flatten(params))
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    traced = torch.jit.optimize_for_inference(torch.jit.trace(network, x))

    def call(module: Any) -> np.ndarray:
        with torch.inference_mode():
            return module(x).numpy()

    return {"PyTorch": lambda: call(network), "PyTorch traced": lambda: call(traced)}


def measure_speed(*, batch: int, px: int, rounds: int, clock: Callable[[], float]) -> list[Row]:
    """A row for each side; stops where their features differ."""
    params = ours.random_parameters(NETWORK, jax.random.key(0))
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (batch, px, px, 3)).astype(np.float32)
    small = rng.integers(0, 256, (batch, SMALL_PX, SMALL_PX, 3), np.uint8)
    calls: dict[str, Callable[[], Any]] = {**our_calls(params, images, small), **torch_calls(params, images)}
    expected = np.asarray(calls[OURS]())
    for name in calls:
        if name.startswith("PyTorch"):
            np.testing.assert_allclose(calls[name](), expected, atol=1e-4 * np.abs(expected).max())
    seconds = measure.in_turns(calls, rounds=rounds, clock=clock)
    return [
        {
            "side": name,
            "batch": batch,
            "px": px,
            "parameters": count_parameters(NETWORK),
            "median s": (times := measure.times_of(taken)).median,
            "fastest s": times.fastest,
            "slowest s": times.slowest,
            "n": times.count,
            "images / s": batch / times.median,
            # How many times as many images a second ours does, turn by turn.
            "ours over this": measure.median_ratio(taken, seconds[OURS]),
        }
        for name, taken in seconds.items()
    ]


def main(argv: list[str] | None = None) -> int:
    """Measure, write JSON, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--batch", type=int, default=16, help="images at once (default: %(default)s)")
    parser.add_argument("--px", type=int, default=299, help="side of the images (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="turns (default: %(default)s)")
    parser.add_argument("--one_core", action="store_true", help="processor time on one core, not wall-clock on all")
    options = parser.parse_args(argv)
    clock = time.perf_counter
    if options.one_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        clock = time.process_time
    content: dict[str, Any] = {"what": " ".join((__doc__ or "").split()), "machine": measure.machine()}
    content["speed"] = measure_speed(batch=options.batch, px=options.px, rounds=options.rounds, clock=clock)
    content["load_average_after"] = measure.machine()["load_average"]
    if options.out:
        write_json(options.out, content)
    print(measure.table(content["speed"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
