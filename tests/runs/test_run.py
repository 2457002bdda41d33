"""The description of a run: what an earlier version wrote keeps its meaning and its identity."""

import json

import pytest

from diffpath_jax.config import checks
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import sha256_file
from diffpath_jax.io.sealed import SEAL
from diffpath_jax.runs import run as runs
from tests.conftest import TINY_RESNET, write_run

# A key that the first version did not have.
LATER = ("network", "standardise")
BASE = {
    "seed": 0,
    "dtype": "float32",
    "data": {"train": "", "batch_size": 8, "augment": "none", "workers": 0},
    "optim": {"learning_rate": 1e-3},
    "train": {"num_steps": 1, "log_every": 1, "checkpoint_every": 1},
    **TINY_RESNET,
}


@pytest.fixture
def older(tmp_path, dataset):
    """A run whose description lacks the key."""
    workdir = write_run(tmp_path / "run", dataset, TINY_RESNET)
    path = workdir / runs.RUN
    content = json.loads(path.read_text())
    del content[SEAL]
    content["config"]["network"] |= {"width": 4}
    content["config"][LATER[0]].pop(LATER[1], None)
    path.write_text(json.dumps(content, indent=2))
    return workdir


def resumed(workdir, dataset, **keys):
    """The same config again, with every key that there is today, and other values for ``keys``."""
    content = checks.with_defaults(json.loads((workdir / runs.RUN).read_text())["config"])
    for name, value in keys.items():
        section, _, key = name.partition("__")
        content[section] = {**content[section], key: value}
    config = checks.run_config(json.loads(json.dumps(content)), where="test")
    return runs.create_or_resume(workdir, config, [open_dataset(dataset)])


def test_a_run_from_before_a_key_is_resumed_under_its_old_identity(older, dataset):
    before = runs.open_run(older)
    resumed(older, dataset)
    described = sha256_file(older / runs.RUN)
    after = resumed(older, dataset)
    assert (after.digest, after.compatibility_digest) == (before.digest, before.compatibility_digest)
    assert sha256_file(older / runs.RUN) == described
    # What may change takes no key along.
    assert resumed(older, dataset, data__workers=1).compatibility_digest == before.compatibility_digest


def test_another_value_of_such_a_key_is_another_run(older, dataset):
    with pytest.raises(DiffpathError, match=r"another network.standardise") as caught:
        resumed(older, dataset, network__standardise=True)
    assert caught.value.code == ExitCode.REFUSED


def test_a_run_from_before_data_val_keeps_its_digest(tmp_path, dataset):
    workdir = write_run(tmp_path / "run", dataset, TINY_RESNET)
    content = json.loads((workdir / runs.RUN).read_text())
    del content["config"]["data"]["val"]
    del content[SEAL]
    (workdir / runs.RUN).write_text(json.dumps(content))
    before = runs.open_run(workdir).digest
    assert resumed(workdir, dataset).digest == before
    assert "val" not in json.loads((workdir / runs.RUN).read_text())["config"]["data"]


def test_validation_images_may_move_and_not_change(tmp_path, dataset, samples):
    workdir, watched = tmp_path / "run", {"validation": open_dataset(dataset)}
    content = {**BASE, "data": {**BASE["data"], "val": str(dataset)}}

    def begin(val, **chosen):
        config = checks.run_config({**content, "data": {**content["data"], "val": val}}, where="test")
        return runs.create_or_resume(workdir, config, [open_dataset(samples)], **chosen)

    begun = begin(str(dataset), **watched)
    assert begin("elsewhere", **watched).data == begun.data
    for val, chosen in (("", {}), (str(samples), {"validation": open_dataset(samples)})):
        with pytest.raises(DiffpathError, match=r"begun with another validation; fix: name a new directory$"):
            begin(val, **chosen)
