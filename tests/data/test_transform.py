"""`diffpath transform`: a data set made of another."""

import io

import numpy as np
import pytest
from PIL import Image

from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset


def transform(data, out, *words) -> int:
    return cli.main(["transform", "--data", str(data), "--out", str(out), *map(str, words)])


def test_the_other_splits_stay_and_a_rerun_does_nothing(dataset, tmp_path):
    assert transform(dataset, tmp_path / "small", "--num_per_class", 5) == 0
    real, small = open_dataset(dataset), open_dataset(tmp_path / "small")
    assert small.class_counts["train"] == dict.fromkeys(real.schema.classes, 5)
    assert small.class_counts["test"] == real.class_counts["test"]
    assert small.details.kind == "real" and small.details.source == real.digest
    ours = {(record.slide, record.index, record.label): record for record in real.read("train")}
    for record in small.read("train"):
        same = ours[(record.slide, record.index, record.label)]
        assert np.array_equal(record.image, same.image) and record.patient == same.patient
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "small").iterdir()}
    assert transform(dataset, tmp_path / "small", "--num_per_class", 5) == 0
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items() if path.name != ".lock")
    assert transform(dataset, tmp_path / "small", "--num_per_class", 6) == 4


def test_jpeg_is_what_another_library_makes_of_it(dataset, tmp_path):
    assert transform(dataset, tmp_path / "jpeg", "--splits", "test", "--jpeg", 75) == 0
    pairs = zip(open_dataset(dataset).read("test"), open_dataset(tmp_path / "jpeg").read("test"), strict=True)
    for real, compressed in list(pairs)[:5]:
        buffer = io.BytesIO()
        Image.fromarray(real.image).save(buffer, "JPEG", quality=75, subsampling=2)
        expected = np.asarray(Image.open(buffer), int)
        assert np.abs(compressed.image - expected).mean() < 1.5
        assert not np.array_equal(compressed.image, real.image)


def test_labels_are_dealt_out_again(dataset, tmp_path):
    assert transform(dataset, tmp_path / "shuffled", "--shuffle_labels") == 0
    real, shuffled = open_dataset(dataset), open_dataset(tmp_path / "shuffled")
    assert shuffled.class_counts == real.class_counts
    labels = [[record.label for record in each.read("train")] for each in (real, shuffled)]
    assert labels[0] != labels[1]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--jpeg", "0"], "--jpeg: '0'"),
        (["--patients_share", "0"], "--patients_share: '0'"),
        (["--patients_share", "nan"], "--patients_share: 'nan'"),
        (["--class_share", "pink"], "not CLASS=SHARE"),
        (["--class_share", "nothing=0.5"], "no class 'nothing'"),
        (["--splits", "nowhere"], "no such split"),
        (["--splits", ""], "no such split"),
        (["--num_per_class", "100000"], "has"),
    ],
)
def test_one_line_and_nothing_written(dataset, tmp_path, capsys, words, why):
    assert transform(dataset, tmp_path / "out", *words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert why in line and "; fix: " in line and not (tmp_path / "out").exists()


def test_a_dry_run_counts(dataset, tmp_path, capsys):
    assert transform(dataset, tmp_path / "out", "--num_per_class", 3, "--dry_run") == 0
    assert "pink 3, purple 3" in capsys.readouterr().err and not (tmp_path / "out").exists()
