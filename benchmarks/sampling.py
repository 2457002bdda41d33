"""What our samplers cost beside the network's forward passes, and against diffusers', on the CPU, in float32.

    python -m benchmarks.sampling --out benchmarks/results/NAME.json [--settings small,adm128] [--tiny]

All of a setting is timed in turns (A B A B ...) in one process; seconds are wall-clock. Ratios are medians of those of
each turn, and of the fastest. A sampler is one compiled program that draws its noise from a key and takes N steps. Its
``overhead`` is its time over that of N forward passes, less 1:

- calls: the compiled network called N times from Python, each time on its own last output, with one wait at the end or
  one for each call, whichever is faster;
- scan: N turns of a compiled ``lax.scan`` of the bare network, since XLA may compile a loop's body differently.

Both are differences of two long times, and noisy. ``own work`` is not: the same sampler with a network that costs
nothing, over that scan.

``guidance`` has the time of guided DDIM over that of as many forward passes in unguided DDIM, a guided step counted as
two, and beside it that of the bare network on a batch of twice the size. ``pytorch`` is the same network with the same
parameters, run eagerly under ``torch.inference_mode`` in a plain loop with diffusers' schedulers; without ``torch`` or
``diffusers`` it says that they are not installed. The goals: overhead at most 0.02, guidance at most 1.
"""

import argparse
import importlib.util
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import measure, ours
from benchmarks.measure import Row
from benchmarks.ours import Sampling
from benchmarks.shapes import ADM_128, SMALL, TINY, Setting
from diffpath_jax.io.files import write_json
from diffpath_jax.networks.conditions import LABEL
from diffpath_jax.shapes import Conditions, Images, Labels, Tree
from diffpath_jax.weights.safetensors_file import flatten

# The share of the schedule that holds half of DDIM's steps.
HALF = (0.25, 0.75)
# The baselines.
CALLS, WAITING, SCAN = "network, N calls, one wait", "network, N calls, N waits", "network, scan of N turns"
DOUBLED = "network, batch doubled, scan of N turns"
# Turns of a sampler alone that are timed together: one is over in less than a clock can tell.
ALONE_REPEATS = 20
# The samplers that have a counterpart in PyTorch, and the packages that takes.
COMPARED, NEEDED = ("ddim", "dpmpp"), ("torch", "diffusers")

# Seconds in each turn, by name.
Taken = Mapping[str, Sequence[float]]


class FreeNetwork:
    """Stands in for a network where only what surrounds it is timed."""

    def apply(
        self, params: Tree, model_state: Tree, x: Images, t: jax.Array, conditions: Conditions
    ) -> tuple[Images, Tree]:
        """One product a value."""
        return 0.1 * x, {}


def samplings(steps: int) -> list[Sampling]:
    """Every method; DDIM guided always, and in half of its steps."""
    plain = [Sampling(sampler, steps) for sampler in ours.SAMPLERS]
    return [*plain, Sampling("ddim", steps, guidance=1.0), Sampling("ddim", steps, guidance=1.0, guided=HALF)]


# The setting, what is drawn in it (unguided DDIM first, all in N steps), and the turns that are timed.
SETTINGS = {
    "tiny": (Setting("tiny, 16 px, batch 2", TINY, 16, 2), samplings(4), 2),
    "small": (Setting("64 channels, 64 px, batch 2", SMALL, 64, 2), samplings(10), 4),
    "adm128": (Setting("128 channels, 128 px, batch 1", ADM_128, 128, 1), samplings(5)[:1], 3),
}


def measure_setting(name: str) -> dict[str, list[Row]]:
    """The rows of all tables."""
    setting, hows, rounds = SETTINGS[name]
    network = ours.make_network(setting.shape, jnp.float32)
    params = jax.jit(lambda key: ours.random_parameters(network, key))(jax.random.key(0))
    compared = [how for how in hows if how.sampler in COMPARED and not how.guidance]
    missing = [package for package in NEEDED if importlib.util.find_spec(package) is None]
    calls, compile_seconds = _our_calls(setting, hows, params)
    calls |= {} if missing else _pytorch_calls(setting, compared, params)
    taken = measure.in_turns(calls, rounds=rounds)
    tables = {
        "overhead": overhead(hows, taken, compile_seconds),
        "guidance": guidance(hows, taken),
        "pytorch": against_pytorch(compared, taken, batch=setting.batch, missing=missing),
    }
    return {table: [{"setting": setting.name, **row} for row in rows] for table, rows in tables.items()}


def _our_calls(
    setting: Setting, hows: Sequence[Sampling], params: Tree
) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """What is timed of ours, by name, and the seconds that it took to compile."""
    network, num_classes = ours.make_network(setting.shape, jnp.float32), setting.shape.num_classes - 1
    labels = jnp.arange(setting.batch, dtype=jnp.int32) % num_classes
    key = jax.random.key(1)
    x_T = jax.random.normal(key, (setting.batch, setting.px, setting.px, 3))
    visited = jnp.asarray(hows[0].respaced(ours.linear_noise()).timesteps)[::-1]
    timesteps = [jnp.full(setting.batch, t) for t in visited]

    def forward(params: Tree, x: Images, t: jax.Array, labels: Labels) -> Images:
        return network.apply(params, {}, x, t, {LABEL.name: labels})[0]

    def scan(params: Tree, x: Images, labels: Labels) -> Images:
        return jax.lax.scan(lambda x, t: (forward(params, x, jnp.full(len(x), t), labels), None), x, visited)[0]

    call, seconds = ours.compiled(forward, params, x_T, timesteps[0], labels)
    loop, loop_seconds = ours.compiled(scan, params, x_T, labels)

    def in_turn(*, wait: bool) -> None:
        x = x_T
        for t in timesteps:
            x = call(params, x, t, labels)
            if wait:
                x.block_until_ready()
        x.block_until_ready()

    calls: dict[str, Callable[[], object]] = {
        CALLS: partial(in_turn, wait=False),
        WAITING: partial(in_turn, wait=True),
        SCAN: partial(_finished, loop, params, x_T, labels),
    }
    compile_seconds = {CALLS: seconds, WAITING: seconds, SCAN: loop_seconds}
    if any(how.guidance for how in hows):
        twice, both_labels = jnp.concatenate([x_T, x_T]), jnp.concatenate([labels, labels])
        doubled, compile_seconds[DOUBLED] = ours.compiled(scan, params, twice, both_labels)
        calls[DOUBLED] = partial(_finished, doubled, params, twice, both_labels)
    for how in hows:
        draw = ours.make_draw(network, how, px=setting.px, num_classes=num_classes)
        sampler, compile_seconds[how.name] = ours.compiled(draw, params, key, labels)
        calls[how.name] = partial(_finished, sampler, params, key, labels)
        alone = ours.make_draw(FreeNetwork(), how, px=setting.px, num_classes=num_classes)
        calls[_alone(how)] = partial(_repeated, ours.compiled(alone, {}, key, labels)[0], {}, key, labels)
    return calls, compile_seconds


def _finished(call: Callable[..., jax.Array], *inputs: Any) -> None:
    call(*inputs).block_until_ready()


def _repeated(call: Callable[..., jax.Array], *inputs: Any) -> None:
    for _ in range(ALONE_REPEATS):
        _finished(call, *inputs)


def _alone(how: Sampling) -> str:
    return f"{how.name}, alone"


def _pytorch_calls(setting: Setting, hows: Sequence[Sampling], params: Tree) -> dict[str, Callable[[], object]]:
    from benchmarks import torch_adm, torch_sampling

    torch_adm.use_all_cores()
    draw = torch_sampling.load(setting, flatten(params))
    return {_in_pytorch(how): partial(draw, how.sampler, how.steps) for how in hows}


def _in_pytorch(how: Sampling) -> str:
    return f"{how.name}, PyTorch"


def overhead(hows: Sequence[Sampling], taken: Taken, compile_seconds: Mapping[str, float]) -> list[Row]:
    """The baselines, and every unguided sampler over them, less 1."""
    calls = min(taken[CALLS], taken[WAITING], key=statistics.median)
    rows: list[Row] = [_seconds(name, taken) for name in (CALLS, WAITING, SCAN)]
    for how in hows:
        if not how.guidance:
            own = taken[how.name]
            shares = _ratios("calls", own, calls, less=1) | _ratios("scan", own, taken[SCAN], less=1)
            rows.append(_seconds(how.name, taken) | shares | {"own work": _own_work(how, taken)})
    return [row | {"compile s": compile_seconds[str(row["what"])]} for row in rows]


def _own_work(how: Sampling, taken: Taken) -> float:
    return measure.median_ratio(taken[_alone(how)], taken[SCAN]) / ALONE_REPEATS


def guidance(hows: Sequence[Sampling], taken: Taken) -> list[Row]:
    """Guided DDIM, and the network on a batch of twice the size, over as many forward passes in DDIM without."""
    trained, free = ours.linear_noise(), taken[hows[0].name]
    guided = {how.name: how for how in hows if how.guidance}
    counts = {DOUBLED: 2 * hows[0].steps} | {name: how.forwards(trained) for name, how in guided.items()}
    return [
        _seconds(name, taken)
        | {"forwards": count}
        | _ratios("as many unguided", taken[name], free, multiple=count / hows[0].steps)
        | ({"own work": _own_work(guided[name], taken)} if name in guided else {})
        for name, count in (counts if guided else {}).items()
    ]


def against_pytorch(hows: Sequence[Sampling], taken: Taken, *, batch: int, missing: Sequence[str]) -> list[Row]:
    """Ours over PyTorch's, or what is missing."""
    if missing:
        return [{"what": how.name, "left out": f"not installed: {', '.join(missing)}"} for how in hows]
    rows = []
    for how in hows:
        ratios = _ratios("ours / this", taken[how.name], taken[_in_pytorch(how)])
        for name, more in ((how.name, {}), (_in_pytorch(how), ratios)):
            rows.append(_seconds(name, taken) | {"s / image": statistics.median(taken[name]) / batch} | more)
    return rows


def _seconds(what: str, taken: Taken) -> Row:
    own = measure.times_of(taken[what])
    return {"what": what, "median s": own.median, "fastest s": own.fastest, "slowest s": own.slowest, "n": own.count}


def _ratios(name: str, own: Sequence[float], base: Sequence[float], *, multiple: float = 1.0, less: float = 0.0) -> Row:
    """Own time over a multiple of a base's, less a number: the median over the turns, and that of the fastest."""
    return {
        name: measure.median_ratio(own, base) / multiple - less,
        f"{name}, fastest": min(own) / min(base) / multiple - less,
    }


def main(argv: list[str] | None = None) -> int:
    """Measure, write JSON, print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--settings", default="small,adm128", help="some of " + ", ".join(SETTINGS))
    parser.add_argument("--tiny", action="store_const", dest="settings", const="tiny", help="only to see that it works")
    options = parser.parse_args(argv)
    content: dict[str, Any] = {"what": " ".join((__doc__ or "").split()), "machine": measure.machine()}
    content |= {"overhead": [], "guidance": [], "pytorch": [], "load_average": [measure.machine()["load_average"]]}
    for name in options.settings.split(","):
        for table, rows in measure_setting(name).items():
            content[table] += rows
        content["load_average"].append(measure.machine()["load_average"])
        if options.out:
            write_json(options.out, content)
    print(*(measure.table(content[table]) for table in ("overhead", "guidance", "pytorch")), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
