"""A format from outside the package is one module: the real command reads its files, and names it."""

import json

import numpy as np
import pytest

from data_prep.slide.readers import registry
from data_prep.slide.readers.registry import Reader
from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset
from tests.conftest import feature, register
from tests.data_prep import array_reader


@pytest.fixture
def npy(monkeypatch):
    register(monkeypatch, registry.READERS, array_reader.KIND)


def tissue(seed):
    noise = np.random.default_rng(seed).normal(0, 12, (256, 256, 1))
    return (np.array((190, 110, 160)) + noise).clip(0, 255).astype(np.uint8)


def prep(place, *words):
    fields = ["--fov_um", 32, "--patch_px", 32, "--fractions", "1,0,0", "--key_file", place / "key"]
    (place / "key").write_text("secret")
    return cli.main([str(word) for word in ("prep", "--out", place / "out", *fields, *words)])


def test_its_patches_are_averages_of_its_pixels(tmp_path, npy):
    images = {}
    for name in ("a", "b"):
        (tmp_path / "slides").mkdir(exist_ok=True)
        images[name] = tissue(ord(name))
        np.save(tmp_path / "slides" / f"{name}.npy", images[name])
        (tmp_path / f"{name}.geojson").write_text(json.dumps(feature("Pink", 0, 0, 256, 256)))
    (tmp_path / "patients.csv").write_text("slide,patient\na,p\nb,q\n")
    words = ["--slides", tmp_path / "slides", "--annotations", tmp_path, "--patients", tmp_path / "patients.csv"]
    # Two processes: what opens a file is found there too.
    assert prep(tmp_path, *words, "--workers", 2) == 0
    records = list(open_dataset(tmp_path / "out").read("train"))
    assert len(records) == 2 * 4 * 4
    expected = []
    for image in images.values():
        cells = image.astype(float).reshape(4, 32, 2, 4, 32, 2, 3).mean(axis=(2, 5))
        expected += list(cells.transpose(0, 2, 1, 3, 4).reshape(16, 32, 32, 3))
    for record, cell in zip(records, expected, strict=True):
        assert np.abs(record.image - cell).max() <= 0.5
        assert (record.mpp, record.fov_um) == (1.0, 32.0)


def test_its_suffix_is_in_the_help_and_in_the_error_for_other_files(tmp_path, npy, capsys):
    with pytest.raises(SystemExit):
        cli.main(["prep", "--help"])
    assert ".npy" in capsys.readouterr().out
    (tmp_path / "a.xyz").write_bytes(b"x")
    assert prep(tmp_path, "--slides", tmp_path / "a.xyz", "--slide_labels", tmp_path / "none.csv") == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "a.xyz" in shown and ".svs" in shown and ".npy" in shown


def test_what_it_cannot_read_is_an_error_that_names_it(tmp_path, npy, capsys):
    (tmp_path / "a.npy").write_bytes(b"nothing")
    (tmp_path / "labels.csv").write_text("slide,class\na,Pink\n")
    assert prep(tmp_path, "--slides", tmp_path / "a.npy", "--slide_labels", tmp_path / "labels.csv") == 2
    assert "a.npy: NumPy cannot read it" in " ".join(capsys.readouterr().err.split())


def test_of_two_readers_of_a_suffix_the_last_is_taken(npy, tmp_path):
    assert registry.kind_of(tmp_path / "A.NPY") is array_reader.KIND
    assert registry.kind_of(tmp_path / "a.svs").name == "OpenSlide"
    assert isinstance(array_reader.blank((1, 1)), Reader)
