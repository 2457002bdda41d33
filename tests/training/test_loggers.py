"""Loggers take the scalars of a run through one interface; a stub stands for their packages."""

import sys
import threading
import types

import pytest

from diffpath_jax.config import checks
from diffpath_jax.config import files as config_files
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.training import loggers
from diffpath_jax.training.metrics_log import open_log, read_metrics

DEMO = "diffpath:demo_ddpm:debug"


class StubRun:
    """The part of a run's interface that Weights & Biases and Trackio share."""

    def __init__(self, options):
        self.options, self.logged, self.finished, self.threads = options, [], 0, set()

    def log(self, values, step=None):
        self.threads.add(threading.get_ident())
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1


@pytest.fixture(params=["wandb", "trackio"])
def package(request, monkeypatch):
    """(name, runs that were begun) of a stub of the package."""
    module, runs = types.ModuleType(request.param), []
    module.__spec__ = types.SimpleNamespace(name=request.param)
    module.init = lambda **options: runs.append(StubRun(options)) or runs[-1]
    monkeypatch.setitem(sys.modules, request.param, module)
    return request.param, runs


def test_a_run_takes_the_finite_scalars_of_each_step(tmp_path, package):
    name, runs = package
    (tmp_path / "ddpm").mkdir()
    log = open_log(tmp_path / "ddpm", resume_step=0, loggers=(name,))
    log.write_scalars(1, {"loss": 0.5, "loss_noise_1of4": float("nan")})
    log.write_scalars(2, {"val_loss": 2.0})
    log.flush()
    log.close()
    (run,) = runs
    assert run.logged == [(1, {"loss": 0.5}), (2, {"val_loss": 2.0})]
    assert run.finished == 1 and run.options["project"] == "diffpath" and run.options["resume"] == "allow"
    assert read_metrics(tmp_path / "ddpm") == [{"step": 1, "loss": 0.5}, {"step": 2, "val_loss": 2.0}]
    assert not (tmp_path / "ddpm" / loggers.TENSORBOARD).exists()


def test_a_resumed_run_is_the_same_one_wherever_it_lies_then(tmp_path, package):
    name, runs = package
    known = "id" if name == "wandb" else "name"
    for folder in ("before", "after"):
        if folder == "after":
            (tmp_path / "before").rename(tmp_path / "after")
        (tmp_path / folder).mkdir(exist_ok=True)
        open_log(tmp_path / folder, resume_step=0, loggers=("tensorboard", name, name)).close()
    assert len(runs) == 2
    assert runs[0].options[known].removeprefix("before") == runs[1].options[known].removeprefix("after")
    (tmp_path / "another").mkdir()
    open_log(tmp_path / "another", resume_step=0, loggers=(name,)).close()
    assert runs[2].options[known].removeprefix("another") != runs[0].options[known].removeprefix("before")


def test_nothing_but_scalars_and_the_name_of_the_run_is_handed_out(tmp_path, package):
    name, runs = package
    open_log(tmp_path, resume_step=0, loggers=(name,)).close()
    assert runs[0].options.keys() <= {"project", "name", "id", "resume", "dir", "settings"}
    if name == "wandb":
        assert runs[0].options["settings"] == loggers.WITHHELD


def test_an_absent_package_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DiffpathError, match=r"wandb is not installed; fix: pip install 'diffpath\[wandb\]', or leave"):
        open_log(tmp_path, resume_step=0, loggers=("wandb",))
    assert not list(tmp_path.iterdir())


def test_an_unknown_logger_is_named_before_anything_runs():
    content = config_files.load(DEMO, ["--config.train.loggers=('tensorbord',)"], checks.with_defaults)
    with pytest.raises(DiffpathError, match="'tensorbord' is no logger; fix: use some of tensorboard, wandb, trackio"):
        checks.run_config(content, where=DEMO)


def test_none_is_enough(tmp_path):
    log = open_log(tmp_path, resume_step=0, loggers=())
    log.write_scalars(1, {"loss": 0.5})
    log.close()
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 0.5}]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
