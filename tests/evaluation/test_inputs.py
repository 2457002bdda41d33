"""What eval takes besides data sets, folders of images and stored statistics, and what it refuses."""

import cv2
import numpy as np
import pytest

from diffpath_jax import cli
from tests.evaluation.test_eval import content, eval_words, fails, images_of, pngs, resnet_features


def test_folders_of_images_stand_for_data_sets(tmp_path, dataset, samples, resnet_run):
    """The same images as files give the same numbers; classes go by name, in whatever order."""
    for name, images in images_of(samples).items():
        pngs(tmp_path / "folder", images, name)
    sets = {"set": samples, "folder": tmp_path / "folder"}
    for name, path in sets.items():
        words = ["--real", dataset, "--generated", path, "--features", resnet_run, "--floor", "none"]
        assert cli.main(eval_words(tmp_path / name / "out", *words)) == 0
    ours, theirs = (content(tmp_path / name / "out")["distances"][0]["rows"]["generated"] for name in sets)
    for group in ("overall", "pink", "purple"):
        for metric, number in ours[group]["metrics"].items():
            assert theirs[group]["metrics"][metric]["value"] == pytest.approx(number["value"], rel=1e-4), metric


def test_a_folder_without_classes_has_only_an_overall_row(tmp_path, dataset, samples, resnet_run):
    pngs(tmp_path, images_of(samples)["pink"], "flat")
    words = ["--real", dataset, "--generated", tmp_path / "flat", "--features", resnet_run]
    assert cli.main(eval_words(tmp_path / "out", *words)) == 0
    rows = content(tmp_path / "out")["distances"][0]["rows"]
    assert set(rows["generated"]) == {"overall"}
    assert rows["floor"]["overall"]["n_other"] == 16


def test_stored_statistics(tmp_path, dataset, samples, resnet_run):
    """Those of the real images, as the public tools write them: the same distance, and no more than that."""
    words = ["--real", dataset, "--generated", samples, "--features", resnet_run, "--floor", "none"]
    assert cli.main(eval_words(tmp_path / "full", *words)) == 0
    (path,) = resnet_features(tmp_path / "cache", 88)
    features = np.load(path).astype(np.float64)
    np.savez(tmp_path / "real.npz", mu=features.mean(axis=0), sigma=np.cov(features, rowvar=False))
    words[1] = tmp_path / "real.npz"
    assert cli.main(eval_words(tmp_path / "stored", *words)) == 0
    full, stored = (content(tmp_path / name)["distances"][0]["rows"]["generated"] for name in ("full", "stored"))
    assert set(stored) == {"overall"}
    assert stored["overall"]["metrics"] == {
        "FD-resnet16": {"value": pytest.approx(full["overall"]["metrics"]["FD-resnet16"]["value"], rel=1e-5)}
    }
    assert (tmp_path / "stored" / "index.html").exists()


def test_nothing_to_measure(capsys, tmp_path, dataset):
    assert "nothing to measure" in fails(capsys, tmp_path / "out", "--real", dataset)


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"mu": np.zeros(3)}, "sigma"),
        ({"mu": np.zeros(3), "sigma": np.eye(4)}, "shape"),
        ({"mu": np.full(3, np.nan), "sigma": np.eye(3)}, "finite"),
        ({"mu": np.zeros(3), "sigma": np.triu(np.ones((3, 3)))}, "symmetric"),
        ({"mu": np.zeros(3), "sigma": -np.eye(3)}, "negative"),
        ({"mu": np.zeros(2), "sigma": np.array([[1.0, 2.0], [2.0, 1.0]])}, "negative"),
        ({"mu": np.zeros(2), "sigma": np.eye(2) * 1j}, "complex"),
        ({"mu": np.array([None] * 3), "sigma": np.eye(3)}, "allow_pickle"),
    ],
)
def test_bad_statistics(capsys, tmp_path, samples, resnet_run, arrays, why):
    np.savez(tmp_path / "bad.npz", **arrays)
    words = ["--real", tmp_path / "bad.npz", "--generated", samples, "--features", resnet_run]
    assert why in fails(capsys, tmp_path / "out", *words, code=5)


def flipped(data):
    """Somewhere in the middle, many bits."""
    middle = len(data) // 2
    return data[:middle] + bytes(255 - byte for byte in data[middle : middle + 40]) + data[middle + 40 :]


@pytest.mark.parametrize("damage", ["truncate", "flip", "text", "empty", "array"])
def test_damaged_statistics(capsys, tmp_path, samples, resnet_run, damage):
    np.savez_compressed(tmp_path / "bad.npz", mu=np.random.default_rng(0).normal(size=32), sigma=np.eye(32))
    data = (tmp_path / "bad.npz").read_bytes()
    with (tmp_path / "bad.npz").open("wb") as file:
        if damage == "array":
            np.save(file, np.eye(3))
        else:
            file.write({"truncate": data[:-200], "flip": flipped(data), "text": b"mu sigma", "empty": b""}[damage])
    words = ["--real", tmp_path / "bad.npz", "--generated", samples, "--features", resnet_run]
    assert "bad.npz" in fails(capsys, tmp_path / "out", *words, code=5)


def test_statistics_of_other_features(capsys, tmp_path, samples, resnet_run):
    np.savez(tmp_path / "other.npz", mu=np.zeros(7), sigma=np.eye(7))
    words = ["--real", tmp_path / "other.npz", "--generated", samples, "--features", resnet_run]
    assert "7 and 32 features" in fails(capsys, tmp_path / "out", *words)


def test_two_stored_statistics_need_no_features_and_take_no_networks_name(tmp_path, resnet_run):
    for number, name in enumerate("ab"):
        np.savez(tmp_path / f"{name}.npz", mu=np.full(4, float(number)), sigma=np.eye(4))
    words = ["--real", tmp_path / "a.npz", "--generated", tmp_path / "b.npz"]
    for name, features in (("plain", []), ("named", ["--features", resnet_run])):
        assert cli.main(eval_words(tmp_path / name / "out", *words, *features)) == 0
        (distances,) = content(tmp_path / name / "out")["distances"]
        assert distances["rows"]["generated"]["overall"]["metrics"] == {"FD-stored": {"value": pytest.approx(4)}}


def test_folders_that_cannot_be_measured(capsys, tmp_path, dataset, samples, resnet_run):
    images = images_of(samples)["pink"]

    def line(folder, code=2):
        words = ["--real", dataset, "--generated", folder, "--features", resnet_run]
        return fails(capsys, tmp_path / "out", *words, code=code)

    (tmp_path / "empty").mkdir()
    assert "there are none" in line(tmp_path / "empty")
    assert "['blue'] are not among those of" in line(pngs(tmp_path / "unknown", images, "blue"))
    assert "resizes nothing" in line(pngs(tmp_path / "small", images[:, :8], "pink"))
    mixed = pngs(tmp_path / "mixed", images, "pink")
    cv2.imwrite(str(mixed / "pink" / "zzz.png"), images[0][:9])
    assert "zzz.png: it has 16 x 9 px" in line(mixed)
    beside = pngs(tmp_path / "beside", images, "pink")
    cv2.imwrite(str(beside / "lone.png"), images[0])
    assert "beside the class folders" in line(beside)
    broken = pngs(tmp_path / "broken", images, "pink")
    (broken / "pink" / "005.png").write_bytes((broken / "pink" / "005.png").read_bytes()[:60])
    assert "005.png" in line(broken, code=5)


def test_class_folders_may_be_links(tmp_path, dataset, samples, resnet_run):
    pngs(tmp_path / "files", images_of(samples)["pink"], "pink")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "pink").symlink_to(tmp_path / "files" / "pink")
    (tmp_path / "linked" / "again").symlink_to(tmp_path / "linked")
    words = ["--real", dataset, "--generated", tmp_path / "linked", "--features", resnet_run]
    assert cli.main(eval_words(tmp_path / "out", *words)) == 0
    assert content(tmp_path / "out")["sets"]["generated"]["n"] == 16


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--seed", "-1"], "seed"),
        (["--held_out", "1"], "held_out"),
        (["--resize", "clena"], "tf_bilinear, clean"),
        (["--split", "tset"], "tset"),
        (["--floor", "vla"], "vla"),
    ],
)
def test_bad_options(capsys, tmp_path, dataset, samples, resnet_run, words, why):
    line = fails(capsys, tmp_path / "out", "--real", dataset, "--generated", samples, "--features", resnet_run, *words)
    assert why in line


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_directory_that_cannot_be_written(capsys, tmp_path, dataset, samples, name):
    (tmp_path / "file").write_text("")
    words = ["eval", "--real", dataset, "--generated", samples, "--out", tmp_path / name]
    assert cli.main([str(word) for word in words]) == 2
    assert "no directory that may be written" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == ""


def test_a_class_without_images(tmp_path, dataset, samples, resnet_run):
    pngs(tmp_path / "one", images_of(samples)["pink"], "pink")
    words = ["--real", dataset, "--generated", tmp_path / "one", "--features", resnet_run]
    assert cli.main(eval_words(tmp_path / "out", *words)) == 0
    rows = content(tmp_path / "out")["distances"][0]["rows"]["generated"]
    assert rows["purple"] == {"n_reference": 44, "n_other": 0, "metrics": {}, "notes": ["too few images"]}
