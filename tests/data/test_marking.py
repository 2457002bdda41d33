"""Every generated image says that it is one: in its record, its PNG, its TIFF, in tables and on contact sheets."""

import io

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pyarrow.parquet as pq
import tifffile

from diffpath_jax import cli
from diffpath_jax.data import image_files, marking
from diffpath_jax.data.manifest import open_dataset

IMAGE = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
ABOUT = marking.about("generated:0123456789abcdef")


def test_a_png_keeps_its_pixels_and_says_so():
    with PIL.Image.open(io.BytesIO(image_files.encode_png(IMAGE, ABOUT))) as file:
        assert file.text["Description"] == marking.NOTICE
        assert file.text[marking.COLUMN].endswith("/trainedAlgorithmicMedia")
        assert file.text["Source"] == "generated:0123456789abcdef"
        np.testing.assert_array_equal(np.array(file), IMAGE)


def test_a_tiff_keeps_its_pixels_and_says_so():
    with tifffile.TiffFile(io.BytesIO(image_files.encode_tiff(IMAGE, ABOUT))) as file:
        assert marking.NOTICE in file.pages[0].description and marking.SOURCE_TYPE in file.pages[0].description
        np.testing.assert_array_equal(file.asarray(), IMAGE)


def test_real_images_say_nothing():
    with PIL.Image.open(io.BytesIO(image_files.encode_png(IMAGE))) as file:
        assert not file.text
    with tifffile.TiffFile(io.BytesIO(image_files.encode_tiff(IMAGE))) as file:
        assert not file.pages[0].description


def test_a_sample_set_says_so_in_every_record_row_and_picture(tmp_path, denoiser_run):
    out = tmp_path / "set"
    words = ["sample", "--workdir", denoiser_run, "--out", out, "--num_per_class", 2, "--sampler", "ddim", "--steps", 2]
    assert cli.main([str(word) for word in (*words, "--png", "--trajectory")]) == 0
    dataset = open_dataset(out)
    assert all(marking.is_generated(dataset.details, record.slide) for record in dataset.read("train"))
    assert all(record.slide.startswith("generated:") for record in dataset.read("train"))
    assert set(pq.read_table(out / "samples.parquet")[marking.COLUMN].to_pylist()) == {marking.SOURCE_TYPE}
    pictures = sorted(out.rglob("*.png"))
    assert {path.parent.name for path in pictures} == {"pink", "purple", "qa"}
    for path in pictures:
        with PIL.Image.open(path) as file:
            assert isinstance(file, PIL.PngImagePlugin.PngImageFile)
            assert file.text[marking.COLUMN] == marking.SOURCE_TYPE
