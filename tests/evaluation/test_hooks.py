"""What is looked at while a run trains."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.config import checks
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.evaluation import hooks
from diffpath_jax.runs import run as runs
from diffpath_jax.training.metrics_log import read_metrics
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


def test_generated_images_alone_are_watched_on_real_ones(capsys, tmp_path, dataset, samples):
    """`data.val`: the split is borrowed, its doubts are said, and the best checkpoint is chosen by it."""
    config = tmp_path / "config.py"
    section = {"num_steps": 2, "log_every": 1, "checkpoint_every": 1, "eval_every": 1, "keep_best": "val_accuracy"}
    content = {
        **{"seed": 0, "dtype": "float32", "optim": {"learning_rate": 1e-3}, "train": section, **TINY_RESNET},
        "data": {"train": str(samples), "batch_size": 8, "augment": "none", "workers": 0},
    }
    config.write_text(f"from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({content!r})\n")
    words = ["train", "--config", config, "--workdir"]
    assert cli.main([str(word) for word in (*words, tmp_path / "other", f"--config.data.val={samples}")]) == 2
    line = capsys.readouterr().err
    assert "error: key 'data.val'" in line and "it has no val split" in line and not (tmp_path / "other").exists()
    assert cli.main([str(word) for word in (*words, tmp_path / "run", f"--config.data.val={dataset}")]) == 0
    said = capsys.readouterr().err
    assert f"warning: numbers of the val split of {dataset} are optimistic" in said.replace("\n", " ")
    logged = [row for row in read_metrics(tmp_path / "run") if "val_accuracy" in row]
    assert [row["step"] for row in logged] == [1, 2] and "val_balanced_accuracy" in logged[0]
    assert runs.load_parameters(runs.open_run(tmp_path / "run"), step="best").step in (1, 2)
