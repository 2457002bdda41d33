"""Samplers and spacings from outside the package are chosen, explained and drawn with like its own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.diffusion.samplers.catalogue import SAMPLERS
from diffpath_jax.diffusion.samplers.spacing import SPACINGS
from tests.conftest import ALONE, register
from tests.sampling import outside


@pytest.fixture
def registered(monkeypatch):
    """Both are known, for the time of a test."""
    register(monkeypatch, SPACINGS, outside.HALVING)
    register(monkeypatch, SAMPLERS, outside.EULER)


def words(workdir, out, *others):
    fixed = ("sample", "--workdir", workdir, "--out", out, "--num_per_class", 2, "--steps", 6)
    return [str(word) for word in (*fixed, *others)]


def images(path):
    return np.stack([record.image.astype(int) for record in open_dataset(path).read("train")])


def test_a_file_with_a_sampler_and_a_spacing_draws(denoiser_run, tmp_path, registered):
    environment = {**ALONE, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, outside.__file__, *words(denoiser_run, tmp_path / "euler", "--sampler", "euler")]
    subprocess.run(command, env=environment, check=True)
    # DDIM without noise is Euler's method on these variables.
    assert cli.main(words(denoiser_run, tmp_path / "ddim", "--sampler", "ddim", "--spacing", "halving")) == 0
    assert np.abs(images(tmp_path / "euler") - images(tmp_path / "ddim")).max() <= 1
    assert cli.main(words(denoiser_run, tmp_path / "own", "--sampler", "ddim")) == 0
    assert np.abs(images(tmp_path / "own") - images(tmp_path / "ddim")).max() > 1
    assert open_dataset(tmp_path / "euler").details.sampling["sampler"] == "euler"


def test_they_stand_in_the_help_and_in_errors(tmp_path, registered, capsys):
    with pytest.raises(SystemExit):
        cli.main(["sample", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "euler: Euler's method" in text
    assert "halving: half the time at each step" in text


@pytest.mark.parametrize(("option", "name"), [("--sampler", "euler"), ("--spacing", "halving")])
def test_an_error_lists_what_is_known(denoiser_run, tmp_path, registered, capsys, option, name):
    assert cli.main(words(denoiser_run, tmp_path / "x", option, "unheard-of")) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: key '{option[2:]}' in the command line: ")
    assert name in line and "unheard-of" in line and "; fix: " in line
    assert not Path(tmp_path / "x").exists()


def test_it_takes_no_option_that_it_does_not_name(denoiser_run, tmp_path, registered, capsys):
    assert cli.main(words(denoiser_run, tmp_path / "x", "--sampler", "euler", "--eta", 1)) == 2
    assert "--eta in the command line: euler has none to choose" in capsys.readouterr().err
