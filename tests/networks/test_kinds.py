"""A kind of network from another package: one row, and it is trained, resumed, sampled and exported like any other."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.networks.config import ClassNetworkConfig, NetworkKind, indivisible
from diffpath_jax.networks.kinds import KINDS
from diffpath_jax.ranges import Width
from diffpath_jax.runs import run as runs
from diffpath_jax.weights import safetensors_file
from tests.conftest import register

CONFIG = """
import runpy

def get_config():
    config = runpy.run_path("configs/demo_ddpm.py")["get_config"]("debug")
    config.network = {"kind": "tiny", "width": 4}
    config.optim.muon_learning_rate = 0.0
    return config
"""


@dataclass(frozen=True)
class TinyConfig(ClassNetworkConfig):
    width: Width = 8
    parts: Width = 2

    def conflict(self):
        return indivisible("parts", {"the layer": self.width}, self.parts)


class Tiny(nnx.Module):
    """Two convolutions, told class and time."""

    def __init__(self, config, *, dtype, rngs):
        self.classes = nnx.Embed(config.num_classes, config.width, rngs=rngs)
        self.stem = nnx.Conv(3, config.width, (3, 3), dtype=dtype, rngs=rngs)
        self.out = nnx.Conv(config.width, 3, (3, 3), dtype=dtype, rngs=rngs)

    def __call__(self, x, t, conditions, key=None):
        told = self.classes(conditions["label"]) + jnp.cos(t / 100.0)[:, None]
        return self.out(nnx.silu(self.stem(x) + told[:, None, None]))


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    return register(monkeypatch, KINDS, NetworkKind("tiny", TinyConfig, Tiny, "diffusion"))


@pytest.fixture
def train(tmp_path, dataset):
    """The command, with other keys."""
    (tmp_path / "config.py").write_text(CONFIG)

    def run(*more):
        words = ("train", "--config", tmp_path / "config.py", "--workdir", tmp_path / "run")
        return cli.main([str(word) for word in (*words, f"--config.data.train={dataset}", *more)])

    return run


def test_it_is_trained_resumed_sampled_and_exported(tmp_path, train):
    assert train() == 0
    assert train("--config.train.num_steps=3", "--allow_change", "train.num_steps") == 0
    run = runs.open_run(tmp_path / "run")
    assert run.config.network == TinyConfig(width=4)
    trained = runs.load_parameters(run)
    assert trained.step == 3
    # Two classes and the null class.
    assert trained.params["classes"]["embedding"].shape == (3, 4)
    words = ("sample", "--workdir", tmp_path / "run", "--out", tmp_path / "set", "--num_per_class", 2, "--steps", 2)
    assert cli.main([str(word) for word in words]) == 0
    assert open_dataset(tmp_path / "set").count("train") == 4
    words = ("export", "--workdir", tmp_path / "run", "--out", tmp_path / "tiny.safetensors")
    assert cli.main([str(word) for word in words]) == 0
    flat, about = safetensors_file.read_parameters(tmp_path / "tiny.safetensors")
    assert about["network"] == {"kind": "tiny", "num_classes": 3, "width": 4, "parts": 2}
    expected = safetensors_file.flatten(trained.params)
    assert set(flat) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(flat[name], array)


def test_its_keys_are_checked_and_its_name_is_told(train, capsys):
    for word, said in (
        ("--config.network.width=0", "key 'width'"),
        ("--config.network.depth=3", "depth"),
        ("--config.network.parts=3", "the 4 channels of the layer do not divide into 3 parts"),
        ("--config.network.kind=huge", "use one of unet_adm, unet_authors, unet_ldm, tiny"),
    ):
        assert train(word) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        assert said in line


def test_a_name_or_a_config_belongs_to_one_kind(tiny):
    KINDS.register(tiny)  # once more, as a module that is loaded again would
    for name, config in (("tiny", ClassNetworkConfig), ("other", TinyConfig), ("unet_adm", ClassNetworkConfig)):
        with pytest.raises(ValueError, match="has the name or the config"):
            KINDS.register(NetworkKind(name, config, Tiny, "diffusion"))
