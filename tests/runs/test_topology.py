"""A train step compiled for devices that are not here: what is said of it is what the program is."""

import importlib.util
import math

import jax
import pytest

from diffpath_jax import cli
from diffpath_jax.config import checks
from diffpath_jax.config.files import load
from diffpath_jax.devices import sharding
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.networks import target
from diffpath_jax.runs import topology
from diffpath_jax.runs.cost import bytes_on_one, shapes_of
from diffpath_jax.runs.topology import Program, Traffic
from diffpath_jax.training.step import loop_turns

CONFIG = "configs/ddpm_pkgh224.py:debug"
TINY = {"channels": 32, "channel_mult": (1,), "num_res_blocks": 1, "attention_downsamples": (1,), "num_heads": 2}
# As XLA writes them; sizes worked by hand below.
HLO = """
%all-reduce-scatter.1 (input.1: f32[3,3,128,64]) -> f32[3,3,64,64] {
  %all-reduce.207 = f32[3,3,128,64]{3,2,1,0:T(8,128)} all-reduce(%input.1), replica_groups={{0,1},{2,3}}
  ROOT %dynamic-slice.301 = f32[3,3,64,64]{3,2,1,0:T(8,128)} dynamic-slice(%all-reduce.207, %multiply.1233)
}

ENTRY %main (p: bf16[10]) -> f32[4] {
  %fusion.17 = f32[3,3,64,64]{3,2,1,0:T(8,128)} fusion(%fusion.453), kind=kCustom, calls=%all-reduce-scatter.1
  %all-reduce.227 = (f32[3,3]{1,0:T(8,128)}, s32[]) all-reduce(%fusion.987, %copy-done.352), channel_id=161
  %get-tuple-element.1 = f32[3,3]{1,0:T(8,128)} get-tuple-element(%all-reduce.227), index=0
  %all-reduce-start.2 = f32[5]{0} all-reduce-start(%x), channel_id=1
  %all-reduce-done.2 = f32[5]{0} all-reduce-done(%all-reduce-start.2)
  %ag = (bf16[10]{0:T(128)}, bf16[40]{0:T(128)}) all-gather-start(%p), dimensions={0}
  %ag-done = bf16[40]{0} all-gather-done(%ag)
  %ag2 = ((f32[1]{0:T(128)}, f32[2]{0:T(128)}), (f32[4]{0:T(128)}, f32[8]{0:T(128)})) all-gather-start(%a, %b)
  %cp = (f8e4m3fn[16]{0}, f8e4m3fn[16]{0}, u32[], u32[]) collective-permute-start(%y)
  %rs = pred[7]{0} reduce-scatter(%z), dimensions={0}
}
"""


def config(**changes):
    content = load(CONFIG, [], checks.with_defaults)
    content["network"] |= TINY | {"channels": changes.get("channels", TINY["channels"])}
    content["train"]["fsdp"] = changes.get("fsdp", 1)
    content["optim"]["accumulate"] = changes.get("accumulate", 1)
    content["data"]["batch_size"] = changes.get("batch_size", 16)
    return checks.run_config(content, where="test")


def compiled(settings, devices):
    mesh = sharding.make_mesh(devices, fsdp=settings.train.fsdp)
    run = shapes_of(settings, image_px=(16, 16), num_classes=5)
    step = topology.compile_step(settings, run, mesh)
    return run, mesh, topology.describe(step, mesh, accumulate=settings.optim.accumulate)


def bytes_of(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def test_collectives_of_a_program():
    assert topology.collectives(HLO) == {
        "reduce-scatter": Traffic(2, 4 * 3 * 3 * 64 * 64 + 7),
        "all-reduce": Traffic(2, (4 * 9 + 4) + 4 * 5),
        "all-gather": Traffic(2, 2 * 40 + 4 * (4 + 8)),
        "collective-permute": Traffic(1, 16),
    }
    assert topology.collectives("ENTRY %main () -> f32[] {\n}") == {}


@pytest.mark.full
def test_data_parallel_training_sums_gradients_and_sends_nothing_else():
    run, _, program = compiled(config(), jax.devices()[:8])
    gradients = bytes_of(run.state.params)
    assert set(program.traffic) == {"all-reduce"}
    # Every gradient once in float32; besides it the numbers of the log.
    assert gradients <= program.traffic["all-reduce"].bytes <= gradients + 2000
    # State whole on every device, an eighth of the batch, and the key of the run.
    assert program.argument_bytes == bytes_of(run.state) + bytes_of(run.batch) // 8 + 8
    assert (program.devices, program.device_kind) == (8, "cpu")


def split_bytes(run, mesh):
    """Size of the parameters that devices share."""
    places = sharding.state_shardings(run.state.params, mesh)
    pairs = zip(jax.tree.leaves(run.state.params), jax.tree.leaves(places), strict=True)
    return sum(leaf.size * leaf.dtype.itemsize for leaf, place in pairs if not place.is_fully_replicated)


def state_on_one(run, mesh):
    return bytes_on_one(run.state, sharding.state_shardings(run.state, mesh))


@pytest.fixture
def small_arrays_are_split(monkeypatch):
    """Of a tiny network almost all arrays would be copied."""
    monkeypatch.setattr(sharding, "MIN_SPLIT_SIZE", 2**9)


@pytest.mark.usefixtures("small_arrays_are_split")
def test_split_state_is_gathered_and_activations_never_are():
    run, mesh, program = compiled(config(fsdp=8), jax.devices()[:8])
    assert program.argument_bytes == state_on_one(run, mesh) + bytes_of(run.batch) // 8 + 8
    assert program.argument_bytes < bytes_of(run.state) / 4
    # Each split kernel is gathered for the forward pass and for the backward pass at most.
    split = split_bytes(run, mesh)
    assert split <= program.traffic["all-gather"].bytes <= 2 * split


@pytest.mark.full
@pytest.mark.usefixtures("small_arrays_are_split")
@pytest.mark.parametrize("fsdp", [1, 4])
def test_collectives_do_not_grow_with_the_batch(fsdp):
    small, large = (compiled(config(batch_size=size, fsdp=fsdp), jax.devices()[:4])[2] for size in (8, 32))
    assert small.traffic == large.traffic
    assert large.temporary_bytes > small.temporary_bytes


@pytest.mark.full
@pytest.mark.usefixtures("small_arrays_are_split")
def test_collectives_as_devices_grow():
    copied = [compiled(config(), jax.devices()[:count])[2] for count in (2, 8)]
    # Every gradient once, whatever the number of devices.
    assert copied[0].traffic == copied[1].traffic
    for count in (2, 8):
        run, mesh, program = compiled(config(fsdp=count), jax.devices()[:count])
        assert split_bytes(run, mesh) <= program.traffic["all-gather"].bytes <= 2 * split_bytes(run, mesh)
        # What is copied is summed whole; of what is split each device needs a part, which CPUs cut from the whole.
        summed = sum(
            program.traffic[kind].bytes for kind in ("all-reduce", "reduce-scatter") if kind in program.traffic
        )
        gradients = bytes_of(run.state.params)
        assert gradients - split_bytes(run, mesh) * (1 - 1 / count) <= summed <= gradients + 2000


@pytest.mark.parametrize(
    "name",
    [
        "ddpm_pkgh224.py",
        *(pytest.param(name, marks=pytest.mark.full) for name in ("ldm_pkgh224.py", "vqgan_f4_pkgh.py")),
    ],
)
def test_64_chips_keep_less_than_a_32nd_of_the_state_each(name):
    settings = checks.run_config(load(f"configs/{name}", [], checks.with_defaults), where="test")
    run = shapes_of(settings, image_px=(128, 128), num_classes=5)
    assert state_on_one(run, sharding.abstract_mesh(64, fsdp=64)) < bytes_of(run.state) / 32


def program(**changes):
    numbers = {"argument_bytes": 15 * 2**30, "temporary_bytes": 20 * 2**30, "flop": 45.9e12, "seconds": 0.2}
    return Program(device_kind="TPU v5", devices=4, traffic={}, **{**numbers, **changes})


def test_what_fits():
    # 95 GiB less 15 of state are four times the 20 that 64 images take.
    assert program().free_bytes == 60 * 2**30
    assert program().fitting_batch(64) == 4 * 64
    assert program(temporary_bytes=81 * 2**30).free_bytes < 0
    assert program(temporary_bytes=160 * 2**30).fitting_batch(64) == 32
    assert program().share_of_peak == pytest.approx(0.5)
    unknown = Program("cpu", 4, 1, 1, 1.0, 0.0, {})
    assert math.isnan(unknown.free_bytes)
    assert math.isnan(unknown.share_of_peak)
    assert unknown.fitting_batch(64) == 0


def test_a_loop_that_the_target_has_is_traced():
    assert loop_turns(4) == 1
    with target.compiling_for("tpu"):
        assert target.platform() == "tpu"
        assert loop_turns(4) == 4
    assert target.platform() == "cpu"


def dry_run(*words):
    return cli.main(["train", "--config", CONFIG, "--dry_run", *words])


def test_without_libtpu_it_is_said(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert dry_run("--topology", "v5p:2x2x1") == ExitCode.BAD_INPUT
    assert "libtpu is not installed; fix: pip install 'diffpath[topology]'" in capsys.readouterr().err


def test_only_a_dry_run_has_a_topology(capsys, tmp_path):
    words = ["train", "--config", CONFIG, "--workdir", str(tmp_path / "run"), "--topology", "v5p:2x2x1"]
    assert cli.main(words) == ExitCode.BAD_INPUT
    assert "fix: add --dry_run" in capsys.readouterr().err


@pytest.mark.full
def test_the_command_says_what_was_compiled(monkeypatch, capsys):
    monkeypatch.setattr(topology, "slice_devices", lambda name: jax.devices()[:2])
    words = [f"--config.network.{name}={value}" for name, value in TINY.items()]
    assert dry_run("--topology", "v5p:2x1x1", *words) == ExitCode.OK
    said = capsys.readouterr().err
    for word in ("2 x cpu: compiled for, nothing has run", "state and batch", "data 2 x fsdp 1", "all-reduce of"):
        assert word in said


def test_a_step_that_does_not_fit_is_an_error_of_one_line(monkeypatch):
    def full(self, **_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory: used 99G of 95G\nmore")

    monkeypatch.setattr(topology, "lower_step", lambda *_, **__: jax.jit(lambda: 0).lower())
    monkeypatch.setattr(jax.stages.Lowered, "compile", full)
    with pytest.raises(DiffpathError, match=r"used 99G of 95G; fix: more devices"):
        compiled(config(), jax.devices()[:2])


@pytest.mark.full
def test_a_slice_of_tpus():
    pytest.importorskip("libtpu")
    devices = topology.slice_devices("v5p:4x4x4")
    # Any number of chips of a cube may share the state.
    for fsdp in (1, 2, 8, 64):
        assert sharding.make_mesh(devices, fsdp=fsdp).size == 64
    with pytest.raises(DiffpathError, match="fix: name a slice such as"):
        topology.slice_devices("v5p:nonsense")
    run, _, program = compiled(config(batch_size=8), topology.slice_devices("v5p:2x2x1"))
    assert program.device_kind == "TPU v5"
    # Every gradient, but for the numbers of a few biases.
    assert program.traffic["all-reduce"].bytes == pytest.approx(bytes_of(run.state.params), rel=0.01)
    assert 0 < program.seconds < 1
    assert program.free_bytes > 90 * 2**30


@pytest.mark.full
@pytest.mark.usefixtures("small_arrays_are_split")
def test_a_slice_of_64_chips_shares_the_state():
    pytest.importorskip("libtpu")
    settings = config(batch_size=64, fsdp=64, channels=64)
    run, mesh, program = compiled(settings, topology.slice_devices("v5p:4x4x4"))
    # A TPU pads small arrays; those of networks at full size are hardly more (benchmarks/results/pods.json).
    assert state_on_one(run, mesh) <= program.argument_bytes <= 2 * state_on_one(run, mesh)
    # XLA gathers some pieces as sums of what is zero elsewhere: one for each pass, and the gradients.
    assert sum(each.bytes for each in program.traffic.values()) <= 3 * bytes_of(run.state.params)
