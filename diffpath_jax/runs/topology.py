"""Programs of a run, compiled for devices that are not here: what they need and what they send.

XLA compiles for any slice of TPUs on any machine that has the package ``libtpu``. Memory, collectives and FLOP are
those of the program that such a slice would run; the time is XLA's own guess, which no device has confirmed.
"""

import importlib.util
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.errors import JaxRuntimeError
from jax.experimental import topologies
from jax.sharding import Mesh

from diffpath_jax.config import sections
from diffpath_jax.devices import sharding
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.networks import target
from diffpath_jax.runs.cost import RunShapes
from diffpath_jax.training.loop import lower_step
from diffpath_jax.training.step import loop_turns

GIB = 2**30
WHERE = "--topology"
# Memory (GiB) and bfloat16 peak (FLOP a second) of one device, by what JAX calls it ("Cloud TPU system architecture").
TPUS = {
    "TPU v3": (16.0, 61.5e12),
    "TPU v4": (32.0, 275e12),
    "TPU v5 lite": (16.0, 197e12),
    "TPU v5": (95.0, 459e12),
    "TPU v6 lite": (32.0, 918e12),
}
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BITS = {"pred": 8, "bf16": 16}
# `%name = SHAPE all-reduce(...)`; what is asynchronous has a start, which counts, and an end, which does not.
_COLLECTIVE = re.compile(rf"= (?P<shape>\(.*?\)|\S+) (?P<kind>{'|'.join(COLLECTIVES)})(?P<start>-start)?\(")
# TPUs have a reduce-scatter as a computation of its own, which says that it reduces all and takes a part.
_SCATTERED = re.compile(r"%all-reduce-scatter\S* \(.*\) -> (?P<shape>.*) \{")
_ARRAY = re.compile(r"\b(?P<type>pred|bf16|[fsuc]\d+)(?:e\w+)?\[(?P<sizes>[\d,]*)\]")
# The least search for tilings, which decide how fast a program runs and hardly what it holds and sends: compiling takes
# minutes otherwise. With more search XLA has no estimate of some operations, and takes a second off for each.
_QUICKLY: dict[str, Any] = {"exec_time_optimization_effort": -1.0}
# libtpu looks for the machine it runs on, and waits for an answer, where nothing tells it; and it wants to be alone on
# a machine, which whoever uses no TPU need not be.
_NO_TPU_HERE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5p-8",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclass(frozen=True)
class Traffic:
    """Collectives of one kind.

    Attributes:
        count: how many a step; those inside a loop count once.
        bytes: size of their results on one device.
    """

    count: int
    bytes: int


@dataclass(frozen=True)
class Program:
    """A compiled program, as one device sees it: a train step, or the drawing of a batch.

    Attributes:
        device_kind: what JAX calls the device.
        devices: how many there are.
        argument_bytes: train state, batch and whatever else it is given.
        temporary_bytes: what it needs besides.
        flop: one turn of a loop counts; 0 where the compiler does not say.
        seconds: likewise, XLA's own estimate; 0 where it has none.
        traffic: collectives by kind.
    """

    device_kind: str
    devices: int
    argument_bytes: int
    temporary_bytes: int
    flop: float
    seconds: float
    traffic: dict[str, Traffic]

    @property
    def memory_bytes(self) -> int:
        """Returns the memory that it takes."""
        return self.argument_bytes + self.temporary_bytes

    @property
    def free_bytes(self) -> float:
        """Returns what such a device has besides; negative where it does not fit, NaN for an unknown device."""
        memory_gib, _ = TPUS.get(self.device_kind, (math.nan, math.nan))
        return memory_gib * GIB - self.memory_bytes

    @property
    def share_of_peak(self) -> float:
        """Returns the share of the published peak in the time that XLA guesses; NaN where either is unknown."""
        _, peak = TPUS.get(self.device_kind, (math.nan, math.nan))
        return self.flop / self.seconds / peak if self.seconds else math.nan

    def fitting_batch(self, batch_size: int) -> int:
        """Returns the largest global batch that fits, if temporary memory grows with the batch; 0 where unknown."""
        if math.isnan(self.free_bytes) or not self.temporary_bytes:
            return 0
        most = batch_size * (1 + self.free_bytes / self.temporary_bytes)
        return max(int(most) // self.devices * self.devices, 0)


def slice_devices(name: str) -> Sequence[jax.Device]:
    """Returns stand-ins for the devices of a slice of TPUs.

    Args:
        name: such as ``v5p:4x4x4`` or ``v5e:4x4``.

    Raises:
        DiffpathError: no libtpu, or no such slice.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise DiffpathError(WHERE, where=name, why="libtpu is not installed", fix="pip install 'diffpath[topology]'")
    for variable, value in _NO_TPU_HERE.items():
        os.environ.setdefault(variable, value)
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    except JaxRuntimeError as error:
        first = str(error).splitlines()[0]
        fix = "name a slice such as v5p:2x2x1, v5p:4x4x4, v5e:4x4 or v6e:4x4"
        raise DiffpathError(WHERE, where=name, why=first, fix=fix) from None


def compile_step(config: sections.RunConfig, run: RunShapes, mesh: Mesh) -> jax.stages.Compiled:
    """Returns the train step of a run, compiled for the devices of a mesh, which need not be here.

    Args:
        config: of the run.
        run: its shapes, of the same config.
        mesh: devices.

    Raises:
        DiffpathError: the step does not fit into the memory of a device.
    """
    replicated = sharding.replicated(mesh)
    state = _placed(run.state, sharding.state_shardings(run.state, mesh))
    batch = everywhere(run.batch, sharding.batch_sharding(mesh))
    key = everywhere(jax.eval_shape(lambda: jax.random.key(0)), replicated)
    inputs = (state, batch, key, everywhere(run.task.frozen_params, replicated))
    with target.compiling_for(mesh.devices.flat[0].platform):
        lowered = lower_step(run.task, config.optim, config.train, mesh=mesh, inputs=inputs)
    fix = "more devices, or a larger optim.accumulate or train.fsdp, or network.remat=True"
    return fitting(lowered, where=f"a step of {config.data.batch_size} images", fix=fix)


def fitting(lowered: jax.stages.Lowered, *, where: str, fix: str) -> jax.stages.Compiled:
    """Returns a program, compiled with little effort: for its numbers, not to be run.

    Args:
        lowered: the program, traced.
        where: the work that it does.
        fix: what makes it smaller.

    Raises:
        DiffpathError: it does not fit into the memory of a device.
    """
    try:
        return lowered.compile(compiler_options=_QUICKLY)
    except JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        first = str(error).splitlines()[0]
        raise DiffpathError("memory", where=where, why=first, fix=fix) from None


def describe(compiled: jax.stages.Compiled, mesh: Mesh, *, accumulate: int = 1) -> Program:
    """Returns what a compiled program needs.

    Args:
        compiled: such as :func:`compile_step` returns.
        mesh: that it is compiled for.
        accumulate: of the config of a train step, as XLA counts one turn of a loop.
    """
    device = mesh.devices.flat[0]
    memory: Any = compiled.memory_analysis()
    work = compiled.cost_analysis() or {}
    with target.compiling_for(device.platform):
        turns = loop_turns(accumulate)
    return Program(
        device_kind=device.device_kind,
        devices=mesh.size,
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
        flop=turns * float(work.get("flops", 0.0)),
        seconds=turns * max(float(work.get("optimal_seconds", 0.0)), 0.0),
        traffic=collectives(compiled.as_text() or ""),
    )


def everywhere(arrays: Any, place: jax.sharding.NamedSharding) -> Any:
    """Returns shapes that all live in the same way, of arrays or of shapes."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), arrays)


def collectives(text: str) -> dict[str, Traffic]:
    """Returns the collectives of an optimised program, by kind.

    Args:
        text: HLO.
    """
    sizes: dict[str, list[int]] = {}
    inside = False
    for line in text.splitlines():
        if scattered := _SCATTERED.match(line):
            inside = True
            sizes.setdefault("reduce-scatter", []).append(_size(scattered["shape"]))
        elif line.startswith("}"):
            inside = False
        elif not inside and (found := _COLLECTIVE.search(line)):
            shape = _results(found["shape"]) if found["start"] and found["kind"] != "all-reduce" else found["shape"]
            sizes.setdefault(found["kind"], []).append(_size(shape))
    return {kind: Traffic(len(each), sum(each)) for kind, each in sizes.items()}


def _results(shape: str) -> str:
    """Returns the second part of ``(operand, result, ...)`` or ``((operands), (results), ...)``."""
    if "), (" in shape:
        return shape.split("), (")[1]
    return list(_ARRAY.finditer(shape))[1].group()


def _size(shape: str) -> int:
    """Returns the bytes of all arrays of a shape."""
    return sum(
        math.prod(int(size) for size in array["sizes"].split(",") if size) * _bits(array["type"]) // 8
        for array in _ARRAY.finditer(shape)
    )


def _bits(kind: str) -> int:
    return _BITS.get(kind) or int(kind[1:])


def _placed(shapes: Any, places: Any) -> Any:
    """Returns shapes that live as they are told."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes, places
    )
