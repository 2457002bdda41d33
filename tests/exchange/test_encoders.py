"""Published encoders: the table is whole, and a file that is made of one gives what the network gives."""

import importlib.util
import json
import sys

import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.evaluation.features import published
from diffpath_jax.evaluation.features.open import open_extractor
from diffpath_jax.evaluation.features.published import PublishedEncoder
from diffpath_jax.exchange import encoder_onnx
from tests.conftest import register

INSTALLED = all(importlib.util.find_spec(name) for name in encoder_onnx.PACKAGES)
COLOURS = ((0.7, 0.6, 0.7), (0.2, 0.25, 0.2))
SIDE, WIDTH = 28, 16


@pytest.fixture
def repository(tmp_path):
    """A tiny transformer of random weights with four tokens of no place, as the hub holds such."""
    timm = pytest.importorskip("timm")
    import safetensors.torch
    import torch

    torch.manual_seed(0)
    numbers = {"img_size": SIDE, "embed_dim": WIDTH, "depth": 2, "num_heads": 2, "reg_tokens": 4, "init_values": 1e-1}
    network = timm.create_model("vit_base_patch14_reg4_dinov2", pretrained=False, num_classes=0, **numbers)
    folder = tmp_path / "repository"
    folder.mkdir()
    config = {"architecture": "vit_base_patch14_reg4_dinov2", "num_classes": 0, "model_args": numbers}
    (folder / "config.json").write_text(json.dumps({**config, "pretrained_cfg": {"num_classes": 0}}))
    safetensors.torch.save_file(network.state_dict(), folder / "model.safetensors")
    return folder, network.eval()


def tiny(monkeypatch, *, with_mean, width=None):
    numbers = {"width": width or WIDTH * (1 + with_mean), "colours": COLOURS, "size": SIDE, "with_mean": with_mean}
    options = {"act_layer": "torch.nn.GELU"}
    return register(
        monkeypatch, published.PUBLISHED, PublishedEncoder("tiny", "nobody/tiny", "none", options=options, **numbers)
    )


@pytest.mark.skipif(not INSTALLED, reason="needs the extra encoders")
@pytest.mark.parametrize("with_mean", [False, True])
def test_the_file_gives_what_the_network_gives(repository, monkeypatch, tmp_path, with_mean):
    import torch

    folder, network = repository
    tiny(monkeypatch, with_mean=with_mean)
    words = ["encoder", "export", "tiny", "--out", str(tmp_path / "tiny"), "--from", str(folder)]
    assert cli.main(words) == 0
    images = np.random.default_rng(1).integers(0, 256, (5, SIDE, SIDE, 3), np.uint8)
    x = (images / 255 - np.array(COLOURS[0])) / np.array(COLOURS[1])
    with torch.inference_mode():
        tokens = network.forward_features(torch.tensor(x.transpose(0, 3, 1, 2), dtype=torch.float32)).numpy()
    wanted = tokens[:, 0]
    if with_mean:
        wanted = np.concatenate([wanted, tokens[:, 5:].mean(axis=1)], axis=1)
    extractor = open_extractor(tmp_path / "tiny" / "tiny.onnx", resize="tf_bilinear")
    np.testing.assert_allclose(extractor.extract(images), wanted, atol=1e-4)
    assert extractor.name == "tiny"
    assert cli.main(words) == 4  # nothing is written over


@pytest.mark.skipif(not INSTALLED, reason="needs the extra encoders")
def test_files_of_another_network_are_refused_and_leave_nothing(repository, monkeypatch, tmp_path, capsys):
    tiny(monkeypatch, with_mean=False, width=99)
    words = ["encoder", "export", "tiny", "--out", str(tmp_path / "tiny"), "--from"]
    assert cli.main([*words, str(repository[0])]) == 2
    assert "its features have 16 numbers, not 99" in capsys.readouterr().err
    assert cli.main([*words, str(tmp_path / "nowhere")]) == 7
    assert "accept the licence at huggingface.co/nobody/tiny" in capsys.readouterr().err
    assert not (tmp_path / "tiny").exists()


def test_a_package_that_is_missing_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cli.main(["encoder", "export", "uni", "--out", str(tmp_path / "uni")]) == 2
    said = "error: encoder in uni: torch is not installed; fix: pip install 'diffpath[encoders]'\n"
    assert capsys.readouterr().err == said and not (tmp_path / "uni").exists()


def test_all_stand_in_the_list_with_their_licence(capsys):
    assert cli.main(["encoder", "list"]) == 0
    said = capsys.readouterr()
    assert all(name in said.out + said.err for name in published.PUBLISHED)
    for row in published.PUBLISHED.values():
        assert row.licence and row.repository.count("/") == 1 and row.width > 0
        assert all(0 < number < 1 for numbers in row.colours for number in numbers)
