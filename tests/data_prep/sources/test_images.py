"""Patches that exist already, as files in class folders or as a TFDS data set: the same data set as from slides."""

import re
import shutil

import cv2
import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds

from data_prep.sources import image_folder
from data_prep.sources.images import ImageBatch
from data_prep.splits.patients import read_patients
from diffpath_jax.data.image_files import encode_png
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.io.errors import DiffpathError
from tests.data_prep.sources.conftest import SIDE, patch, records_of, write


def test_a_folder_gives_what_its_files_show(images, prep, tmp_path):
    code, errors, shown = prep("--images", images, "--mpp", 0.25, "--patch_px", 16)
    assert (code, errors) == (0, [])
    dataset, found = records_of(tmp_path / "out")
    assert dataset.schema.classes == ("normal_mucosa", "tumour") and dataset.details.kind == "real"
    assert (dataset.details.mpp, dataset.details.fov_um) == (0.5, 8.0)
    # Every pixel is the mean of four, and every record is in the table with the file that shows it.
    rows = {row["slide"]: row for row in pq.read_table(tmp_path / "out" / "private" / "patches.parquet").to_pylist()}
    assert len(found) == len(rows) == 24
    for record in found:
        row = rows[record.slide]
        image = np.asarray(PIL.Image.open(images / row["slide_file"])).astype(float)
        expected = image.reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
        assert np.abs(record.image - expected).max() <= 0.5
        assert (
            dataset.schema.classes[record.label]
            == row["class"]
            == row["slide_file"].split("/")[0].lower().replace(" ", "_")
        )
        assert (record.mpp, record.fov_um, record.patient, row["patient"]) == (0.5, 8.0, "", "")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "leakage cannot be excluded" in card and "leakage cannot be excluded" in shown
    assert len(tfds.builder_from_directory(tmp_path / "out").as_data_source("train")) == dataset.count("train")
    assert len(list((tmp_path / "out" / "qa").glob("*.png"))) == 2
    assert prep("--images", images, "--mpp", 0.25, "--patch_px", 16)[0] == 0


def test_with_a_table_patients_stay_together(images, prep, tmp_path):
    files = [path.relative_to(images) for path in sorted(images.rglob("*.png"))]
    rows = "".join(f"{path},{path.name[:2]}\n" for path in files)
    (tmp_path / "patients.csv").write_text("image,patient\n" + rows)
    words = ["--images", images, "--mpp", 0.5, "--patients", tmp_path / "patients.csv"]
    code, _, shown = prep(*words)
    assert code == 0 and "6 patients: 4 in train, 1 in val, 1 in test; none in two splits" in shown
    dataset, _ = records_of(tmp_path / "out")
    owners = {split: {record.patient for record in dataset.read(split)} for split in dataset.splits}
    assert sum(map(len, owners.values())) == len(set().union(*owners.values())) == 6
    assert dataset.details.split_by == "patient"
    (tmp_path / "patients.csv").write_text("image,patient\n" + rows.replace("Tumour/p3_7.png,p3\n", ""))
    code, errors, _ = prep(*words, out="other")
    assert code == 2 and "no row for Tumour/p3_7.png" in errors[0]
    # A bare name would mean a file of each class.
    (tmp_path / "patients.csv").write_text("image,patient\n" + rows.replace("Tumour/p3_7.png,p3\n", "p3_7.png,p3\n"))
    code, errors, _ = prep(*words, out="other")
    assert code == 2 and "no row for Tumour/p3_7.png" in errors[0]


def bad_images(folder):
    """Files that are no patch of the others' size: name -> what is said of it."""
    good = encode_png(patch(0))
    (folder / "empty.png").write_bytes(b"")
    (folder / "prose.png").write_text("no image")
    (folder / "half.png").write_bytes(good[: len(good) // 2])
    write(folder / "wide.png", np.zeros((SIDE, 2 * SIDE, 3), np.uint8))
    write(folder / "large.png", patch(1, 2 * SIDE))
    PIL.Image.fromarray(np.zeros((SIDE, SIDE), np.uint16)).save(folder / "deep.png")
    cv2.imwrite(str(folder / "deep colours.tif"), patch(1).astype(np.uint16) * 16)
    PIL.Image.fromarray(patch(1)).save(
        folder / "pages.tif", save_all=True, append_images=[PIL.Image.fromarray(patch(2))]
    )
    PIL.Image.new("1", (16_000, 16_000)).save(folder / "bomb.png")
    (folder / "dangling.png").symlink_to(folder / "nowhere")
    return {
        "empty.png": "no image",
        "prose.png": "no image",
        "half.png": "",
        "wide.png": f"{2 * SIDE} x {SIDE} px, and most have {SIDE} x {SIDE}",
        "large.png": f"{2 * SIDE} x {2 * SIDE} px",
        "deep.png": "8 bits a channel",
        "deep colours.tif": "it has 16 bits a channel",
        "pages.tif": "it has 2 pages",
        "bomb.png": "pixels",
        "dangling.png": "cannot be read",
    }


def test_a_bad_image_fails_alone_until_it_is_good(images, prep, tmp_path):
    mine = shutil.copytree(images, tmp_path / "images")
    expected = bad_images(mine / "Tumour")
    words = ["--images", mine, "--mpp", 0.5]
    for _ in range(2):
        code, errors, shown = prep(*words)
        assert code == 3 and f"{len(expected)} of {24 + len(expected)} images failed" in shown
        said = {name: next(line for line in errors if f"Tumour/{name}: " in line) for name in expected}
        assert len(errors) == len(expected)
        assert all(why in said[name] and "; fix: " in said[name] for name, why in expected.items()), errors
        assert len(records_of(tmp_path / "out")[1]) == 24
    for number, name in enumerate(expected):
        (mine / "Tumour" / name).unlink()
        write(mine / "Tumour" / name, patch(1000 + number))
    assert prep(*words)[:2] == (0, [])
    assert prep(*words, "--key_file", tmp_path / "out" / "private" / "hash.key", out="fresh")[0] == 0
    assert open_dataset(tmp_path / "out").digest == open_dataset(tmp_path / "fresh").digest


def test_an_interrupted_job_goes_on_where_it_stopped(images, prep, tmp_path, monkeypatch):
    monkeypatch.setattr(image_folder, "BATCH", 4)
    (tmp_path / "key").write_text("secret")
    words, batches = ["--images", images, "--mpp", 0.5, "--key_file", tmp_path / "key"], []
    read = ImageBatch.read

    def counted(self, *arguments):
        batches.append(self.where)
        if len(batches) == 4:
            raise KeyboardInterrupt
        return read(self, *arguments)

    monkeypatch.setattr(ImageBatch, "read", counted)
    assert prep(*words)[0] == 130
    assert prep(*words)[0] == 0
    assert len(batches) - 1 == len(set(batches)) > 5
    monkeypatch.setattr(ImageBatch, "read", read)
    assert prep(*words, "--workers", 2, out="whole")[0] == 0
    assert open_dataset(tmp_path / "out").digest == open_dataset(tmp_path / "whole").digest


def test_unusual_images_are_patches(prep, tmp_path):
    """CMYK, palette, grey, transparent and turned by EXIF: as a viewer shows them."""
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    picture = PIL.Image.fromarray(patch(5))
    for mode, suffix in (("CMYK", "tif"), ("P", "png"), ("L", "bmp"), ("RGBA", "png")):
        picture.convert(mode).save(folder / f"{mode}.{suffix}")
    turned = PIL.Image.Exif()
    turned[0x0112] = 6
    picture.save(folder / "turned.png", exif=turned)
    assert prep("--images", tmp_path / "images", "--mpp", 0.5, "--fractions", "1,0,0")[:2] == (0, [])
    _, found = records_of(tmp_path / "out")
    rows = pq.read_table(tmp_path / "out" / "private" / "patches.parquet").to_pylist()
    (key,) = (row["slide"] for row in rows if row["slide_file"] == "a/turned.png")
    (record,) = (record for record in found if record.slide == key)
    np.testing.assert_array_equal(record.image, np.rot90(patch(5), -1))
    assert len(found) == 5


def test_transparent_pixels_are_counted_and_show_white(prep, tmp_path):
    cut = np.dstack([patch(3), np.full((SIDE, SIDE), 255, np.uint8)])
    cut[: SIDE // 2, :, 3] = 0
    for number, image in enumerate((patch(1), patch(2), cut)):
        write(tmp_path / "images" / "a" / f"{number}.png", image[..., :3])
    PIL.Image.fromarray(cut).save(tmp_path / "images" / "a" / "2.png")
    code, errors, shown = prep("--images", tmp_path / "images", "--mpp", 0.5, "--fractions", "1,0,0")
    assert (code, errors) == (0, [])
    assert "images from 0.png on: 1 of 3 images have transparent pixels, which show white" in shown
    _, found = records_of(tmp_path / "out")
    half = np.where(np.arange(SIDE)[:, None, None] < SIDE // 2, 255, patch(3))
    assert sum(np.array_equal(record.image, half) for record in found) == 1
    card = (tmp_path / "out" / "README.md").read_text()
    assert "um/px of the images: 0.5, from: --mpp" in card and "1 of 1 batches of images: 1 of 3 images have" in card
    page = (tmp_path / "out" / "qa" / "index.html").read_text()
    for text in (shown, card, page.split("</style>")[1].split("<script>")[0]):
        assert not [words for words in ("level 0", "Slides", "slides:", "one slide") if words in text]


def test_copies_of_files_are_listed_or_left_out(images, prep, tmp_path):
    mine = shutil.copytree(images, tmp_path / "images")
    original = "Normal mucosa/p0_0.png"
    for name in ("Tumour/z.png", "Normal mucosa/z.png"):
        shutil.copy(mine / original, mine / name)
    assert prep("--images", mine, "--mpp", 0.5)[0] == 0
    dataset, found = records_of(tmp_path / "out")
    # Without patients a file and its copies have one owner, and so stay in one split.
    assert len(found) == 26 and dataset.details.duplicates.exact == {
        "within a slide": 0,
        "within a split": 2,
        "across splits": 0,
    }
    assert dataset.details.duplicates.other_class == 1
    rows = pq.read_table(tmp_path / "out" / "private" / "duplicates.parquet").to_pylist()
    assert {row["slide_file_first"] for row in rows} == {original}
    assert {row["slide_file_second"] for row in rows} == {"Normal mucosa/z.png", "Tumour/z.png"}
    assert prep("--images", mine, "--mpp", 0.5, "--duplicates", "drop", out="dropped")[0] == 0
    dataset, found = records_of(tmp_path / "dropped")
    assert len(found) == 24 and dataset.details.outcomes == {"kept": 26, "dropped as duplicates": 2}
    assert "dropped as duplicates: 2" in (tmp_path / "dropped" / "README.md").read_text()


def test_limits_reject_patches_where_they_are_given(prep, tmp_path):
    for name, image in (("sharp", patch(0)), ("flat", np.full((32, 32, 3), (200, 100, 150), np.uint8))):
        write(tmp_path / "images" / "a" / f"{name}.png", image)
    words = ["--images", tmp_path / "images", "--mpp", 0.5, "--fractions", "1,0,0"]
    assert prep(*words)[0] == 0
    rows = {
        row["slide_file"]: row for row in pq.read_table(tmp_path / "out" / "private" / "patches.parquet").to_pylist()
    }
    # Nothing is lost where nothing changes: blur is 1 by definition. Saturation is (max - min) / max.
    assert rows["a/flat.png"]["blur"] == 1 and rows["a/flat.png"]["saturation"] == pytest.approx(0.5, abs=1 / 255)
    assert rows["a/flat.png"]["tissue_share"] is None
    assert prep(*words, "--blur_max", 0.9, out="limited")[0] == 0
    dataset, (record,) = records_of(tmp_path / "limited")
    assert dataset.details.outcomes == {"kept": 1, "out of focus": 1}
    np.testing.assert_array_equal(record.image, patch(0))
    page = (tmp_path / "limited" / "qa" / "index.html").read_text()
    files = re.findall(r'<img[^>]*src="([^":]+)"', page)
    assert len(files) == 3 and all((tmp_path / "limited" / "qa" / file).is_file() for file in files)
    assert "tissue is not measured" in page and "least blurred" in page and "step of the grid" not in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "um/px in --mpp: image files do not state it"),
        (["--mpp", "0"], "argument --mpp: '0'"),
        (["--mpp", "nan"], "argument --mpp: 'nan'"),
        (["--mpp", "0.5", "--patch_px", "33"], "images of 32 px would be enlarged to 33"),
        (["--mpp", "0.5", "--fov_um", "16"], "--fov_um in the command line"),
        (["--mpp", "0.5", "--annotations", "x"], "--annotations in the command line"),
        (["--mpp", "0.5", "--roi_min", "0.75"], "--roi_min in the command line"),
        (["--mpp", "0.5", "--tissue_min", "0"], "--tissue_min in the command line"),
        (["--mpp", "0.5", "--origin_um", "0,0"], "--origin_um in the command line"),
        (["--mpp", "0.5", "--patients", "nowhere.csv"], "table in nowhere.csv"),
    ],
)
def test_options_that_do_not_fit(images, prep, tmp_path, words, said):
    code, errors, _ = prep("--images", images, *words)
    assert code == 2 and len(errors) == 1 and said in errors[0]
    assert not (tmp_path / "out").exists()


def test_folders_that_do_not_fit(prep, tmp_path):
    write(tmp_path / "flat" / "a.png", patch(0))
    write(tmp_path / "splits" / "train" / "a.png", patch(0))
    write(tmp_path / "splits" / "test" / "tumour" / "a.png", patch(1))
    write(tmp_path / "wide" / "tumour" / "a.png", np.zeros((8, 16, 3), np.uint8))
    (tmp_path / "empty").mkdir()
    for name, said in {
        "flat": "no folder that names their class",
        "splits": "train: they lie in no folder that names their class",
        "wide": "most have 16 x 8 px",
        "empty": "there are none",
        "nowhere": "no such directory",
    }.items():
        code, errors, _ = prep("--images", tmp_path / name, "--mpp", 0.5)
        assert code == 2 and len(errors) == 1 and said in errors[0], errors
        assert not (tmp_path / "out").exists()


def of_batches(folder, *, keep_splits=True):
    """Returns the split and the class of every file."""
    batches = image_folder.find_batches(folder, None, mpp=0.5, keep_splits=keep_splits)
    return {file: (batch.split, batch.images.label) for batch in batches for file in batch.images.files}


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("training", "test"), ("train", "test")),
        (("Train", "Valid", "Test"), ("train", "val", "test")),
        (("train", "validation", "testing"), ("train", "val", "test")),
        (("train",), ("train",)),
    ],
)
def test_folders_of_splits_hold_folders_of_classes(tmp_path, names, splits):
    expected = {}
    for name, split in zip(names, splits, strict=True):
        for label in ("A", "B"):
            write(tmp_path / "images" / name / label / "1.png", patch(0))
            expected[f"{name}/{label}/1.png"] = (split, label)
    assert of_batches(tmp_path / "images") == expected
    dealt = of_batches(tmp_path / "images", keep_splits=False)
    assert dealt == {file: (None, label) for file, (_, label) in expected.items()}


def test_a_class_may_be_called_as_a_split_where_others_are_not(tmp_path):
    for label in ("test", "tumour"):
        write(tmp_path / "images" / label / "1.png", patch(0))
    assert of_batches(tmp_path / "images") == {"test/1.png": (None, "test"), "tumour/1.png": (None, "tumour")}


def test_splits_can_be_stated_without_patients_and_nothing_is_proven_of_these(images, prep, tmp_path):
    files = [path.relative_to(images).as_posix() for path in sorted(images.rglob("*.png"))]
    splits = ["test" if i % 3 == 0 else "train" for i in range(24)]
    text = "".join(f"{file},{split}\n" for file, split in zip(files, splits, strict=True))
    (tmp_path / "splits.csv").write_text("image,split\n" + text)
    code, errors, shown = prep("--images", images, "--mpp", 0.5, "--patients", tmp_path / "splits.csv")
    assert (code, errors) == (0, []) and "leakage cannot be excluded" in shown and "none in two splits" not in shown
    dataset, records = records_of(tmp_path / "out")
    assert {split: dataset.count(split) for split in dataset.splits} == {"train": 16, "test": 8}
    assert dataset.details.split_by == "image"
    assert {record.patient for record in records} == {""}
    (tmp_path / "splits.csv").write_text("slide,split\na,train\n")
    with pytest.raises(DiffpathError, match="'patient' must be one of them"):
        read_patients(tmp_path / "splits.csv", column="slide", splits=("train",))


def test_a_class_map_names_and_leaves_out(images, prep, tmp_path):
    (tmp_path / "map.json").write_text('{"classes": {"Tumour": "t"}, "ignore": ["Normal mucosa"]}')
    words = ["--images", images, "--mpp", 0.5, "--classes", tmp_path / "map.json"]
    assert prep(*words)[0] == 0
    dataset, found = records_of(tmp_path / "out")
    assert dataset.schema.classes == ("t",) and len(found) == 12
    assert dataset.details.outcomes == {"kept": 12, "of no class that is used": 12}
    (tmp_path / "map.json").write_text('{"classes": {"Tumour": "t"}}')
    code, errors, _ = prep(*words, out="other")
    assert code == 2 and "'Normal mucosa'" in errors[0]


def test_a_file_more_or_less_changes_its_own_batch_only(monkeypatch):
    monkeypatch.setattr(image_folder, "BATCH", 10)
    members = [(f"a/{number:04d}.png", "") for number in range(500)]

    def batches(found):
        return {tuple(batch) for batch in image_folder._in_batches(found)}

    whole = batches(members)
    assert sorted(member for batch in whole for member in batch) == members
    assert 25 < len(whole) < 100
    for gone in (0, 123, 499):
        assert len(whole - batches([*members[:gone], *members[gone + 1 :]])) <= 2
