"""``network.from_file``: a network without typing its keys."""

import jax
import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.config import checks
from diffpath_jax.config import files as config_files
from diffpath_jax.config.network import network_of_file
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.networks.kinds import make_network
from diffpath_jax.networks.unet_adm import UNetConfig
from diffpath_jax.runs import run as runs
from diffpath_jax.weights.safetensors_file import flatten, write_parameters

# Nothing of it is what the demo's config has.
SHAPE = UNetConfig(
    num_classes=4, channels=16, channel_mult=(1,), attention_downsamples=(), num_heads=2, groups=4, dropout=0.2
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("converted") / "adm.safetensors"
    params, _ = jax.jit(make_network(SHAPE, dtype="float32").init)(jax.random.key(1))
    write_parameters(path, flatten(params), {"network": {"kind": "unet_adm", "num_classes": 4, **SHAPE.as_json()}})
    return path


def test_every_key_is_that_of_the_file_but_what_changes_no_meaning(file):
    words = [f"--config.network.from_file={file}", "--config.network.dropout=0.1", "--config.network.channels=99"]
    content = config_files.load("diffpath:demo_ddpm:debug", words, checks.with_defaults)
    network = checks.run_config(content, where="test").network
    assert network == UNetConfig(**{**vars(SHAPE), "num_classes": 0, "dropout": 0.1})


@pytest.mark.full
def test_a_run_takes_network_and_parameters(tmp_path, dataset, file):
    options = {"network.from_file": file, "train.init_from": file, "data.train": dataset, "optim.learning_rate": 0.0}
    options["optim.muon_learning_rate"] = 0.0
    words = [f"--config.{name}={value}" for name, value in options.items()]
    run = ["train", "--config", "diffpath:demo_ddpm:debug", "--workdir", str(tmp_path / "run"), *words]
    assert cli.main(run) == 0
    assert cli.main(run) == 0  # the same command finds its run again
    opened = runs.open_run(tmp_path / "run")
    assert opened.config.network.channels == 16
    stem = runs.load_parameters(opened, use_ema=False).params["encoder"]["stem"]["kernel"]
    params, _ = make_network(SHAPE, dtype="float32").init(jax.random.key(1))
    np.testing.assert_allclose(stem, params["encoder"]["stem"]["kernel"], rtol=1e-6)


def test_a_file_that_names_no_network_is_refused(tmp_path):
    write_parameters(tmp_path / "plain.safetensors", {"a": np.zeros(2, np.float32)}, {})
    with pytest.raises(DiffpathError, match="names no network"):
        network_of_file({"from_file": str(tmp_path / "plain.safetensors")}, where="test")
    with pytest.raises(DiffpathError, match="no such file"):
        network_of_file({"from_file": "nowhere.safetensors"}, where="test")
    assert network_of_file({"from_file": "", "kind": "unet_adm"}, where="test") == {"kind": "unet_adm"}
