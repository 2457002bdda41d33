"""The sections of ``benchmarks.accelerator``, each a function that gives rows as it finds them.

FLOP are counted as 2 x MAC of the network alone: a train step is three forward passes, with rematerialisation too. The
peak is that of a large bfloat16 matrix product. Every timed call waits for its result; seconds are medians.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import cases, convolutions, ours, short_run, trace
from benchmarks.cases import Case, Context, Measurement
from benchmarks.measure import Row, seconds_of
from benchmarks.shapes import ADM_128, ADM_256, LDM, SMALL, TINY, TINY_LATENT, LatentShape, Setting
from benchmarks.turns import Turns
from diffpath_jax.devices import hardware
from diffpath_jax.networks.conditions import LABEL
from diffpath_jax.training.optim import OptimConfig
from diffpath_jax.training.tasks.task import NETWORK

GIB = 2**30
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
        with context.turns.turn():
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
    """Train steps in bfloat16 with a moving average, by batch size."""
    small = Case("ADM 128 channels", ADM_128, 128, 64)
    large = Case("ADM 256 channels", ADM_256, 128, 64)
    latent = _latent_cases("LDM 192 channels", LDM, 128, 128)
    chosen = [small, large, latent[0], replace(small, batch=128)]
    if context.tiny:
        chosen = [Case("tiny", TINY, 16, 4), *_latent_cases("tiny", TINY_LATENT, 16, 4)]
    yield from cases.one_by_one(context.pick(chosen), _prepare_training, context)


def flags(context: Context) -> Iterator[Row]:
    """The train step of one network compiled with one option of XLA at a time, and with rematerialisation."""
    case = Case("tiny", TINY, 16, 4) if context.tiny else Case("ADM 128 channels", ADM_128, 128, 64)
    options = () if jax.default_backend() == "cpu" else FLAGS
    chosen = [*(replace(case, options=option) for option in options), replace(case, remat=True)]
    yield from cases.one_by_one(context.pick(chosen), _prepare_training, context)


def profile(context: Context) -> Iterator[Row]:
    """Kinds of kernels in one train step, and the longest."""
    chosen = [
        Case("ADM 128 channels", ADM_128, 128, 64),
        Case("ADM 256 channels", ADM_256, 128, 64),
        *_latent_cases("LDM 192 channels", LDM, 128, 128)[:1],
    ]
    for case in context.pick([Case("tiny", TINY, 16, 4)] if context.tiny else chosen):
        make = _traced_steps(case)
        with context.turns.turn():
            take = make().take
            jax.block_until_ready(take())
            yield from ({"network": case.name, **row} for row in trace.shares(take))


def _latent_cases(name: str, shape: LatentShape, px: int, batch: int) -> list[Case]:
    """Training on stored latents, and on images that are encoded in the step."""
    encoded = replace(shape, stored=False)
    return [
        Case(f"{name}, stored latents", shape, px, batch),
        Case(f"{name}, encoded in the step", encoded, px, batch),
    ]


@dataclass(frozen=True)
class Steps:
    """A compiled train step with a state of its own.

    Attributes:
        take: takes one step and gives what must be waited for.
        compiled: the program.
        seconds: what compiling it took.
    """

    take: Callable[[], jax.Array]
    compiled: jax.stages.Compiled
    seconds: float


def _traced_steps(case: Case) -> Callable[[], Steps]:
    """Trace the train step of a case; what is returned compiles it."""
    key = jax.random.key(0)
    given = jax.jit(lambda k: ours.given_parameters(case.shape, jnp.bfloat16, k))
    shapes = jax.eval_shape(given, key)
    task = ours.make_task(case.shape, jnp.bfloat16, remat=case.remat, frozen_params=shapes)
    config, batch = OptimConfig(), ours.random_batch(Setting(case.name, case.shape, case.px, case.batch))

    def fresh(key: jax.Array) -> Any:
        params = ours.random_parameters(ours.make_network(case.shape, jnp.bfloat16), key)
        return ours.state_of(task, config, params, batch)

    begin = jax.jit(fresh).lower(key)
    step = jax.jit(ours.make_step(task, config), donate_argnums=0).lower(jax.eval_shape(fresh, key), batch, key, shapes)

    def make() -> Steps:
        start = time.perf_counter()
        compiled = step.compile(compiler_options=dict(case.options))
        seconds = time.perf_counter() - start
        held, weights = [begin.compile()(key)], given(key)

        def take() -> jax.Array:
            held[0], bad_steps = compiled(held[0], jax.device_put(batch), key, weights)
            return bad_steps

        return Steps(take, compiled, seconds)

    return make


def _prepare_training(context: Context, case: Case) -> Measurement:
    make = _traced_steps(case)
    encodes = isinstance(case.shape, LatentShape) and not case.shape.stored
    encoder = ours.codec_flop(case.shape, case.px)[0] if encodes else 0.0
    flop = TRAIN_FORWARDS * ours.forward_flop(case.shape, case.px) + encoder

    def measure() -> Row:
        steps = make()
        times = cases.timed(steps.take, calls=STEPS_AT_ONCE)
        rate = case.batch / times.median
        return {
            "img/s": rate,
            "TFLOP/s": flop * rate / 1e12,
            "share of peak": context.share(flop * rate),
            "planned GiB": cases.planned_bytes(steps.compiled) / GIB,
            "peak GiB so far": cases.peak_bytes() / GIB,
            "compile s": steps.seconds,
            "step s": times.shown(),
            "n": times.count,
        }

    return measure


def torch(context: Context) -> Iterator[Row]:
    """The same networks in PyTorch in bfloat16 autocast, channels last, fused Adam: train steps and a forward pass."""
    try:
        from benchmarks import torch_adm
    except ImportError as error:
        yield {"left out": f"PyTorch cannot be imported: {error}"}
        return
    eager = torch_adm.Mode(bfloat16=True, channels_last=True, fused=True)
    compiled = replace(eager, compiled=True)
    small, large = Case("ADM 128 channels", ADM_128, 128, 64), Case("ADM 256 channels", ADM_256, 128, 64)
    chosen = [
        (replace(small, how=compiled), torch_adm.TRAIN_STEP),
        (replace(large, how=compiled), torch_adm.TRAIN_STEP),
        (replace(small, how=compiled, batch=128), torch_adm.FORWARD),
        (replace(small, how=eager), torch_adm.TRAIN_STEP),
    ]
    if context.tiny:
        chosen = [(Case("tiny", TINY, 16, 4, how=eager), what) for what in (torch_adm.TRAIN_STEP, torch_adm.FORWARD)]
    for case, what in context.pick(chosen):
        yield {**case.row, "what": what, **cases.reported(lambda case=case, what=what: _torch_row(context, case, what))}


def _torch_row(context: Context, case: Case, what: str) -> Row:
    """One kind of call, compiled beside others and then measured alone."""
    from benchmarks import torch_adm

    start, compiled_after = time.perf_counter(), []
    with ExitStack() as stack:

        def alone() -> None:
            if not compiled_after:
                compiled_after.append(time.perf_counter() - start)
                stack.enter_context(context.turns.turn())

        setting = Setting(case.name, case.shape, case.px, case.batch)
        call = torch_adm.calls(setting, case.how, before_running=alone)[what]
        torch_adm.forget_peak_memory()
        first = seconds_of(call)
        times = cases.timed(call)
    forwards = TRAIN_FORWARDS if what == torch_adm.TRAIN_STEP else 1
    flops = forwards * ours.forward_flop(case.shape, case.px) * case.batch / times.median
    return {
        "img/s": case.batch / times.median,
        "TFLOP/s": flops / 1e12,
        "share of peak": context.share(flops),
        "peak GiB": torch_adm.peak_memory_bytes() / GIB,
        "compile s": compiled_after[0] if case.how.compiled else None,
        "first call s": first,
        "call s": times.shown(),
        "n": times.count,
    }


def sampling(context: Context) -> Iterator[Row]:
    """Samplers in bfloat16: images a second, share of the limit, and time over that of the network calls alone.

    The limit is the FLOP of all network calls at the peak. A guided step is compared with two network calls.
    """
    few = 3 if context.tiny else 25
    hows = [ours.Sampling("ddim", few), ours.Sampling("ddim", few, guidance=1.0)]
    networks = [Case("ADM 128 channels", ADM_128, 128, 128), Case("LDM 192 channels", LDM, 128, 128)]
    networks += [Case("ADM 256 channels", ADM_256, 128, 128)]
    if context.tiny:
        networks = [Case("tiny", TINY, 16, 2), Case("tiny latent", TINY_LATENT, 16, 2)]
    alone: dict[str, float] = {}
    chosen = [replace(case, how=how) for case in context.pick(networks) for how in (None, *hows)]
    yield from cases.one_by_one(chosen, lambda context, case: _prepare_sampling(context, case, alone), context)


def _prepare_sampling(context: Context, case: Case, alone: dict[str, float]) -> Measurement:
    """The network alone, whose seconds go into ``alone``, or a sampler; latents are decoded at the end."""
    network, codec = ours.make_network(case.shape, jnp.bfloat16), ours.make_codec(case.shape, jnp.bfloat16)
    key, how = jax.random.key(0), case.how
    labels = jnp.arange(case.batch, dtype=jnp.int32) % (case.shape.num_classes - 1)

    def fresh(key: jax.Array) -> tuple[Any, Any]:
        return ours.random_parameters(network, key), ours.codec_parameters(codec, key)

    begin, shapes = jax.jit(fresh).lower(key), jax.eval_shape(fresh, key)
    if how is None:
        x = jax.ShapeDtypeStruct((case.batch, *codec.shape((case.px, case.px))), jnp.float32)
        forward = jax.jit(lambda p, w, x, y: network.apply(p, {}, x, y, {LABEL.name: y})[0])
        program = forward.lower(*shapes, x, labels)
    else:
        draw = ours.make_draw(network, how, px=case.px, num_classes=case.shape.num_classes - 1, codec=codec)
        program = jax.jit(lambda p, w, k, y: codec.decode(w, draw(p, k, y))).lower(*shapes, key, labels)
    calls = how.forwards(ours.linear_noise()) if how else 1
    decoder = ours.codec_flop(case.shape, case.px)[1] if how else 0.0
    flop = case.batch * (calls * ours.forward_flop(case.shape, case.px) + decoder)

    def measure() -> Row:
        start = time.perf_counter()
        call = program.compile()
        seconds = time.perf_counter() - start
        given = key if how else jax.random.normal(key, x.shape)
        times = cases.timed(call, *begin.compile()(key), given, labels, calls=1 if how else STEPS_AT_ONCE)
        if how is None:
            alone[case.name] = times.median
        return {
            **({} if how else {"how": "network alone"}),
            "img/s": case.batch / times.median,
            "share of limit": context.share(flop / times.median),
            "time over network alone": times.median / (calls * alone[case.name]) - 1 if case.name in alone else None,
            "compile s": seconds,
            "seconds": times.shown(),
            "n": times.count,
        }

    return measure


def run(context: Context) -> Iterator[Row]:
    """A short training run on real patches."""
    if context.patches is None:
        yield {"left out": "no --patches given"}
        return
    deadline = min(context.deadline, time.monotonic() + (0 if context.tiny else LONGEST_RUN))
    with context.turns.turn():
        yield short_run.train_and_draw(context.patches, context.out, deadline=deadline, tiny=context.tiny)


SECTIONS = {
    section.__name__: section
    for section in (peak, convolutions.convolution, correctness, training, profile, torch, sampling, flags, run)
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
    parser.add_argument("--turns", nargs=2, required=True, metavar=("DIRECTORY", "NUMBER"))
    options = parser.parse_args()
    turns = Turns(Path(options.turns[0]), int(options.turns[1]))
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
