"""LPIPS from one file or two: every name used once, and images standardised as in the original."""

import re

import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.io.errors import ExitCode
from diffpath_jax.weights import from_lpips, safetensors_file
from tests.golden import weights

PUBLISHED = weights.state_dict(weights.load("first_stage.npz")["lpips/names"])
SHIFT = "scaling_layer.shift"


def torchvision():
    """The trunk as torchvision's VGG16 has it, with the layers of its classifier."""
    trunk = {f"features.{name.split('.', 2)[2]}": a for name, a in PUBLISHED.items() if name.startswith("net.")}
    return trunk | {f"classifier.{i}.bias": np.zeros(3, np.float32) for i in (0, 3, 6)}


def heads():
    return {name: array for name, array in PUBLISHED.items() if name.startswith("lin")}


def whole():
    """``lpips.LPIPS().state_dict()``: heads twice, and the constants."""
    constants = {name: np.float32(value).reshape(1, 3, 1, 1) for name, value in from_lpips.CONSTANTS.items()}
    again = {f"lins.{name[3]}.{name[5:]}": array for name, array in heads().items()}
    return PUBLISHED | constants | again


def convert(tmp_path, state, more=None):
    safetensors_file.write_parameters(tmp_path / "a.safetensors", state, {})
    words = ["--file", tmp_path / "a.safetensors", "--out", tmp_path / "out.safetensors"]
    if more is not None:
        safetensors_file.write_parameters(tmp_path / "b.safetensors", more, {})
        words += ["--heads", tmp_path / "b.safetensors"]
    code = cli.main(["convert", "--from", "lpips", *map(str, words)])
    return safetensors_file.read_parameters(tmp_path / "out.safetensors") if code == 0 else code


def test_one_file_and_two_hold_the_same(tmp_path, capsys):
    flat, about = convert(tmp_path, whole())
    assert about["network"] == {"kind": "lpips"} and "heads_sha256" not in about
    assert "lins (5)" in capsys.readouterr().err
    other, about = convert(tmp_path, torchvision(), heads())
    assert len(about["heads_sha256"]) == 64
    assert "classifier (3)" in capsys.readouterr().err
    assert flat.keys() == other.keys() and all(np.array_equal(flat[name], other[name]) for name in flat)
    # 13 convolutions with biases and 5 heads without.
    assert len(flat) == 13 * 2 + 5
    assert sum(array.size for array in flat.values()) == 14_714_688 + 64 + 128 + 256 + 512 + 512


def test_a_checkpoint_of_a_vqgan_holds_it_too():
    within = {from_lpips.WITHIN + name: array for name, array in whole().items() if not name.startswith("lins")}
    found = from_lpips.from_lpips(within | {"encoder.conv_in.bias": np.zeros(3, np.float32)}, where="test")
    alone = from_lpips.from_lpips(PUBLISHED, where="test")
    assert found.unused == {"encoder": 1}
    flat, expected = safetensors_file.flatten(found.params), safetensors_file.flatten(alone.params)
    assert all(np.array_equal(flat[name], array) for name, array in expected.items())


@pytest.mark.parametrize(
    ("state", "more", "why"),
    [
        (torchvision, None, "lin0.model.1.weight .* is missing"),
        (heads, None, "features.0.bias .* is missing"),
        (whole, heads, "lin0.model.1.weight is there twice"),
        (lambda: whole() | {SHIFT: np.zeros((1, 3, 1, 1), np.float32)}, None, "shift is not"),
        (lambda: whole() | {"lin5.model.1.weight": np.zeros((1, 9, 1, 1), np.float32)}, None, "not used: lin5"),
        (lambda: whole() | {"lin0.model.1.weight": np.zeros((1, 9, 1, 1), np.float32)}, None, "does not fit"),
        (lambda: weights.state_dict(weights.load("ldm_unet.npz")["one/names"]), None, "is missing"),
    ],
)
def test_what_is_not_lpips_is_one_line(tmp_path, capsys, state, more, why):
    assert convert(tmp_path, state(), more and more()) == ExitCode.DAMAGED
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: checkpoint in ") and "not LPIPS (" in line
    assert re.search(why, line)
    assert not (tmp_path / "out.safetensors").exists()


def test_heads_that_are_not_there_are_named(tmp_path, capsys):
    safetensors_file.write_parameters(tmp_path / "a.safetensors", torchvision(), {})
    words = [
        "--file",
        tmp_path / "a.safetensors",
        "--out",
        tmp_path / "out.safetensors",
        "--heads",
        tmp_path / "no.pth",
    ]
    assert cli.main(["convert", "--from", "lpips", *map(str, words)]) == ExitCode.BAD_INPUT
    assert "no.pth: no such file" in capsys.readouterr().err
