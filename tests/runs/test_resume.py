"""What a run directory says of itself, and what may differ when it is resumed."""

import json

import pytest

from diffpath_jax.config import checks
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.runs import run as runs
from tests.conftest import TINY_RESNET


def settings(**train):
    content = {
        "seed": 0,
        "dtype": "float32",
        "data": {"train": "", "batch_size": 8, "augment": "none", "workers": 0},
        "optim": {},
        "train": {"num_steps": 4, "log_every": 1, "checkpoint_every": 1, **train},
        **TINY_RESNET,
    }
    return checks.run_config(content, where="test")


def test_a_profile_is_no_part_of_a_run(tmp_path, dataset):
    """Runs of before there were profiles are resumed, with one or without, and keep their digest."""
    data = [open_dataset(dataset)]
    run = runs.create_or_resume(tmp_path, settings(), data)
    assert "profile_at" not in json.loads((tmp_path / runs.RUN).read_text())["config"]["train"]
    assert runs.create_or_resume(tmp_path, settings(profile_at=2), data).digest == run.digest


def test_another_length_is_refused_until_it_is_allowed(tmp_path, dataset):
    data = [open_dataset(dataset)]
    runs.create_or_resume(tmp_path, settings(), data)
    with pytest.raises(DiffpathError, match=r"train\.num_steps") as caught:
        runs.create_or_resume(tmp_path, settings(num_steps=5), data)
    assert caught.value.code == ExitCode.REFUSED
    resumed = runs.create_or_resume(tmp_path, settings(num_steps=5), data, allow_change=["train.num_steps"])
    assert resumed.config.train.num_steps == 5


def test_all_changed_keys_are_named_with_the_words_that_allow_them(tmp_path, dataset):
    data = [open_dataset(dataset)]
    runs.create_or_resume(tmp_path, settings(), data)
    with pytest.raises(DiffpathError) as caught:
        runs.create_or_resume(tmp_path, settings(num_steps=5, eval_every=1, log_every=5), data)
    keys = ("train.eval_every", "train.log_every", "train.num_steps")
    assert f"begun with another {', '.join(keys)}" in str(caught.value)
    assert str(caught.value).endswith(" ".join(f"--allow_change {key}" for key in keys))
    runs.create_or_resume(tmp_path, settings(num_steps=5, eval_every=1, log_every=5), data, allow_change=keys)
