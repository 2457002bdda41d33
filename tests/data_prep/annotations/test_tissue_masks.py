"""Tissue that the user hands in: the fields that it covers are kept, whatever the slide looks like."""

import gzip
import json

import cv2
import numpy as np
import pytest
import tifffile

from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.io.errors import ExitCode
from tests.conftest import feature
from tests.data_prep.drawn_tissue import save, tissue


@pytest.fixture
def prep(tmp_path, capsys):
    """Prepare a slide of 8 x 8 fields of 64 px, with a mask."""
    save(tmp_path / "A.svs", tissue(np.random.default_rng(0), (512, 512)))
    (tmp_path / "labels.csv").write_text("slide,class\nA,Well\n")
    (tmp_path / "masks").mkdir()

    def run():
        words = ["prep", "--slides", tmp_path / "A.svs", "--slide_labels", tmp_path / "labels.csv", "--workers", 0]
        words += ["--fov_um", 32, "--patch_px", 64, "--fractions", "1,0,0", "--tissue_masks", tmp_path / "masks"]
        code = cli.main([str(word) for word in [*words, "--out", tmp_path / "out"]])
        return code, capsys.readouterr().err

    return run


def write_png(folder):
    mask = np.zeros((64, 64), np.uint8)
    mask[16:40, 8:32] = 1
    cv2.imwrite(str(folder / "A.png"), mask)


def write_tiff(folder):
    mask = np.zeros((512, 512), np.uint8)
    mask[128:320, 64:256] = 255
    tifffile.imwrite(folder / "A.svs.tif", mask)


def write_outlines(folder):
    outer, hole = (feature("Tissue", *box) for box in ((64, 128, 256, 320), (300, 300, 300, 300)))
    (folder / "A.geojson").write_text(json.dumps([outer, hole]))


def write_packed(folder):
    write_outlines(folder)
    (folder / "A.GeoJSON.gz").write_bytes(gzip.compress((folder / "A.geojson").read_bytes()))
    (folder / "A.geojson").unlink()


@pytest.mark.parametrize("write", [write_png, write_tiff, write_outlines, write_packed])
def test_fields_within_the_mask_are_kept(prep, tmp_path, write):
    """A square of 3 x 3 fields, in pixels of an eighth, of the slide, and as an outline beside a stray click."""
    write(tmp_path / "masks")
    assert prep()[0] == 0
    dataset = open_dataset(tmp_path / "out")
    assert dataset.count("train") == 9 and dataset.details.outcomes["too little tissue"] == 64 - 9


def test_another_mask_is_another_job(prep, tmp_path):
    write_png(tmp_path / "masks")
    assert prep()[0] == 0
    cv2.imwrite(str(tmp_path / "masks/A.png"), np.ones((64, 64), np.uint8))
    assert prep()[0] == 4


def test_masks_that_are_of_no_use_are_refused(prep, tmp_path):
    code, said = prep()
    assert code == 2 and "tissue mask" in said and "no file for A.svs" in said and not (tmp_path / "out").exists()
    cv2.imwrite(str(tmp_path / "masks/A.png"), np.ones((64, 32), np.uint8))
    code, said = prep()
    assert code == 2 and "32 x 64 px, another shape than the slide of 512 x 512 px" in said
    (tmp_path / "masks/A.png").write_bytes(b"no image")
    assert prep()[0] == ExitCode.DAMAGED
    cv2.imwrite(str(tmp_path / "masks/A.png"), np.zeros((64, 64, 4), np.uint8))
    code, said = prep()
    assert code == 2 and "transparent pixels" in said
    write_outlines(tmp_path / "masks")
    code, said = prep()
    assert code == 2 and "A.geojson and A.png for A.svs" in said
