"""A run directory that an earlier version wrote, before some keys of its config were there."""

import dataclasses
import json

import pytest

from diffpath_jax.config import checks
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.sealed import SEAL
from diffpath_jax.runs import run as runs
from tests.conftest import TINY_DENOISER

NEWER = (("network", "stem_block"), ("network", "remat"), ("optim", "muon_learning_rate"), ("diffusion", "loss"))
CONFIG = checks.run_config(
    {
        "seed": 0,
        "dtype": "float32",
        "data": {"train": "", "batch_size": 8, "augment": "none", "workers": 0},
        "noise": {"schedule": "cosine"},
        "diffusion": {"prediction": "v"},
        "optim": {"learning_rate": 1e-3},
        "train": {"num_steps": 1, "log_every": 1, "checkpoint_every": 1},
        **TINY_DENOISER,
    },
    where="test",
)


@pytest.fixture
def old(tmp_path, dataset):
    """A run that knows nothing of some keys."""
    runs.create_or_resume(tmp_path, CONFIG, [open_dataset(dataset)])
    path = tmp_path / runs.RUN
    content = json.loads(path.read_text())
    del content[SEAL]
    for section, key in NEWER:
        del content["config"][section][key]
    path.write_text(json.dumps(content))
    return runs.open_run(tmp_path)


def test_new_keys_at_their_defaults_are_no_change(old, dataset):
    stored = (old.workdir / runs.RUN).read_text()
    again = runs.create_or_resume(old.workdir, CONFIG, [open_dataset(dataset)])
    assert (again.digest, again.compatibility_digest, again.config) == (old.digest, old.compatibility_digest, CONFIG)
    assert json.loads((old.workdir / runs.RUN).read_text()) == json.loads(stored)


def test_a_new_key_at_another_value_is_a_change(old, dataset):
    other = dataclasses.replace(CONFIG, network=dataclasses.replace(CONFIG.network, stem_block=2))
    with pytest.raises(DiffpathError, match=r"begun with another network\.stem_block") as caught:
        runs.create_or_resume(old.workdir, other, [open_dataset(dataset)])
    assert caught.value.code == ExitCode.REFUSED
    allowed = runs.create_or_resume(old.workdir, other, [open_dataset(dataset)], allow_change=["network.stem_block"])
    assert allowed.config.network.stem_block == 2
    assert allowed.compatibility_digest != old.compatibility_digest
    # What is still at its default is still not told.
    stored = json.loads((old.workdir / runs.RUN).read_text())["config"]
    assert stored["network"]["stem_block"] == 2 and "remat" not in stored["network"]


def test_what_a_run_stores_leads_to_the_same_config(old):
    for config in (CONFIG, old.config):
        assert checks.run_config(config.as_json(), where="test") == CONFIG
