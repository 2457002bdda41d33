"""Latents of the shared data set and a model of them."""

import pytest

from diffpath_jax import cli

LDM = "configs/demo_ldm.py:debug"


# A denoiser of 8 x 8 latents that is quick to compile.
KEYS = {
    "data.augment": "dihedral",
    "network.channels": 16,
    "network.channel_mult": "(1,)",
    "network.attention_downsamples": "(1,)",
    "network.num_heads": 2,
    "network.context_width": 8,
    "optim.muon_learning_rate": 0.0,
    "optim.decay": "constant",
}


def run_cli(*words):
    return cli.main([str(word) for word in words])


def train(workdir, data, stage, *more, **keys):
    given = {"data.train": data, "codec.first_stage": stage, **KEYS, **keys}
    options = (f"--config.{name}={value}" for name, value in given.items())
    return run_cli("train", "--config", LDM, "--workdir", workdir, *options, *more)


@pytest.fixture(scope="session")
def latents(tmp_path_factory, dataset, autoencoder_run):
    out = tmp_path_factory.mktemp("latents") / "set"
    assert run_cli("encode", "--data", dataset, "--first_stage", autoencoder_run, "--out", out) == 0
    return out


@pytest.fixture(scope="session")
def ldm_run(tmp_path_factory, latents, autoencoder_run):
    workdir = tmp_path_factory.mktemp("ldm") / "run"
    assert train(workdir, latents, autoencoder_run) == 0
    return workdir


def error_line(capsys):
    """The one line that a refused command prints."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and "; fix: " in lines[0]
    return lines[0]
