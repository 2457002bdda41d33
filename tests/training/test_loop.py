"""The promises of the training loop: devices do not matter, interruptions do not matter, NaN does no harm."""

import dataclasses
import json
import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax.config import checks
from diffpath_jax.config.tasks import make_task
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.data.pipeline import Records, training_batches
from diffpath_jax.devices import sharding
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.networks.codecs import to_unit
from diffpath_jax.training import optim
from diffpath_jax.training.checkpoint import Checkpoints, tree_digest
from diffpath_jax.training.loop import Trainer
from diffpath_jax.training.metrics_log import read_metrics
from diffpath_jax.training.step import init_state, make_train_step
from diffpath_jax.training.tasks.task import NETWORK, Task
from tests.conftest import TINY_AUTOENCODER, TINY_RESNET

OPTIM = optim.OptimConfig(learning_rate=1e-2, clip_norm=1.0, ema_decay=0.9)
RUN = checks.run_config(
    {
        "task": "diffusion",
        "seed": 0,
        "dtype": "float32",
        "data": {"train": "", "batch_size": 8, "augment": "dihedral", "workers": 0},
        "network": {
            "kind": "unet_adm",
            "channels": 16,
            "channel_mult": (1,),
            "num_res_blocks": 1,
            "attention_downsamples": (),
            "groups": 8,
            "dropout": 0.1,
        },
        "noise": {"schedule": "cosine"},
        "diffusion": {"prediction": "v"},
        "optim": dataclasses.asdict(OPTIM),
        "train": {"num_steps": 6, "log_every": 1, "checkpoint_every": 2},
    },
    where="test",
)


def linear_task(bad_steps=()):
    """Fit a mean by gradient descent; the loss is NaN at the given steps (told by the batch's first label)."""

    def loss(params, model_state, batch, key):
        x = to_unit(batch["image"])
        error = jnp.square(x.mean(axis=(1, 2)) - params[NETWORK]["mean"]).mean()
        return error, {"metrics": {}, "model_state": model_state}

    def poisoned(params, model_state, batch, key):
        value, aux = loss(params, model_state, batch, key)
        bad = jnp.isin(batch["label"][0], jnp.array(bad_steps or [-1]))
        return jnp.where(bad, jnp.nan, value), aux

    return Task(lambda key: ({NETWORK: {"mean": jnp.zeros(3)}}, {}), {NETWORK: poisoned})


def train_linear(workdir, dataset, *, optim=OPTIM, bad_steps=(), **changes):
    """Trains the linear task on one device, with changes of the run's settings."""
    return Trainer(
        task=linear_task(bad_steps),
        optim=optim,
        config=dataclasses.replace(RUN.train, **changes),
        batches=batches_of(dataset),
        batch_size=8,
        seed=0,
        workdir=workdir,
        mesh=sharding.make_mesh(jax.devices()[:1]),
    ).fit()


def batches_of(dataset):
    """Batches from a position on, as a ``Trainer`` takes them."""
    source = Records([open_dataset(dataset)], "train")
    return lambda start: training_batches(source, batch_size=8, seed=0, augment="dihedral", workers=0, start=start)


def step_on(devices, state, batch, task, optim_config):
    mesh = sharding.make_mesh(devices)
    step = jax.jit(make_train_step(task, optim_config, num_steps=6, log_every=1))
    moved, _ = step(sharding.replicate(state, mesh), sharding.shard_batch(batch, mesh), jax.random.key(1))
    return jax.device_get(moved)


# Two networks that learn against each other from the second step on, with an optimiser each.
AUTOENCODER = checks.run_config(
    {
        **{key: value for key, value in RUN.as_json().items() if key not in ("noise", "diffusion", "codec")},
        **TINY_AUTOENCODER,
        "autoencoding": {
            "discriminator_width": 4,
            "discriminator_layers": 1,
            "adversarial_start": 1,
            "revive_after": 1,
        },
    },
    where="test",
)


# Batch normalisation over the batch of all devices, weights of classes, other stains for each image.
CLASSIFIER = checks.run_config(
    {
        **{key: value for key, value in RUN.as_json().items() if key not in ("noise", "diffusion", "codec")},
        **TINY_RESNET,
        # Adam's first steps make as much of a kernel's smallest gradients, which are rounding, as of any.
        "optim": dataclasses.asdict(dataclasses.replace(OPTIM, learning_rate=1e-3)),
        "classifier": {"label_smoothing": 0.1, "balance": "weights", "stain_jitter": 0.1},
    },
    where="test",
)


def long(params):
    """Values that ``make test-full`` tries too, with their names."""
    return [pytest.param(value, id=name, marks=pytest.mark.full) for value, name in params]


@pytest.mark.parametrize(
    "config",
    # BatchNorm is the one part that looks beyond a device's own images.
    [pytest.param(CLASSIFIER, id="classifier"), *long([(RUN, "denoiser"), (AUTOENCODER, "autoencoder")])],
)
def test_one_device_and_eight_take_the_same_step(dataset, config):
    task = make_task(config, num_classes=2, class_counts=np.array([30, 10]))
    batch = next(batches_of(dataset)(0))
    make = jax.jit(lambda key: init_state(task, config.optim, key=key, batch=batch, num_steps=6))
    state = make(jax.random.key(0))
    # Zero-initialised layers hide most of the network from a first step: compare after two.
    state = step_on(jax.devices()[:1], state, batch, task, config.optim)
    one = step_on(jax.devices()[:1], state, batch, task, config.optim)
    eight = step_on(jax.devices(), state, batch, task, config.optim)
    assert len(jax.devices()) == 8
    # The bias of keys shifts all weights of a softmax alike: its gradient is rounding, of which Adam makes whole steps.
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(eight), strict=True):
        name = jax.tree_util.keystr(path)
        if name.endswith("['qkv']['bias']"):
            a, b = (np.delete(np.split(np.asarray(leaf), 3), 1, axis=0) for leaf in (a, b))
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5, err_msg=name)


def run_fit(workdir, dataset, *, num_steps=6, stop_after=None):
    """Train the tiny network; ``stop_after`` sends SIGTERM to this process after that step."""
    config = dataclasses.replace(RUN.train, eval_every=1)

    def interrupt(state):
        if stop_after is not None and int(state.step) == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    return Trainer(
        task=make_task(RUN, num_classes=2),
        optim=OPTIM,
        config=dataclasses.replace(config, num_steps=num_steps),
        batches=batches_of(dataset),
        batch_size=8,
        seed=0,
        workdir=workdir,
        mesh=sharding.make_mesh(jax.devices()[:1]),
        hooks=(interrupt,),
    ).fit()


def losses(workdir):
    return {row["step"]: row["loss"] for row in read_metrics(workdir) if "loss" in row}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, dataset):
    """The directory of a run that was left alone, and the digest of its last state."""
    workdir = tmp_path_factory.mktemp("run") / "finished"
    return workdir, tree_digest(jax.device_get(run_fit(workdir, dataset)))


@pytest.fixture(scope="module")
def finished(uninterrupted):
    return uninterrupted[0]


def test_a_run_stopped_by_sigterm_goes_on_bit_for_bit(tmp_path, dataset, uninterrupted):
    whole, digest = uninterrupted
    with pytest.raises(DiffpathError, match="SIGTERM at step 3") as caught:
        run_fit(tmp_path / "parts", dataset, stop_after=3)
    assert caught.value.code == ExitCode.TERMINATED == 143
    resumed = run_fit(tmp_path / "parts", dataset)
    assert losses(tmp_path / "parts") == losses(whole)
    assert len(losses(whole)) == 6
    assert tree_digest(jax.device_get(resumed)) == digest


def fit_linear(bad_steps, num_steps=8):
    def batch(number):
        """A batch whose label is its number."""
        return {"image": jnp.full((8, 4, 4, 3), 200, jnp.uint8), "label": jnp.full(8, number, jnp.int32)}

    state = init_state(linear_task(), OPTIM, key=jax.random.key(0), batch=batch(0), num_steps=num_steps)
    step = jax.jit(make_train_step(linear_task(bad_steps), OPTIM, num_steps=num_steps, log_every=4))
    means, bad = [], []
    for number in range(num_steps):
        state, bad_steps_now = step(state, batch(number), jax.random.key(1))
        means.append(np.asarray(state.params[NETWORK]["mean"]))
        bad.append(int(bad_steps_now))
    return state, means, bad


def test_a_step_that_is_not_finite_changes_nothing_but_is_counted():
    state, means, bad = fit_linear(bad_steps=(2, 5, 6))
    np.testing.assert_array_equal(means[2], means[1])
    assert not np.array_equal(means[3], means[2])
    assert bad == [0, 0, 1, 0, 0, 1, 2, 0]
    assert int(state.skipped) == 3
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(state)))
    # The window of the log (4 steps a line) holds what was finite of its last four steps.
    assert float(state.window["loss"][1]) == 2.0


def test_nan_without_end_stops_with_finite_parameters(tmp_path, dataset):
    with pytest.raises(DiffpathError, match="not finite in steps 1 to 3") as caught:
        # Whatever the label of a batch's first image.
        train_linear(tmp_path, dataset, bad_steps=(0, 1), num_steps=50)
    assert caught.value.code == ExitCode.DIVERGED
    leaves = jax.tree.leaves(Checkpoints(tmp_path).read(2)["params"])
    assert leaves and all(np.isfinite(leaf).all() for leaf in leaves)


def test_ema_is_its_definition():
    average, params = {"w": jnp.array([1.0])}, {"w": jnp.array([3.0])}
    late = optim.update_ema(average, params, decay=0.9, step=jnp.array(10_000))
    np.testing.assert_allclose(late["w"], 0.9 * 1 + 0.1 * 3, rtol=1e-6)
    early = optim.update_ema(average, params, decay=0.9, step=jnp.array(0))
    np.testing.assert_allclose(early["w"], 0.1 * 1 + 0.9 * 3, rtol=1e-6)


def flip_a_byte(folder):
    path = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_checkpoint_is_passed_over_and_all_damaged_is_an_error(finished, tmp_path, capsys):
    workdir = tmp_path / "copy"
    shutil.copytree(finished, workdir)
    flip_a_byte(workdir / "checkpoints" / "6")
    assert Checkpoints(workdir).latest() == 4
    assert "does not match its digest" in capsys.readouterr().err.replace("\n", " ")
    flip_a_byte(workdir / "checkpoints" / "4")
    with pytest.raises(DiffpathError, match="none is intact") as caught:
        Checkpoints(workdir).latest()
    assert caught.value.code == ExitCode.DAMAGED


def test_a_run_from_a_fallen_back_checkpoint_ends_the_same(finished, tmp_path, dataset):
    workdir = tmp_path / "copy"
    shutil.copytree(finished, workdir)
    flip_a_byte(workdir / "checkpoints" / "6")
    run_fit(workdir, dataset)
    assert losses(workdir) == losses(finished)
    assert tree_digest(Checkpoints(workdir).read(6)) == tree_digest(Checkpoints(finished).read(6))


def test_metrics_have_one_line_a_step_after_a_resume(finished):
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 7))
