"""The sections of ``benchmarks.accelerator``, each a function that gives rows as it finds them.

FLOP are counted as 2 x MAC of the network alone: a train step is three forward passes, with rematerialisation too. The
peak is that of a large bfloat16 matrix product. Every timed call waits for its result; seconds are medians.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure, ours, short_run
from benchmarks.measure import Row
from benchmarks.shapes import ADM_128, ADM_256, LDM, SMALL, TINY, TINY_LATENT, LatentShape, Setting, Shape
from diffpath_jax.devices import hardware
from diffpath_jax.training.optim import OptimConfig
from diffpath_jax.training.tasks.task import NETWORK

GIB = 2**30
# A call is repeated until about so many seconds are spent, within these bounds.
TIMED_SECONDS, FEWEST, MOST = 2.0, 1, 20
# Seconds of the short run on patches.
LONGEST_RUN = 120
# A train step is a forward pass and a backward pass of twice its work.
TRAIN_FORWARDS = 3


@dataclass(frozen=True)
class Case:
    """One thing to measure: a network at a batch size, and how."""

    name: str
    shape: Shape | LatentShape
    px: int
    batch: int
    remat: bool = False
    how: Any = None

    @property
    def row(self) -> Row:
        """What names it in a table."""
        row: Row = {"network": self.name + (", remat" if self.remat else ""), "batch": self.batch}
        return row | ({"how": self.how.name} if self.how else {})


@dataclass(frozen=True)
class Context:
    """What a section is given.

    Attributes:
        deadline: ``time.monotonic()`` at which it should be done.
        peak: FLOP a second in bfloat16; 0 where unknown.
        tiny: tiny shapes.
        patches: images of the short run, if any.
        out: where pictures go.
    """

    deadline: float
    peak: float
    tiny: bool
    patches: Path | None
    out: Path

    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.monotonic()

    def share(self, flop_per_second: float) -> float | None:
        """Part of the peak."""
        return flop_per_second / self.peak if self.peak else None


def peak(context: Context) -> Iterator[Row]:
    """TFLOP a second of products of random square matrices, as ``hardware.measured_peak`` finds them."""
    device = jax.devices()[0]
    yield {"what": "device", "kind": f"{device.device_kind} ({device.platform})", "devices": jax.device_count()}
    for dtype in (jnp.bfloat16, jnp.float32):
        yield {"what": jnp.dtype(dtype).name, "TFLOP/s": hardware.measured_peak(dtype) / 1e12}
    with jax.default_matmul_precision("highest"):
        yield {"what": "float32, highest precision", "TFLOP/s": hardware.measured_peak(jnp.float32) / 1e12}


def correctness(context: Context) -> Iterator[Row]:
    """Largest difference from the CPU's float32 result over its largest value, with the same parameters and keys."""
    shape, px = (TINY, 16) if context.tiny else (SMALL, 64)
    setting = Setting("", shape, px, 2)
    exact = _results(setting, jax.devices("cpu")[0], jnp.float32)
    for dtype in (jnp.float32, jnp.bfloat16):
        found = _results(setting, jax.devices()[0], dtype)
        for what, value in exact.items():
            yield {
                "what": what,
                "type": jnp.dtype(dtype).name,
                "largest error / largest value": float(np.abs(found[what] - value).max() / np.abs(value).max()),
                "norm of error / norm": float(np.linalg.norm(found[what] - value) / np.linalg.norm(value)),
            }


def _results(setting: Setting, device: jax.Device, dtype: Any) -> dict[str, np.ndarray]:
    """Forward pass, loss, gradients and a sample of 25 DDIM steps, computed on one device at full precision."""
    shape = setting.shape
    network, task = ours.make_network(shape, dtype), ours.make_task(shape, dtype)
    draw = ours.make_draw(network, ours.Sampling("ddim", 25), px=setting.px, num_classes=shape.num_classes - 1)
    with jax.default_device(jax.devices("cpu")[0]):
        params = ours.random_parameters(network, jax.random.key(1))
        x = jax.random.normal(jax.random.key(2), (setting.batch, setting.px, setting.px, 3))
    batch = ours.random_batch(setting)
    model_state = ours.task_state()

    def compute(params: Any, batch: Any, x: jax.Array, key: jax.Array) -> dict[str, Any]:
        t = jnp.arange(setting.batch) * 400 + 3
        value_and_grad = jax.value_and_grad(
            lambda p: task.losses[NETWORK]({NETWORK: p}, model_state, batch, key), has_aux=True
        )
        (loss, _), gradients = value_and_grad(params)
        return {
            "forward": network.apply(params, {}, x, t, batch["label"])[0],
            "loss": loss,
            "gradients": jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradients)]),
            "sample, DDIM 25": draw(params, key, batch["label"]),
        }

    inputs = jax.device_put((params, batch, x, jax.random.key(3)), device)
    with jax.default_device(device), jax.default_matmul_precision("highest"):
        found = jax.jit(compute)(*inputs)
    return {what: np.asarray(value, np.float64).ravel() for what, value in found.items()}


def training(context: Context) -> Iterator[Row]:
    """Train steps in bfloat16 with a moving average, by batch size, with and without rematerialisation."""
    tiny = [
        Case("tiny", TINY, 16, 4),
        Case("tiny", TINY, 16, 4, remat=True),
        *_latent_cases("tiny", TINY_LATENT, 16, 4),
    ]
    large = Case("ADM 256 channels", ADM_256, 128, 32)
    small = Case("ADM 128 channels", ADM_128, 128, 64)
    cases = [small, large, replace(large, batch=64), *_latent_cases("LDM 192 channels", LDM, 128, 64)]
    cases += [replace(large, batch=64, remat=True), replace(small, batch=128)]
    cases += [replace(large, batch=128, remat=True), replace(large, batch=128), replace(large, batch=8)]
    yield from _each(tiny if context.tiny else cases, lambda case: _training_case(context, case), context, guess=30)


def _latent_cases(name: str, shape: LatentShape, px: int, batch: int) -> list[Case]:
    """Training on stored latents, and on images that are encoded in the step."""
    encoded = replace(shape, stored=False)
    return [
        Case(f"{name}, stored latents", shape, px, batch),
        Case(f"{name}, encoded in the step", encoded, px, batch),
    ]


def _training_case(context: Context, case: Case) -> Row:
    setting = Setting(case.name, case.shape, case.px, case.batch)
    key = jax.random.key(0)
    given = jax.jit(lambda k: ours.given_parameters(case.shape, jnp.bfloat16, k))(key)
    task = ours.make_task(case.shape, jnp.bfloat16, remat=case.remat, given=given)
    config = OptimConfig()

    def fresh(key: jax.Array) -> Any:
        params = ours.random_parameters(ours.make_network(case.shape, jnp.bfloat16), key)
        return ours.state_of(task, config, params, batch)

    batch = jax.device_put(ours.random_batch(setting))
    held = [jax.jit(fresh)(key)]
    step, seconds = ours.compiled(ours.make_step(task, config), held[0], batch, key, given, donate_argnums=0)

    def take() -> jax.Array:
        held[0], bad_steps = step(held[0], batch, key, given)
        return bad_steps

    times = _timed(take)
    rate = case.batch / times.median
    encoder = ours.codec_flop(case.shape, case.px)[0] if given else 0.0
    flops = (TRAIN_FORWARDS * ours.forward_flop(case.shape, case.px) + encoder) * rate
    return {
        "img/s": rate,
        "TFLOP/s": flops / 1e12,
        "share of peak": context.share(flops),
        "planned GiB": _planned_bytes(step) / GIB,
        "peak GiB so far": _peak_bytes() / GIB,
        "compile s": seconds,
        "step s": times.shown(),
        "n": times.count,
    }


def torch(context: Context) -> Iterator[Row]:
    """The same networks in PyTorch: train step and forward pass in bfloat16 autocast, channels last, fused Adam."""
    try:
        from benchmarks import torch_adm
    except ImportError as error:
        yield {"left out": f"PyTorch cannot be imported: {error}"}
        return
    eager = torch_adm.Mode(bfloat16=True, channels_last=True, fused=True)
    compiled = replace(eager, compiled=True)
    small, large = Case("ADM 128 channels", ADM_128, 128, 64), Case("ADM 256 channels", ADM_256, 128, 64)
    cases = [replace(case, how=mode) for case, mode in [(small, compiled), (large, compiled)]]
    cases += [replace(large, how=eager), replace(small, how=eager)]
    tiny = [Case("tiny", TINY, 16, 4, how=eager)]
    yield from _each(tiny if context.tiny else cases, lambda case: _torch_case(context, case), context, guess=60)


def _torch_case(context: Context, case: Case) -> Row:
    from benchmarks import torch_adm

    torch_adm.forget_peak_memory()
    calls = torch_adm.load(Setting(case.name, case.shape, case.px, case.batch), case.how)
    step, forward = _timed(calls.train_step), _timed(calls.forward)
    flops = TRAIN_FORWARDS * ours.forward_flop(case.shape, case.px) * case.batch / step.median
    return {
        "img/s": case.batch / step.median,
        "TFLOP/s": flops / 1e12,
        "share of peak": context.share(flops),
        "forward img/s": case.batch / forward.median,
        "peak GiB": torch_adm.peak_memory_bytes() / GIB,
        "compile s": calls.compile_seconds or None,
        "step s": step.shown(),
        "n": step.count,
    }


def sampling(context: Context) -> Iterator[Row]:
    """Samplers in bfloat16: images a second, share of the limit, and time over that of the network calls alone.

    The limit is the FLOP of all network calls at the peak. A guided step is compared with two network calls.
    """
    few, many = (3, 4) if context.tiny else (25, 250)
    hows = [ours.Sampling("ddim", few), ours.Sampling("ddim", few, guidance=1.0)]
    hows += [ours.Sampling("dpmpp", few), ours.Sampling("unipc", few), ours.Sampling("ddpm", many)]
    networks = [Case("ADM 128 channels", ADM_128, 128, 64), Case("LDM 192 channels", LDM, 128, 64)]
    networks += [Case("ADM 256 channels", ADM_256, 128, 32)]
    if context.tiny:
        networks = [Case("tiny", TINY, 16, 2), Case("tiny latent", TINY_LATENT, 16, 2)]
    alone: dict[str, float] = {}
    cases = [replace(case, how=how) for case in networks for how in (None, *hows)]
    yield from _each(cases, lambda case: _sampling_case(context, case, alone), context, guess=30)


def _sampling_case(context: Context, case: Case, alone: dict[str, float]) -> Row:
    """The network alone, whose seconds go into ``alone``, or a sampler; latents are decoded at the end."""
    network, codec = ours.make_network(case.shape, jnp.bfloat16), ours.make_codec(case.shape, jnp.bfloat16)
    key = jax.random.key(0)
    params, weights = jax.jit(lambda k: (ours.random_parameters(network, k), ours.codec_parameters(codec, k)))(key)
    labels = jnp.arange(case.batch, dtype=jnp.int32) % (case.shape.num_classes - 1)
    how = case.how
    if how is None:
        x = jax.random.normal(key, (case.batch, *codec.shape((case.px, case.px))))
        call, seconds = ours.compiled(lambda p, x, y: network.apply(p, {}, x, y, y)[0], params, x, labels)
        times, calls = _timed(call, params, x, labels), 1
        alone[case.name] = times.median
    else:
        draw = ours.make_draw(network, how, px=case.px, num_classes=case.shape.num_classes - 1, codec=codec)
        call, seconds = ours.compiled(lambda p, w, k, y: codec.decode(w, draw(p, k, y)), params, weights, key, labels)
        times, calls = _timed(call, params, weights, key, labels), how.forwards(ours.linear_noise())
    decoder = ours.codec_flop(case.shape, case.px)[1] if how else 0.0
    flop = case.batch * (calls * ours.forward_flop(case.shape, case.px) + decoder)
    named: Row = {} if how else {"how": "network alone"}
    return {
        **named,
        "img/s": case.batch / times.median,
        "share of limit": context.share(flop / times.median),
        "time over network alone": times.median / (calls * alone[case.name]) - 1 if case.name in alone else None,
        "compile s": seconds,
        "seconds": times.shown(),
        "n": times.count,
    }


def run(context: Context) -> Iterator[Row]:
    """A short training run on real patches."""
    if context.patches is None:
        yield {"left out": "no --patches given"}
        return
    deadline = min(context.deadline, time.monotonic() + (0 if context.tiny else LONGEST_RUN))
    yield short_run.train_and_draw(context.patches, context.out, deadline=deadline, tiny=context.tiny)


def _each(
    cases: Sequence[Case], measure_case: Callable[[Case], Row], context: Context, *, guess: float
) -> Iterator[Row]:
    """Measure case after case while there is time for one more; a case is taken to last as long as the one before."""
    cost = 0.0 if context.tiny else guess
    for case in cases:
        if context.left() < cost:
            yield {**case.row, "left out": f"{max(context.left(), 0):.0f} s left"}
            continue
        start = time.monotonic()
        try:
            yield {**case.row, **measure_case(case)}
        except Exception as error:
            if "RESOURCE_EXHAUSTED" not in str(error) and "out of memory" not in str(error).lower():
                raise
            yield {**case.row, "left out": "out of memory"}
        cost = time.monotonic() - start


def _timed(call: Callable, *inputs: Any) -> measure.Times:
    """Time a call as often as there is time for, after one that does not count."""

    def finished() -> None:
        jax.block_until_ready(call(*inputs))

    first = measure.seconds_of(finished)
    rounds = min(max(int(TIMED_SECONDS / first), FEWEST), MOST)
    return measure.repeated(finished, rounds=rounds, warmup=0)


def _planned_bytes(compiled: jax.stages.Compiled) -> float:
    """Device memory that a program needs: inputs, outputs that take none of theirs, and temporary buffers."""
    found = compiled.memory_analysis()
    if found is None:
        return float("nan")
    own = found.output_size_in_bytes - found.alias_size_in_bytes
    return float(found.argument_size_in_bytes + own + found.temp_size_in_bytes)


def _peak_bytes() -> float:
    """Most memory in use since this process began; 0 where the device does not say."""
    return float((jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0))


SECTIONS = {section.__name__: section for section in (peak, correctness, training, torch, sampling, run)}


def main() -> int:
    """Run one section and append its rows to a file as they come."""
    parser = argparse.ArgumentParser()
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--peak", type=float, default=0.0)
    parser.add_argument("--patches", type=Path)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    context = Context(deadline, options.peak, options.tiny, options.patches, options.out)
    with options.rows.open("a", encoding="utf-8") as file:
        for row in SECTIONS[options.section](context):
            file.write(json.dumps(row) + "\n")
            file.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
