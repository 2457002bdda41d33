"""Several real processes on this machine: the same run as one process, and a dead one does not hang the others."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.devices import sharding
from diffpath_jax.training import optim
from diffpath_jax.training.checkpoint import Checkpoints
from diffpath_jax.training.metrics_log import read_metrics
from diffpath_jax.training.step import init_state, make_train_step
from tests.conftest import QUICK, train_words

STEPS = 4


def options(workdir, dataset, *extra):
    return [*train_words(workdir, dataset, {"train.num_steps": STEPS, "train.checkpoint_every": STEPS}), *extra]


def start(words, devices):
    environment = {**os.environ, "XLA_FLAGS": f"{QUICK} --xla_force_host_platform_device_count={devices}"}
    command = [sys.executable, "-m", "diffpath_jax.cli", *words]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def start_two(workdir, dataset, *extra):
    return start_several(options(workdir, dataset, *extra))


def start_several(words):
    """Two processes with one device each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    several = ["--coordinator", f"localhost:{port}", "--num_processes", "2"]
    return [start([*words, *several, "--process_id", str(i)], devices=1) for i in range(2)]


def finish(processes, timeout=300):
    ends = [process.communicate(timeout=timeout)[1] for process in processes]
    return [process.returncode for process in processes], ends


def losses(workdir):
    return [row["loss"] for row in read_metrics(workdir) if "loss" in row]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, dataset):
    """The same training by one process with two devices, and by two processes with one device each."""
    folder = tmp_path_factory.mktemp("distributed")
    codes, errors = finish([start(options(folder / "one", dataset), devices=2)])
    assert codes == [0], errors
    codes, errors = finish(start_two(folder / "two", dataset))
    assert codes == [0, 0], errors
    return folder


def test_two_processes_equal_one(runs):
    assert len(losses(runs / "two")) == STEPS
    np.testing.assert_allclose(losses(runs / "two"), losses(runs / "one"), atol=1e-5)
    one, two = (Checkpoints(runs / name).read(STEPS) for name in ("one", "two"))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one["ema"]), jax.tree.leaves(two["ema"]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("devices", [1, 8])
def test_what_two_processes_saved_goes_on_elsewhere(runs, devices, monkeypatch):
    """On one process with 1 or 8 devices, split or copied: the state is the same."""
    monkeypatch.setattr(sharding, "MIN_SPLIT_SIZE", 256)
    saved = Checkpoints(runs / "two").read(STEPS)
    mesh = sharding.make_mesh(jax.devices()[:devices], fsdp=min(devices, 4))
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), saved)
    places = sharding.state_shardings(shapes, mesh)
    like = jax.tree.map(lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p), shapes, places)
    restored = Checkpoints(runs / "two").restore(STEPS, like)
    for a, b in zip(jax.tree.leaves(saved), jax.tree.leaves(restored), strict=True):
        np.testing.assert_array_equal(a, b)
    split = [leaf for leaf in jax.tree.leaves(restored["params"]) if not leaf.sharding.is_fully_replicated]
    assert bool(split) == (devices > 1)


def wait_for(condition, processes, timeout=240):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end and all(process.poll() is None for process in processes)
        time.sleep(0.2)


LONG = ("--config.train.num_steps=100000", "--config.train.checkpoint_every=100000")


@pytest.mark.full
def test_sigterm_to_one_process_stops_all_after_a_checkpoint(tmp_path, dataset):
    processes = start_two(tmp_path / "run", dataset, *LONG)
    wait_for((tmp_path / "run" / "metrics.jsonl").exists, processes)
    processes[1].send_signal(signal.SIGTERM)
    codes, errors = finish(processes, timeout=120)
    assert codes == [143, 143], errors
    step = Checkpoints(tmp_path / "run").latest()
    assert step and f"SIGTERM at step {step}" in errors[0].replace("\n", " ")


@pytest.mark.full
def test_doctor_asks_every_process(tmp_path):
    codes, shown = finish(start_several(["doctor", "--for", "pod", "--shared", str(tmp_path)]))
    assert codes == [0, 0] and all("for pod" in text for text in shown), shown
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("a file is no directory")
    codes, shown = finish(start_several(["doctor", "--for", "pod", "--shared", str(tmp_path / "file")]))
    assert codes == [7, 7] and all("cannot write to" in text for text in shown), shown


@pytest.mark.full
def test_when_one_process_dies_the_other_stops_within_a_minute(tmp_path, dataset):
    processes = start_two(tmp_path / "run", dataset, *LONG)
    wait_for((tmp_path / "run" / "metrics.jsonl").exists, processes)
    processes[1].kill()
    died = time.monotonic()
    processes[0].communicate(timeout=60)
    assert processes[0].returncode not in (0, None)
    assert time.monotonic() - died < 60


@pytest.mark.full
def test_two_processes_draw_the_set_of_one(tmp_path, denoiser_run):
    """Three batches over two processes: the same records as from one."""
    fixed = ["sample", "--workdir", denoiser_run, "--num_per_class", 5, "--batch_size", 4, "--steps", 3]
    codes, errors = finish([start([str(w) for w in (*fixed, "--out", tmp_path / "one")], devices=1)])
    assert codes == [0], errors
    codes, errors = finish(start_several([str(w) for w in (*fixed, "--out", tmp_path / "two")]))
    assert codes == [0, 0], errors
    one, two = (open_dataset(tmp_path / name) for name in ("one", "two"))
    assert one.digest == two.digest
    assert two.count("train") == 10
    # A second set of processes in the same directory finds it done.
    codes, errors = finish(start_several([str(w) for w in (*fixed, "--out", tmp_path / "two")]))
    assert codes == [0, 0], errors


@pytest.mark.full
def test_fsdp_equals_data_parallel(dataset, monkeypatch):
    """Two steps with the state split over four devices, and with a copy on each."""
    monkeypatch.setattr(sharding, "MIN_SPLIT_SIZE", 256)
    from diffpath_jax.config.tasks import make_task
    from tests.training.test_loop import OPTIM, RUN, batches_of  # the same tiny network

    task = make_task(RUN, num_classes=2)
    config = dataclasses.replace(OPTIM, learning_rate=1e-3)
    host = next(batches_of(dataset)(0))
    states = []
    for fsdp in (1, 4):
        mesh = sharding.make_mesh(jax.devices(), fsdp=fsdp)

        def fresh(key):
            return init_state(task, config, key=key, batch=host, num_steps=6)

        places = sharding.state_shardings(jax.eval_shape(fresh, jax.random.key(0)), mesh)
        state = jax.jit(fresh, out_shardings=places)(jax.random.key(0))
        step = jax.jit(
            make_train_step(task, config, num_steps=6, log_every=1),
            out_shardings=(places, sharding.replicated(mesh)),
        )
        for _ in range(2):
            state, _ = step(state, sharding.shard_batch(host, mesh), jax.random.key(1))
        states.append(state)
    assert any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(states[1].opt_state))
    whole, split = (jax.device_get(state) for state in states)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(whole), jax.tree.leaves(split), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, err_msg=jax.tree_util.keystr(path))


def test_rules_split_kernels_and_copy_the_rest():
    mesh = sharding.make_mesh(jax.devices(), fsdp=8)
    shapes = {
        "kernel": jax.ShapeDtypeStruct((3, 3, 64, 256), np.float32),
        "odd": {"kernel": jax.ShapeDtypeStruct((3, 3, 129, 131), np.float32)},
        "bias": jax.ShapeDtypeStruct((2**15,), np.float32),
        "small": {"kernel": jax.ShapeDtypeStruct((8, 8), np.float32)},
    }
    places = sharding.state_shardings(shapes, mesh)
    assert places["kernel"].spec == jax.sharding.PartitionSpec(None, None, None, "fsdp")
    assert all(places[name].is_fully_replicated for name in ("bias",))
    assert places["odd"]["kernel"].is_fully_replicated
    assert places["small"]["kernel"].is_fully_replicated


def test_devices_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="groups of 3"):
        sharding.make_mesh(jax.devices(), fsdp=3)


def test_accumulation_is_the_mean_over_parts():
    """With a loss that draws nothing, four parts of a batch give the gradient of the whole."""
    from tests.training.test_loop import linear_task

    batch = {
        "image": jax.random.randint(jax.random.key(0), (8, 4, 4, 3), 0, 255).astype(np.uint8),
        "label": np.zeros(8, np.int32),
    }
    means = []
    for parts in (1, 4):
        config = optim.OptimConfig(learning_rate=0.1, accumulate=parts)
        state = init_state(linear_task(), config, key=jax.random.key(0), batch=batch, num_steps=2)
        step = jax.jit(make_train_step(linear_task(), config, num_steps=2, log_every=2))
        for _ in range(2):
            state, _ = step(state, batch, jax.random.key(1))
        means.append(state)
    for a, b in zip(jax.tree.leaves(means[0]), jax.tree.leaves(means[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
