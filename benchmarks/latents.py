"""What it is worth to encode a data set once: a train step on stored latents against one that encodes its images.

    python -m benchmarks.latents --out benchmarks/results/NAME.json [--size paper|small|tiny] [--batch 2] [--rounds 3]
        [--models latent,pixel]

Latent diffusion of the authors' config (306 M parameters) in the latents of VQ-f4, and the pixel model of the same
images (ADM, 128 channels, 105 M), all in float32 with Adam, in turns (A B C A B C ...). Then what it takes to draw: a
step of each denoiser, and the decoder. Seconds are the processor time of this process, all its threads together, so
that other jobs on the machine disturb little; ratios are taken turn by turn.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import measure, ours
from benchmarks.measure import Row
from benchmarks.shapes import ADM_128, LDM, SMALL, TINY, TINY_LATENT, FirstStageShape, LatentShape, Setting, Shape
from diffpath_jax.io.files import write_json
from diffpath_jax.networks.conditions import LABEL
from diffpath_jax.training.step import TrainState

STORED, ENCODED, PIXELS = "LDM, stored latents", "LDM, images encoded in the step", "pixel model"
DENOISE, DECODE, PIXEL_DENOISE = "LDM, one denoising step", "LDM, decoder", "pixel model, one denoising step"
BOTH = "latent,pixel"
_SMALL_LATENT = LatentShape(
    FirstStageShape(channels=64, channel_mult=(1, 1, 2), codebook_size=1024),
    channels=64,
    channel_mult=(1, 2, 2),
    attention_downsamples=(2, 4),
)
# The latent model, the pixel model, and the side of their images.
SIZES: Mapping[str, tuple[LatentShape, Shape, int]] = {
    "paper": (LDM, ADM_128, 128),
    "small": (_SMALL_LATENT, SMALL, 64),
    "tiny": (TINY_LATENT, TINY, 16),
}


def train_steps(size: str, batch: int, *, with_pixels: bool = True) -> dict[str, Callable[[], object]]:
    """A train step of each kind, by name, compiled."""
    latent, pixels, px = SIZES[size]
    stored = Setting(STORED, latent, px, batch)
    encoded = Setting(ENCODED, replace(latent, stored=False), px, batch)
    # Both ways of latent diffusion train one state: two of 306 M parameters need not fit into a small machine.
    trained = _fresh(stored)
    calls = {each.name: _train_step(each, trained) for each in (stored, encoded)}
    if with_pixels:
        other = Setting(PIXELS, pixels, px, batch)
        calls[PIXELS] = _train_step(other, _fresh(other))
    return calls


def _fresh(setting: Setting) -> list[TrainState]:
    """A state with random parameters, in a list in which each step leaves the next."""
    network, task = ours.make_network(setting.shape, jnp.float32), ours.make_task(setting.shape, jnp.float32)
    data = ours.random_batch(setting)

    def state(key: jax.Array) -> TrainState:
        return ours.state_of(task, ours.PLAIN_ADAM, ours.random_parameters(network, key), data)

    return [jax.jit(state)(jax.random.key(0))]


def _train_step(setting: Setting, held: list[TrainState]) -> Callable[[], object]:
    key, data = jax.random.key(0), jax.tree.map(jnp.asarray, ours.random_batch(setting))
    given = jax.jit(lambda k: ours.given_parameters(setting.shape, jnp.float32, k))(key)
    task = ours.make_task(setting.shape, jnp.float32, frozen_params=given)
    step, _ = ours.compiled(ours.make_step(task, ours.PLAIN_ADAM), held[0], data, key, given, donate_argnums=0)

    def take() -> None:
        held[0], _ = step(held[0], data, key, given)
        jax.block_until_ready(held[0])

    return take


def drawing(size: str, batch: int, *, with_pixels: bool = True) -> dict[str, Callable[[], object]]:
    """One call of each denoiser, and of the decoder, by name, compiled."""
    latent, pixels, px = SIZES[size]
    codec, key = ours.make_codec(latent, jnp.float32), jax.random.key(0)
    weights = jax.jit(lambda k: ours.codec_parameters(codec, k))(key)
    x = jax.random.normal(key, (batch, *codec.shape((px, px))))
    decode, _ = ours.compiled(codec.decode, weights, x)
    calls: dict[str, Callable[[], object]] = {DECODE: lambda: jax.block_until_ready(decode(weights, x))}
    calls[DENOISE] = _denoise(latent, px, batch)
    if with_pixels:
        calls[PIXEL_DENOISE] = _denoise(pixels, px, batch)
    return calls


def _denoise(shape: Shape | LatentShape, px: int, batch: int) -> Callable[[], object]:
    network, key = ours.make_network(shape, jnp.float32), jax.random.key(0)
    params = jax.jit(lambda k: ours.random_parameters(network, k))(key)
    x = jax.random.normal(key, (batch, *ours.make_codec(shape, jnp.float32).shape((px, px))))
    number = jnp.zeros(batch, jnp.int32)
    call, _ = ours.compiled(
        lambda p, x, t, y: network.apply(p, {}, x, t, {LABEL.name: y})[0], params, x, number, number
    )
    return lambda: jax.block_until_ready(call(params, x, number))


def rows_of(taken: Mapping[str, list[float]], *, batch: int, base: str) -> list[Row]:
    """Seconds and images a second of each call, and how many times as long as ``base`` it takes."""
    rows: list[Row] = []
    for name, seconds in taken.items():
        times = measure.times_of(seconds)
        row: Row = {
            "what": name,
            "processor s": times.shown(),
            "n": times.count,
            "img / processor s": batch / times.median,
        }
        rows.append({**row, f"time over that of {base}": measure.median_ratio(seconds, taken[base])})
    return rows


def main(argv: list[str] | None = None) -> int:
    """Measure, write JSON, print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--size", default="paper", choices=SIZES, help="of the networks (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=2, help="images of a step (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="turns that count (default: %(default)s)")
    parser.add_argument("--models", default=BOTH, choices=(BOTH, "latent"), help="to measure (default: %(default)s)")
    options = parser.parse_args(argv)
    content: dict[str, Any] = {"what": " ".join((__doc__ or "").split()), "size": options.size, "batch": options.batch}
    content["machine"] = measure.machine()
    for table, make, base in (("training", train_steps, STORED), ("drawing", drawing, DENOISE)):
        calls = make(options.size, options.batch, with_pixels=options.models == BOTH)
        taken = measure.in_turns(calls, rounds=options.rounds, clock=time.process_time)
        content[table] = rows_of(taken, batch=options.batch, base=base)
        print(measure.table(content[table]), end="\n\n", flush=True)
        if options.out:
            write_json(options.out, content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
