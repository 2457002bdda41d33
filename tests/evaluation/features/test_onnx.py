"""Encoders exported to ONNX: what they are shown, and what they are called."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from diffpath_jax.evaluation.features import onnx as onnx_features
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.sealed import write_sealed
from tests.golden import weights

GOLDEN = Path(__file__).parents[2] / "golden"
MATRIX = weights.weight("encoder.weight", (3, 5))
IMAGENET = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def images(side, count=40):
    """More than a batch."""
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def expected(prepared, mean, std):
    return ((prepared / 255).mean(axis=(1, 2)) - mean) / std @ MATRIX


@pytest.mark.parametrize("name", ["encoder", "encoder_tokens"])
def test_channels_first_or_last_vectors_or_tokens(name):
    extractor = onnx_features.onnx_features(GOLDEN / f"{name}.onnx")
    x = images(16)
    np.testing.assert_allclose(extractor.extract(x), expected(x, *IMAGENET), atol=1e-5)
    assert (extractor.frechet_name, extractor.kernel_name) == (f"FD-{name}", f"KD-{name}")
    assert "16 px" in extractor.description
    assert ("first token" in extractor.description) == (name == "encoder_tokens")


def test_images_of_another_size_are_resized():
    """Smooth images, so that every good resize gives nearly the same."""
    smooth = np.stack([cv2.GaussianBlur(image, (0, 0), 6) for image in images(64, count=4)])
    found = onnx_features.onnx_features(GOLDEN / "encoder.onnx").extract(smooth)
    area = np.stack([cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA) for image in smooth])
    np.testing.assert_allclose(found, expected(area, *IMAGENET), atol=0.02)


def test_the_file_beside_it_says_how_images_are_prepared(tmp_path):
    shutil.copy(GOLDEN / "encoder.onnx", tmp_path / "uni.onnx")
    plain = onnx_features.onnx_features(tmp_path / "uni.onnx")
    said = {"name": "uni2", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.25, 1.0]}
    (tmp_path / "uni.json").write_text(json.dumps(said))
    extractor = onnx_features.onnx_features(tmp_path / "uni.onnx")
    np.testing.assert_allclose(
        extractor.extract(images(16)), expected(images(16), np.array(said["mean"]), np.array(said["std"])), atol=1e-5
    )
    assert extractor.frechet_name == "FD-uni2"
    # Features of the one are not taken for features of the other.
    assert extractor.digest != plain.digest


def test_weights_beside_the_encoder_are_part_of_its_digest(tmp_path):
    """Those that the file names, as exports of large encoders do; other files are not."""
    shutil.copy(GOLDEN / "encoder.onnx", tmp_path / "uni.onnx")
    alone = onnx_features.onnx_features(tmp_path / "uni.onnx").digest
    (tmp_path / "other").write_text("1")
    assert onnx_features.onnx_features(tmp_path / "uni.onnx").digest == alone
    (tmp_path / "matrix").write_text("1")
    first = onnx_features.onnx_features(tmp_path / "uni.onnx").digest
    (tmp_path / "matrix").write_text("2")
    assert len({alone, first, onnx_features.onnx_features(tmp_path / "uni.onnx").digest}) == 3


@pytest.mark.parametrize(
    "said",
    [
        '{"size": "224"}',
        '{"size": 0}',
        '{"mean": "abc"}',
        '{"name": "../../up"}',
        '{"mean": [1, 2]}',
        '{"std": [1, 1, 0]}',
        '{"crop": 1}',
        "[1]",
        "{",
    ],
)
def test_a_bad_file_beside_it(tmp_path, said):
    shutil.copy(GOLDEN / "encoder.onnx", tmp_path / "uni.onnx")
    (tmp_path / "uni.json").write_text(said)
    with pytest.raises(DiffpathError, match=r"uni\.json"):
        onnx_features.onnx_features(tmp_path / "uni.onnx")


def test_an_exported_encoder_is_the_one_that_was_exported(tmp_path):
    """A flipped bit of its weights gives other features, and ONNX has no digest of its own."""
    data = bytearray((GOLDEN / "encoder.onnx").read_bytes())
    (tmp_path / "uni.onnx").write_bytes(data)
    write_sealed(tmp_path / "uni.json", {"digests": onnx_features.digests_of(tmp_path / "uni.onnx")})
    assert onnx_features.onnx_features(tmp_path / "uni.onnx").name == "uni"
    place = data.find(MATRIX.astype("<f4").tobytes())
    data[place] ^= 1
    (tmp_path / "uni.onnx").write_bytes(data)
    with pytest.raises(DiffpathError, match=r"not the file that uni\.json was written for") as caught:
        onnx_features.onnx_features(tmp_path / "uni.onnx")
    assert caught.value.code == ExitCode.DAMAGED


def test_no_encoder(tmp_path):
    (tmp_path / "x.onnx").write_bytes((GOLDEN / "encoder.onnx").read_bytes()[:50])
    with pytest.raises(DiffpathError, match=r"x\.onnx"):
        onnx_features.onnx_features(tmp_path / "x.onnx")


def test_without_onnxruntime(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(DiffpathError, match=r"diffpath\[onnx\]"):
        onnx_features.onnx_features(GOLDEN / "encoder.onnx")
