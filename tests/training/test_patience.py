"""Early stopping: when a run ends, and that an interrupted one ends there too."""

import json
import signal

import jax
import pytest

from diffpath_jax import cli
from diffpath_jax.devices import sharding
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.training.checkpoint import Checkpoints, tree_digest
from diffpath_jax.training.loop import Trainer
from diffpath_jax.training.metrics_log import read_metrics
from diffpath_jax.training.patience import Patience
from diffpath_jax.training.recorder import TrainConfig
from tests.training.test_loop import OPTIM, batches_of, linear_task


def ends(metric, looks, values):
    """Number of the look with which a run ends, from 1; none if it does not."""
    patience = Patience(metric, looks)
    for number, value in enumerate(values, start=1):
        patience.look({metric: value, "another": 0.0})
        if patience.over:
            return number
    return None


@pytest.mark.parametrize(
    ("metric", "looks", "values", "expected"),
    [
        ("val_accuracy", 2, [0.1, 0.5, 0.5, 0.4, 0.9], 4),
        ("val_loss", 2, [0.5, 0.4, 0.6, 0.39, 0.5, 0.39, 0.3], 6),
        ("val_loss", 3, [0.5, 0.6, 0.6], None),
        ("val_loss", 0, [0.5] * 9, None),
        ("val_loss", 2, [0.5, float("nan"), float("nan"), 0.4, 0.5, float("nan"), 0.4], 7),
    ],
)
def test_looks_without_anything_better_end_a_run(metric, looks, values, expected):
    assert ends(metric, looks, values) == expected


def test_a_resumed_run_remembers_what_it_had_logged(tmp_path):
    rows = [{"step": step, "val_loss": value} for step, value in ((2, 0.5), (4, 0.6), (6, 0.7))]
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in [{"step": 1, "loss": 3.0}, *rows])
    )
    for step, over in ((4, False), (6, True)):
        patience = Patience("val_loss", 2)
        patience.recall(tmp_path, step=step)
        assert patience.over == over
    patience = Patience("val_loss", 2)
    patience.recall(tmp_path / "none", step=9)
    assert patience.best == -float("inf")


CONFIG = TrainConfig(num_steps=40, log_every=1, checkpoint_every=4, eval_every=2, keep_best="val_loss", patience=3)


def train(workdir, dataset, stop_after=None):
    """A run whose validation loss is best at step 4; its last step. ``stop_after`` sends SIGTERM in that step."""

    def watch(state):
        return {"val_loss": abs(int(state.step) - 4) / 10}

    batches = batches_of(dataset)

    def interrupted(start):
        for number, batch in enumerate(batches(start), start=start):
            if number == stop_after:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    trainer = Trainer(
        task=linear_task(),
        optim=OPTIM,
        config=CONFIG,
        batches=interrupted,
        batch_size=8,
        seed=0,
        workdir=workdir,
        mesh=sharding.make_mesh(jax.devices()[:1]),
        hooks=(watch,),
    )
    return int(trainer.fit().step)


def test_an_interrupted_run_ends_at_the_same_look(tmp_path, dataset):
    """Three looks after the best one; the same command again trains no further."""
    assert train(tmp_path / "whole", dataset) == 10
    with pytest.raises(DiffpathError, match="SIGTERM at step"):
        train(tmp_path / "parts", dataset, stop_after=8)
    assert train(tmp_path / "parts", dataset) == train(tmp_path / "parts", dataset) == 10
    rows = {name: [row.get("val_loss") for row in read_metrics(tmp_path / name)] for name in ("whole", "parts")}
    assert rows["whole"] == rows["parts"] and sum(value is not None for value in rows["whole"]) == 5
    states = [Checkpoints(tmp_path / name).read(10) for name in ("whole", "parts")]
    assert tree_digest(states[0]) == tree_digest(states[1])
    assert Checkpoints(tmp_path / "parts", keep_best="val_loss").best() == 4


def test_patience_needs_something_to_look_at(tmp_path, capsys):
    words = ["train", "--config", "configs/demo_ddpm.py:debug", "--workdir", str(tmp_path / "run")]
    assert cli.main([*words, "--config.train.patience=3", "--config.train.keep_best="]) == ExitCode.BAD_INPUT
    assert "name a metric in train.keep_best" in capsys.readouterr().err.replace("\n", " ")
