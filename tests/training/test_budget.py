"""A budget in minutes, on a clock of the test's own: when a run ends, what schedules follow, and how it goes on."""

import dataclasses
import itertools
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.training import budget, optim
from diffpath_jax.training.metrics_log import METRICS, read_metrics
from diffpath_jax.training.step import init_state, make_train_step
from diffpath_jax.training.tasks.task import NETWORK, Task
from tests.training.test_loop import train_linear

COSINE = optim.OptimConfig(learning_rate=1e-2, decay="cosine", ema_decay=0.9)


@pytest.fixture
def ticking(monkeypatch):
    """A clock that is 6 seconds later whenever it is asked; each start of a run finds it at 0."""

    def restart():
        ticks = itertools.count()
        monkeypatch.setattr(budget, "time", types.SimpleNamespace(monotonic=lambda: 6.0 * next(ticks)))

    return restart


def fit(workdir, dataset, ticking, *, num_steps=1000, minutes=1.0):
    ticking()
    steps = {"num_steps": num_steps, "checkpoint_every": 4}
    return train_linear(workdir, dataset, optim=COSINE, minutes=minutes, **steps)


def test_a_run_ends_with_its_minutes_and_its_learning_rate_with_them(tmp_path, dataset, ticking, capsys):
    """The start and the first step's beginning cost two ticks; step k begins at 6 (k + 1) s, the ninth at a minute."""
    assert int(fit(tmp_path, dataset, ticking).step) == 9
    assert "6 s until the first step" in capsys.readouterr().err
    rates = [row["learning_rate"] for row in read_metrics(tmp_path)]
    shares = np.minimum(0.1 * np.arange(2, 11), 1.0)
    np.testing.assert_allclose(rates, 1e-2 * (1 + np.cos(np.pi * shares)) / 2, rtol=1e-4, atol=1e-8)
    # It is over: the same command does nothing more.
    assert int(fit(tmp_path, dataset, ticking).step) == 9


def test_a_resumed_run_goes_on_with_what_is_left(tmp_path, dataset, ticking):
    """Four steps, the last begun at 30 s; the second start begins its first at 42 s, so the eighth step is the last."""
    assert int(fit(tmp_path, dataset, ticking, num_steps=4).step) == 4
    state = fit(tmp_path, dataset, ticking)
    assert int(state.step) == 8
    assert float(state.opt_state[budget.SECONDS]) == 60.0


def test_steps_that_come_first_end_a_run(tmp_path, dataset, ticking):
    assert int(fit(tmp_path, dataset, ticking, num_steps=3, minutes=100.0).step) == 3


def matrix_task():
    """A kernel and a bias, which Muon and AdamW move."""

    def loss(params, model_state, batch, key):
        own = params[NETWORK]
        error = jnp.square(batch["image"].mean(axis=(1, 2)) @ own["kernel"] + own["bias"] - 1.0).mean()
        return error, {"metrics": {}, "model_state": model_state}

    start = {"kernel": jnp.eye(3), "bias": jnp.zeros(3)}
    return Task(lambda key: ({NETWORK: start}, {}), {NETWORK: loss})


@pytest.mark.parametrize(
    "config",
    [
        dataclasses.replace(COSINE, warmup_steps=2, weight_decay=0.1),
        dataclasses.replace(COSINE, muon_learning_rate=0.02, weight_decay=0.1, decay="linear"),
    ],
    ids=["adamw", "muon"],
)
def test_where_time_is_behind_a_run_is_that_of_its_steps(config):
    """Scaled updates are those of an optimiser whose learning rate follows the schedule, weight decay included."""
    batch = {"image": jax.random.normal(jax.random.key(0), (4, 2, 2, 3))}
    states = []
    for minutes in (0.0, 10.0):
        state = init_state(matrix_task(), config, key=jax.random.key(1), batch=batch, num_steps=6, minutes=minutes)
        assert (budget.SECONDS in state.opt_state) == bool(minutes)
        step = jax.jit(make_train_step(matrix_task(), config, num_steps=6, log_every=1, minutes=minutes))
        for _ in range(5):
            state, _ = step(state, batch, jax.random.key(2))
        states.append(state.params)
    for own, other in zip(*(jax.tree.leaves(params) for params in states), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-6)


def test_a_dry_run_says_what_minutes_are_enough_for(tmp_path, capsys):
    """As counted, or as the log of a run measured: its first line is left out, and 1200 images are 150 steps."""
    words = ["train", "--config", "configs/demo_ddpm.py:debug", "--dry_run", "--peak_tflops", "1"]
    words += ["--config.train.minutes=2", "--config.data.batch_size=8", "--config.train.num_steps=1000"]
    assert cli.main(words) == 0
    assert "as counted" in " ".join(capsys.readouterr().err.split())
    rows = [{"step": step, "images_per_second": speed} for step, speed in ((1, 1.0), (2, 10.0), (3, 10.0))]
    (tmp_path / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.main([*words, "--workdir", str(tmp_path)]) == 0
    assert "2 minutes: 150 steps at 10 img/s" in " ".join(capsys.readouterr().err.split())
