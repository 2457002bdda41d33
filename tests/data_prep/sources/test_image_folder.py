"""What folders of images say by their names, and what of them is not used."""

from pathlib import Path

import numpy as np
import pytest

from data_prep.sources import image_folder
from data_prep.sources.images import table_notes
from data_prep.splits.patients import read_patients
from diffpath_jax import cli
from diffpath_jax.data.image_files import encode_png
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.io.errors import DiffpathError

PNG = encode_png(np.zeros((8, 8, 3), np.uint8))


@pytest.fixture
def find(tmp_path):
    """Write files and find the images among them."""

    def run(*files, rows="", keep_splits=True):
        for file in files:
            (tmp_path / "images" / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "images" / file).write_bytes(PNG)
        (tmp_path / "rows.csv").write_text("image,split\n" + rows)
        splits = ("train", "val", "test")
        table = read_patients(tmp_path / "rows.csv", column="image", splits=splits) if rows else None
        batches = image_folder.find_batches(tmp_path / "images", table, mpp=0.5, keep_splits=keep_splits)
        notes = [*image_folder.notes(tmp_path / "images", batches), *(table_notes(table, batches) if table else ())]
        return {file: batch.split for batch in batches for file in batch.images.files}, notes

    return run


@pytest.mark.parametrize(
    "files",
    [
        ("training/a/1.png", "test/a/2.png", "extra/a/3.png"),
        ("a/train/1.png", "a/test/2.png"),
        ("data/train/a/1.png", "data/test/a/2.png"),
        ("train/a/1.png", "train/a/2.png", "b/Test/3.png"),
    ],
)
def test_splits_that_would_not_be_seen_are_refused(find, files):
    with pytest.raises(DiffpathError, match=r"is called '(training|train|test|Test)', and others are not of splits"):
        find(*files)
    assert set(find(*files, keep_splits=False)[0].values()) == {None}
    stated = "".join(f"{file},train\n" for file in files)
    assert set(find(*files, rows=stated)[0].values()) == {"train"}


def test_what_is_not_used_is_named(find):
    files = ["train/a/1.png", "train/a/1.gif", "train/a/deep/2.png", "val/a/3.png", ".hidden/x.gif", "train/.4.png"]
    splits, notes = find(*files, rows="1.png,test\n2.png,val\nval/a/3.png,val\nghost.png,test\n")
    assert splits == {"train/a/1.png": "test", "train/a/deep/2.png": "val", "val/a/3.png": "val"}
    others, folders, rows = notes
    assert others.endswith("are left out: 1 (train/a/1.gif)")
    assert folders == "folders below those of classes, whose names are not used: 1 (train/a/deep)"
    assert rows == "rows of --patients that match no image: 1 (ghost.png)"
    (note,) = find()[1][1:]
    assert note == folders


def test_nothing_is_said_where_all_is_used(find):
    assert find("train/a/1.png", "test/test/2.png")[1] == []
    assert find("train/a/1.png", "test/test/2.png", rows="1.png,train\ntest/test/2.png,val\n")[1] == []


@pytest.mark.parametrize(
    ("patient", "said"),
    [
        ("{0}", "whose patients are unknown"),
        ("{0.stem}", "whose patients are unknown"),
        ("{1}", "none in two splits; each has one image, so that this cannot show"),
        ("{2}", "2 in test; none in two splits"),
    ],
)
def test_nothing_is_proven_of_a_patient_for_each_image(find, tmp_path, capsys, patient, said):
    files = [Path(f"{'ab'[i % 2]}/{i}.png") for i in range(8)]
    find(*map(str, files))
    for i, file in enumerate(files):
        image = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
        (tmp_path / "images" / file).write_bytes(encode_png(image))
    rows = [f"{file},{patient.format(file, f'case {i}', f'case {i // 2}')}\n" for i, file in enumerate(files)]
    (tmp_path / "patients.csv").write_text("image,patient\n" + "".join(rows))
    words = ["--images", tmp_path / "images", "--mpp", 0.5, "--fractions", "0.5,0,0.5", "--workers", 0]
    words += ["--patients", tmp_path / "patients.csv", "--out", tmp_path / "out"]
    assert cli.main(["prep", *map(str, words)]) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert said in shown and ("taken as unknown" in shown) == ("are unknown" in said)
    dataset = open_dataset(tmp_path / "out")
    assert dataset.details.split_by == ("image" if "unknown" in said else "patient")
    assert ("cannot show" in dataset.details.split_proof) == ("cannot show" in said)
