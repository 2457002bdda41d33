"""``diffpath doctor`` says whether a kind of work can be done here, by its exit code and with the fix."""

import importlib.util
import shutil
from types import SimpleNamespace

import pytest

from diffpath_jax import cli
from diffpath_jax.commands import doctor
from diffpath_jax.io.errors import ExitCode


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def without(monkeypatch, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == missing else find(name, *more))


def test_without_a_question_nothing_is_needed(capsys, monkeypatch):
    without(monkeypatch, "openslide")
    assert cli.main(["doctor"]) == ExitCode.OK
    shown = "\n".join(lines(capsys))
    assert "jax" in shown and "no openslide" in shown and "ready" not in shown


@pytest.mark.parametrize("work", ["prep", "train"])
def test_this_machine_is_ready(capsys, monkeypatch, work):
    monkeypatch.setattr(doctor, "ACCELERATORS", ())
    assert cli.main(["doctor", "--for", work]) == ExitCode.OK
    assert lines(capsys)[-1].split() == ["ready", "for", work]


def test_a_package_that_is_not_there_stops_preparation_alone(capsys, monkeypatch):
    without(monkeypatch, "openslide")
    assert cli.main(["doctor", "--for", "prep"]) == ExitCode.SYSTEM
    shown = lines(capsys)
    assert any(line.startswith("no openslide") and "pip install 'diffpath[prep]'" in line for line in shown)
    assert shown[-1].split() == ["not", "ready", "for", "prep"]
    monkeypatch.setattr(doctor, "ACCELERATORS", ())
    assert cli.main(["doctor", "--for", "train"]) == ExitCode.OK


def test_an_accelerator_that_jax_does_not_see_stops_training(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "ACCELERATORS", ("null",))
    assert cli.main(["doctor", "--for", "train"]) == ExitCode.SYSTEM
    assert any("JAX does not see /dev/null" in line for line in lines(capsys))


def test_a_device_that_computes_wrong_stops_training(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "ACCELERATORS", ())
    monkeypatch.setattr(doctor.jnp, "matmul", lambda a, b, precision: a @ b + 0.01)
    assert cli.main(["doctor", "--for", "train"]) == ExitCode.SYSTEM
    assert any("computes wrong" in line for line in lines(capsys))


def test_a_full_disk_stops_everything(capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**30))
    for work in ("prep", "train"):
        assert cli.main(["doctor", "--for", work]) == ExitCode.SYSTEM
        assert any("GiB of disk" in line for line in lines(capsys))


def test_one_process_is_no_pod(capsys):
    assert cli.main(["doctor", "--for", "pod"]) == ExitCode.SYSTEM
    assert any("one process alone" in line for line in lines(capsys))
