"""The sections of ``benchmarks.accelerator``, each a function that gives rows as it finds them.

FLOP are counted as 2 x MAC of the network alone: a train step is three forward passes, with rematerialisation too. The
peak is that of a large bfloat16 matrix product. Every timed call waits for its result; seconds are medians.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import convolutions, measure, ours, short_run, trace
from benchmarks.measure import Row
from benchmarks.shapes import ADM_128, ADM_256, LDM, SMALL, TINY, TINY_LATENT, LatentShape, Setting, Shape
from benchmarks.turns import Turns
from diffpath_jax.devices import hardware
from diffpath_jax.networks.conditions import LABEL
from diffpath_jax.training.optim import OptimConfig
from diffpath_jax.training.tasks.task import NETWORK

GIB = 2**30
# A call is repeated until about so many seconds are spent, within these bounds.
TIMED_SECONDS, FEWEST, MOST = 2.0, 1, 20
# Seconds of the short run on patches.
LONGEST_RUN = 120
# A train step is a forward pass and a backward pass of twice its work.
TRAIN_FORWARDS = 3
# Steps between two waits for the device: in training nothing waits for a single one.
STEPS_AT_ONCE = 4
# Options of XLA that are tried one at a time.
FLAGS: tuple[tuple[tuple[str, Any], ...], ...] = (
    (("xla_gpu_experimental_enable_conv_fusion", True),),
    (("xla_gpu_force_conv_nhwc", True),),
    (("xla_gpu_enable_triton_gemm", False),),
)


@dataclass(frozen=True)
class Case:
    """One thing to measure: a network at a batch size, and how."""

    name: str
    shape: Shape | LatentShape
    px: int
    batch: int
    remat: bool = False
    how: Any = None
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def row(self) -> Row:
        """What names it in a table."""
        flags = "".join(f", {name}={value}" for name, value in self.options)
        row: Row = {"network": self.name + (", remat" if self.remat else "") + flags, "batch": self.batch}
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
        turns: when this process may measure.
        part: the case that it measures; none means all.
    """

    deadline: float
    peak: float
    tiny: bool
    patches: Path | None
    out: Path
    turns: Turns
    part: int | None = None

    def pick(self, cases: Sequence[Case]) -> list[Case]:
        """All cases, or the one that this process has."""
        return list(cases) if self.part is None else [cases[self.part]]

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
            "forward": network.apply(params, {}, x, t, {LABEL.name: batch["label"]})[0],
            "loss": loss,
            "gradients": jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradients)]),
            "sample, DDIM 25": draw(params, key, batch["label"]),
        }

    inputs = jax.device_put((params, batch, x, jax.random.key(3)), device)
    with jax.default_device(device), jax.default_matmul_precision("highest"):
        found = jax.jit(compute)(*inputs)
    return {what: np.asarray(value, np.float64).ravel() for what, value in found.items()}


def training(context: Context) -> Iterator[Row]:
    """Train steps in bfloat16 with a moving average, by batch size; where the time of the first goes."""
    small = Case("ADM 128 channels", ADM_128, 128, 64)
    large = Case("ADM 256 channels", ADM_256, 128, 64)
    latent = _latent_cases("LDM 192 channels", LDM, 128, 128)
    cases = [small, large, replace(small, batch=128), latent[0]]
    if context.tiny:
        cases = [Case("tiny", TINY, 16, 4), *_latent_cases("tiny", TINY_LATENT, 16, 4)]
    yield from _together(context.pick(cases), _prepare_training, context)


def flags(context: Context) -> Iterator[Row]:
    """The train step of one network compiled with one option of XLA at a time, and with rematerialisation."""
    case = Case("tiny", TINY, 16, 4) if context.tiny else Case("ADM 128 channels", ADM_128, 128, 64)
    options = () if jax.default_backend() == "cpu" else FLAGS
    cases = [*(replace(case, options=option) for option in options), replace(case, remat=True)]
    yield from _together(context.pick(cases), _prepare_training, context)


def profile(context: Context) -> Iterator[Row]:
    """Kinds of kernels in one train step, and the longest."""
    case = Case("tiny", TINY, 16, 4) if context.tiny else Case("ADM 128 channels", ADM_128, 128, 64)
    take = _prepare_training(context, case).call
    with context.turns.turn():
        jax.block_until_ready(take())
        yield from trace.shares(take)


def convolution(context: Context) -> Iterator[Row]:
    """Every distinct convolution with both gradients in bfloat16: what fails is named."""
    networks = [Case("ADM 128 channels", ADM_128, 128, 64), Case("ADM 256 channels", ADM_256, 128, 64)]
    networks += [Case("LDM 192 channels", LDM, 128, 128)]
    if context.tiny:
        networks = [Case("tiny", TINY, 16, 4)]
    counted = {
        replace(network, how=found): number
        for network in networks
        for found, number in convolutions.of_network(network.shape, network.px, network.batch).items()
    }
    for row, number in zip(_together(list(counted), _prepare_convolution, context), counted.values(), strict=True):
        yield row | {"times": number}


def _prepare_convolution(context: Context, case: Case) -> "Prepared":
    """Compile one; its rows tell the share of the peak over all three passes."""
    found = case.how
    inputs = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in jax.eval_shape(found.inputs, jax.random.key(0))]
    call, seconds = ours.compiled(found.passes, *inputs)

    def report() -> Row:
        given = jax.jit(found.inputs)(jax.random.key(0))
        times = _timed(call, *given, seconds=0.1)
        rate = 3 * found.flop / times.median
        return {
            "TFLOP/s": rate / 1e12,
            "share of peak": context.share(rate),
            "GB/s": 3 * found.bytes / times.median / 1e9,
            "ms": 1e3 * times.median,
            "compile s": seconds,
            "n": times.count,
        }

    return Prepared(lambda: None, report)


def _latent_cases(name: str, shape: LatentShape, px: int, batch: int) -> list[Case]:
    """Training on stored latents, and on images that are encoded in the step."""
    encoded = replace(shape, stored=False)
    return [
        Case(f"{name}, stored latents", shape, px, batch),
        Case(f"{name}, encoded in the step", encoded, px, batch),
    ]


def _prepare_training(context: Context, case: Case) -> "Prepared":
    setting = Setting(case.name, case.shape, case.px, case.batch)
    key = jax.random.key(0)
    given = jax.jit(lambda k: ours.given_parameters(case.shape, jnp.bfloat16, k))(key)
    task = ours.make_task(case.shape, jnp.bfloat16, remat=case.remat, frozen_params=given)
    config = OptimConfig()

    def fresh(key: jax.Array) -> Any:
        params = ours.random_parameters(ours.make_network(case.shape, jnp.bfloat16), key)
        return ours.state_of(task, config, params, batch)

    batch = ours.random_batch(setting)
    state = jax.eval_shape(fresh, key)
    begin, _ = ours.compiled(fresh, key)
    step, seconds = ours.compiled(
        ours.make_step(task, config), state, batch, key, given, donate_argnums=0, compiler_options=dict(case.options)
    )
    held: list[Any] = []

    def take() -> jax.Array:
        if not held:
            held.append(begin(key))
        held[0], bad_steps = step(held[0], jax.device_put(batch), key, given)
        return bad_steps

    def report() -> Row:
        times = _timed(take, calls=STEPS_AT_ONCE)
        held.clear()
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

    return Prepared(take, report)


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
    cases = [replace(small, how=compiled), replace(large, how=compiled)]
    if context.tiny:
        cases = [Case("tiny", TINY, 16, 4, how=eager)]
    with context.turns.turn():
        yield from _each(context.pick(cases), lambda case: _torch_case(context, case), context, guess=60)


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
    few = 3 if context.tiny else 25
    hows = [ours.Sampling("ddim", few), ours.Sampling("ddim", few, guidance=1.0)]
    networks = [Case("ADM 128 channels", ADM_128, 128, 128), Case("LDM 192 channels", LDM, 128, 128)]
    if context.tiny:
        networks = [Case("tiny", TINY, 16, 2), Case("tiny latent", TINY_LATENT, 16, 2)]
    alone: dict[str, float] = {}
    cases = [replace(case, how=how) for case in context.pick(networks) for how in (None, *hows)]
    yield from _together(cases, lambda context, case: _prepare_sampling(context, case, alone), context)


def _prepare_sampling(context: Context, case: Case, alone: dict[str, float]) -> "Prepared":
    """The network alone, whose seconds go into ``alone``, or a sampler; latents are decoded at the end."""
    network, codec = ours.make_network(case.shape, jnp.bfloat16), ours.make_codec(case.shape, jnp.bfloat16)
    key = jax.random.key(0)

    def fresh(key: jax.Array) -> tuple[Any, Any]:
        return ours.random_parameters(network, key), ours.codec_parameters(codec, key)

    shapes = jax.eval_shape(fresh, key)
    begin, _ = ours.compiled(fresh, key)
    labels = jnp.arange(case.batch, dtype=jnp.int32) % (case.shape.num_classes - 1)
    how = case.how
    if how is None:
        x = jax.random.normal(key, (case.batch, *codec.shape((case.px, case.px))))
        call, seconds = ours.compiled(
            lambda p, x, y: network.apply(p, {}, x, y, {LABEL.name: y})[0], shapes[0], x, labels
        )
    else:
        draw = ours.make_draw(network, how, px=case.px, num_classes=case.shape.num_classes - 1, codec=codec)
        call, seconds = ours.compiled(lambda p, w, k, y: codec.decode(w, draw(p, k, y)), *shapes, key, labels)

    def report() -> Row:
        params, weights = begin(key)
        if how is None:
            times, calls = _timed(call, params, x, labels, calls=STEPS_AT_ONCE), 1
            alone[case.name] = times.median
        else:
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

    return Prepared(lambda: None, report)


def run(context: Context) -> Iterator[Row]:
    """A short training run on real patches."""
    if context.patches is None:
        yield {"left out": "no --patches given"}
        return
    deadline = min(context.deadline, time.monotonic() + (0 if context.tiny else LONGEST_RUN))
    with context.turns.turn():
        yield short_run.train_and_draw(context.patches, context.out, deadline=deadline, tiny=context.tiny)


@dataclass(frozen=True)
class Prepared:
    """A case whose programs are compiled.

    Attributes:
        call: does it once; gives what must be waited for.
        report: times it.
    """

    call: Callable[[], Any]
    report: Callable[[], Row]


def _together(cases: Sequence[Case], prepare: Callable[[Context, Case], Prepared], context: Context) -> Iterator[Row]:
    """Compile all cases at once, each in a thread, and then, when it is this process's turn, time one by one."""
    with ThreadPoolExecutor(max(measure.cores() - 1, 1)) as pool:
        prepared = [pool.submit(prepare, context, case) for case in cases]
    with context.turns.turn():
        for case, future in zip(cases, prepared, strict=True):
            yield {**case.row, **_reported(future)}


def _reported(future: "Future[Prepared]") -> Row:
    """What was measured, or why not."""
    try:
        return future.result().report()
    except Exception as error:
        return {"left out": " ".join(str(error).split())[:300] or type(error).__name__}


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
            yield {**case.row, "left out": " ".join(str(error).split())[:300]}
        cost = time.monotonic() - start


def _timed(call: Callable, *inputs: Any, calls: int = 1, seconds: float = TIMED_SECONDS) -> measure.Times:
    """Seconds of a call, repeated as often as there is time for; waited for after every ``calls`` of them."""

    def finished() -> None:
        jax.block_until_ready([call(*inputs) for _ in range(calls)])

    finished()
    first = measure.seconds_of(finished)
    rounds = min(max(int(seconds / first), FEWEST), MOST)
    times = measure.repeated(finished, rounds=rounds, warmup=0)
    return measure.Times(times.median / calls, times.fastest / calls, times.slowest / calls, times.count)


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


SECTIONS = {
    section.__name__: section
    for section in (peak, convolution, correctness, training, profile, torch, sampling, flags, run)
}


def main() -> NoReturn:
    """Run one section and append its rows to a file as they come."""
    parser = argparse.ArgumentParser()
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--peak", type=float, default=0.0)
    parser.add_argument("--patches", type=Path)
    parser.add_argument("--part", type=int)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--turns", nargs=4, required=True, metavar=("DIRECTORY", "NUMBER", "COUNT", "UNTIL"))
    options = parser.parse_args()
    directory, number, count, until = options.turns
    turns = Turns(Path(directory), int(number), int(count), float(until))
    deadline = time.monotonic() + options.seconds
    context = Context(deadline, options.peak, options.tiny, options.patches, options.out, turns, options.part)
    with options.rows.open("a", encoding="utf-8") as file:
        for row in SECTIONS[options.section](context):
            file.write(json.dumps(row) + "\n")
            file.flush()
    sys.stdout.flush()
    # Programs are not taken apart one by one.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
