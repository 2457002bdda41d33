"""What is looked at while a run trains."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax.config import checks
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.evaluation import hooks
from diffpath_jax.runs import run as runs
from diffpath_jax.training.step import TrainState
from diffpath_jax.training.tasks.task import NETWORK
from tests.conftest import TINY_RESNET

BASE = {
    "seed": 0,
    "dtype": "float32",
    "data": {"train": "", "batch_size": 8, "augment": "none", "workers": 0},
    "optim": {"learning_rate": 1e-3},
    **TINY_RESNET,
}


def untrained() -> TrainState:
    """A state whose parameters no one asks for."""
    zero, empty = jnp.zeros((), int), {NETWORK: {}}
    return TrainState(zero, empty, {}, {}, empty, zero, zero, {})


def test_balanced_accuracy_is_the_mean_over_classes(monkeypatch, dataset, resnet_run):
    """A network that calls all pink right and a quarter of purple: (1 + 1/4) / 2, whatever their numbers are."""
    labels = np.array([0] * 10 + [1] * 4, np.int32)
    told = np.array([0] * 10 + [1, 0, 0, 0])
    split = {"label": labels, "image": np.zeros((14, 16, 16, 3), np.uint8)}
    monkeypatch.setattr(hooks, "read_arrays", lambda *_, **__: split)
    monkeypatch.setattr(hooks, "predictor", lambda _: lambda *_: (np.eye(2)[told], None))
    look = hooks.validation_accuracy(runs.open_run(resnet_run), open_dataset(dataset))
    assert look(untrained()) == {"val_accuracy": pytest.approx(11 / 14), "val_balanced_accuracy": 0.625}


def test_a_classifier_may_keep_its_best_by_balanced_accuracy():
    train = {"num_steps": 4, "log_every": 1, "checkpoint_every": 2, "eval_every": 2}
    kept = {**train, "keep_best": "val_balanced_accuracy"}
    assert checks.run_config({**BASE, "train": kept}, where="test").train.keep_best == "val_balanced_accuracy"
