"""What a run leaves of its steps and its parameters: a trace for TensorBoard and XProf, a table."""

import dataclasses
import gzip
import json

import jax
import numpy as np
import pytest

from diffpath_jax.devices import sharding
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.training.loop import Trainer
from diffpath_jax.training.optim import OptimConfig
from diffpath_jax.training.profiling import PROFILED_STEPS
from diffpath_jax.training.recorder import TrainConfig
from tests.training.test_loop import RUN, checks, linear_task


def train(workdir, *, num_steps=10, profile_at=0):
    """Fit a mean of three numbers."""
    batch = {"image": np.full((8, 4, 4, 3), 200, np.uint8), "label": np.zeros(8, np.int32)}

    def batches(start):
        while True:
            yield batch

    workdir.mkdir(exist_ok=True)
    return Trainer(
        task=linear_task(),
        optim=OptimConfig(learning_rate=1e-2),
        config=TrainConfig(num_steps=num_steps, log_every=5, checkpoint_every=num_steps, profile_at=profile_at),
        batches=batches,
        batch_size=8,
        seed=0,
        workdir=workdir,
        mesh=sharding.make_mesh(jax.devices()[:1]),
    ).fit()


def trace(workdir):
    """Where TensorBoard's profile plugin looks: one run of it, with XLA's own trace and one for viewers."""
    (run,) = (workdir / "tensorboard" / "plugins" / "profile").iterdir()
    (planes,) = run.glob("*.xplane.pb")
    (events,) = run.glob("*.trace.json.gz")
    return planes, events


# The second ends before the profile's last step would come.
@pytest.mark.parametrize("profile_at", [2, 10 - PROFILED_STEPS + 2])
def test_a_profile_shows_the_steps_after_the_one_that_is_named(tmp_path, profile_at):
    train(tmp_path / "run", profile_at=profile_at)
    planes, events = trace(tmp_path / "run")
    assert planes.stat().st_size > 1000
    shown = json.loads(gzip.decompress(events.read_bytes()))["traceEvents"]
    steps = {int(event["args"]["step_num"]) for event in shown if event.get("name") == "train"}
    assert sorted(steps) == list(range(profile_at + 1, min(profile_at + PROFILED_STEPS, 10) + 1))


def test_a_run_is_not_profiled_unless_it_is_asked_for(tmp_path):
    profiled, plain = train(tmp_path / "profiled", profile_at=1), train(tmp_path / "plain")
    assert not (tmp_path / "plain" / "tensorboard" / "plugins").exists()
    for one, other in zip(jax.tree.leaves(profiled), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_run_lists_its_parameters(tmp_path):
    train(tmp_path / "run")
    lines = (tmp_path / "run" / "parameters.txt").read_text().splitlines()
    (row,) = (line for line in lines if "network/mean" in line)
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["network/mean", "(3,)", "float32", "3"]
    assert lines[-1] == "Total: 3 -- 12 bytes"


def test_a_profile_after_the_last_step_is_refused():
    section = dataclasses.asdict(dataclasses.replace(RUN.train, profile_at=RUN.train.num_steps))
    content = {**RUN.as_json(), "train": section}
    kept = {name: value for name, value in content.items() if value is not None}
    with pytest.raises(DiffpathError, match="no step follows"):
        checks.run_config(kept, where="test")
