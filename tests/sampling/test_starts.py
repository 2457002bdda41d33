"""``diffpath sample --start``: variations, blends and repair of images, and whose images these may be."""

import json

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from diffpath_jax import cli
from diffpath_jax.commands import sample_references
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.evaluation import image_sets
from tests.conftest import TINY_DENOISER, write_run

DDIM = ["--sampler", "ddim", "--steps", 4]


def sample(run, out, start, *words, code=0, count=2, opens=True):
    words = ["sample", "--workdir", run, "--out", out, "--num_per_class", count, "--start", start, *DDIM, *words]
    assert cli.main([str(word) for word in words]) == code
    return open_dataset(out) if code == 0 and opens else None


def drawn(dataset):
    """Images by index."""
    return {record.index: record.image for record in dataset.read("train")}


def named(out, dataset, split="test", column="start_image"):
    """The image that each sample names as its start, by the sample's index."""
    images = [record.image for record in open_dataset(dataset).read(split)]
    labels = [record.label for record in open_dataset(dataset).read(split)]
    rows = pq.read_table(out / "samples.parquet").to_pylist()
    classes = open_dataset(dataset).schema.classes
    assert all(classes[labels[row[column]]] == row["class"] for row in rows)
    return {row["index"]: images[row[column]] for row in rows}


def write_mask(path, side=16):
    """The right half is painted."""
    mask = np.zeros((side, side), np.uint8)
    mask[:, side // 2 :] = 255
    cv2.imwrite(str(path), mask)
    return path


def test_level_0_is_the_image_itself_and_higher_levels_lead_away(denoiser_run, dataset, tmp_path):
    distances = []
    for level in (0.0, 0.3, 0.9):
        found = drawn(sample(denoiser_run, tmp_path / str(level), dataset, "--start_level", level))
        images = named(tmp_path / str(level), dataset)
        assert sorted(found) == sorted(images) == [0, 1, 2, 3]
        distances.append(np.mean([np.abs(found[i].astype(int) - images[i]).mean() for i in found]))
    assert distances[0] == 0 < distances[1] < distances[2]
    details = open_dataset(tmp_path / "0.3").details
    assert details.sampling["start_origin"] == "held out"
    assert details.sampling["start_images"] == open_dataset(dataset).digest
    assert details.references == ""


def test_pictures_and_points_of_a_sweep_take_the_images_that_the_set_takes(
    denoiser_run, dataset, tmp_path, monkeypatch
):
    opened, refer = [], sample_references.refer
    monkeypatch.setattr(sample_references, "refer", lambda *a, **named: opened.append(a) or refer(*a, **named))
    sweep = ["--sweep", "start_level=0.0,0.5", "--trajectory"]
    sample(denoiser_run, tmp_path / "sweep", dataset, *sweep, count="pink=2", opens=False)
    assert len(opened) == 1
    for level in ("0.0", "0.5"):
        trajectory = cv2.imread(str(tmp_path / "sweep" / f"start_level-{level}" / "qa" / "trajectory.png"))
        assert trajectory.shape == (2 + 18, 2 + 10 * 18, 3)


def test_the_start_of_a_sample_depends_on_nothing_but_its_index(denoiser_run, dataset, tmp_path):
    few = drawn(sample(denoiser_run, tmp_path / "few", dataset, "--start_level", 0.5))
    many = drawn(sample(denoiser_run, tmp_path / "many", dataset, "--start_level", 0.5, count=3))
    grown = drawn(sample(denoiser_run, tmp_path / "few", dataset, "--start_level", 0.5, count=3))
    assert set(few) < set(many) == set(grown)
    for index, image in few.items():
        assert np.abs(image.astype(int) - many[index]).max() <= 1
        np.testing.assert_array_equal(image, grown[index])


@pytest.mark.parametrize(
    "words",
    [pytest.param([], marks=pytest.mark.full), ["--repeats", 2], ["--start_level", 0.5, "--guidance", 1]],
    ids=str,
)
def test_known_pixels_stay_to_the_bit(denoiser_run, dataset, tmp_path, words):
    mask = write_mask(tmp_path / "mask.png")
    found = drawn(sample(denoiser_run, tmp_path / "set", dataset, "--inpaint", mask, *words))
    for index, image in named(tmp_path / "set", dataset).items():
        np.testing.assert_array_equal(found[index][:, :8], image[:, :8])
        assert np.abs(found[index][:, 8:].astype(int) - image[:, 8:]).max() > 1


def test_between_two_images_of_a_class(denoiser_run, dataset, tmp_path):
    """The ends are the variations of the two images; at level 0 the images themselves and their means."""
    sample(denoiser_run, tmp_path / "set", dataset, "--start_level", 0, "--between", 3, count=3)
    found = drawn(open_dataset(tmp_path / "set"))
    first, second = (named(tmp_path / "set", dataset, column=f"start_{name}") for name in ("image", "other"))
    for label in (0, 1):
        ends = first[label].astype(float), second[label].astype(float)
        assert np.abs(ends[0] - ends[1]).max() > 0
        for index, expected in zip((label, label + 2, label + 4), (ends[0], sum(ends) / 2, ends[1]), strict=True):
            assert np.abs(found[index] - expected).max() <= 0.5 + 1e-3
    rows = pq.read_table(tmp_path / "set" / "samples.parquet").to_pylist()
    assert [row["start_weight"] for row in rows] == [0, 0, 0.5, 0.5, 1, 1]


def test_training_images_have_to_be_allowed_and_every_record_says_so(
    denoiser_run, dataset, resnet_run, tmp_path, capsys
):
    words = ("--start_split", "train", "--start_level", 0.3)
    sample(denoiser_run, tmp_path / "x", dataset, *words, code=4)
    assert "--allow_training_references" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "x").exists()
    made = sample(denoiser_run, tmp_path / "set", dataset, *words, "--allow_training_references")
    said = "start from images that the model was trained on"
    assert said in " ".join(capsys.readouterr().err.split())
    assert made.details.sampling["start_origin"] == "training"
    assert said in (tmp_path / "set" / "README.md").read_text()
    rows = pq.read_table(tmp_path / "set" / "samples.parquet").to_pylist()
    assert {row["start_origin"] for row in rows} == {"training"}
    assert said in image_sets.from_dataset(made, "train").references
    measured = ["--real", dataset, "--generated", tmp_path / "set", "--out", tmp_path / "eval", "--resamples", 0]
    features = ["--features", resnet_run, "--cache", tmp_path / "cache"]
    assert cli.main([str(word) for word in ("eval", *measured, *features)]) == 0
    assert any(said in line for line in json.loads((tmp_path / "eval" / "metrics.json").read_text())["warnings"])
    page = (tmp_path / "eval" / "index.html").read_text()
    assert f'<p class="note warning">Warning: images of generated {said}' in page


def test_images_of_data_that_the_model_does_not_name(denoiser_run, samples, dataset, tmp_path):
    """Of a foreign data set it cannot be known; generated images are nobody's."""
    other = write_run(tmp_path / "run", samples, TINY_DENOISER)
    made = sample(other, tmp_path / "unknown", dataset, "--start_level", 0.3)
    assert "may have been trained on" in made.details.references
    made = sample(denoiser_run, tmp_path / "again", samples, "--start_split", "train", "--start_level", 0.3)
    assert (made.details.sampling["start_origin"], made.details.references) == ("generated", "")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "nothing of it is left; fix: add --start_level"),
        (["--start_split", "none", "--start_level", 0.5], "no such split"),
        (["--patch_px", 24, "--start_level", 0.5], "16 x 16 px, not 24 x 24"),
        (["--start_level", 1.5], "start_level"),
        (["--start_level", 0.5, "--repeats", 2], "nothing is known"),
        (["--inpaint", "{mask}", "--repeats", 2, "--eta", 0.5], "noise of its own"),
        (["--inpaint", "{mask}", "--repeats", 2, "--sampler", "dpmpp"], "dpmpp has none"),
        (["--inpaint", "{small}"], "8 x 8 px"),
        (["--inpaint", "{black}"], "nothing of it is white"),
        (["--inpaint", "{dataset}"], "image in"),
        (["--between", 1, "--start_level", 0.5], "between"),
    ],
)
def test_bad_starts(denoiser_run, dataset, tmp_path, capsys, words, why):
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((16, 16), np.uint8))
    paths = {"mask": write_mask(tmp_path / "mask.png"), "small": write_mask(tmp_path / "small.png", 8)}
    paths |= {"black": tmp_path / "black.png", "dataset": dataset}
    words = [str(word).format(**paths) for word in words]
    command = ["sample", "--workdir", denoiser_run, "--out", tmp_path / "x", "--num_per_class", 2, "--start", dataset]
    assert cli.main([str(word) for word in (*command, *DDIM, *words)]) in (2, 5)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and why in line
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("words", [["--start_level", 0.5], ["--inpaint", "mask.png"], ["--between", 2]], ids=str)
def test_options_of_starts_need_one(denoiser_run, tmp_path, capsys, words):
    command = ["sample", "--workdir", denoiser_run, "--out", tmp_path / "x", "--num_per_class", 2, *DDIM, *words]
    assert cli.main([str(word) for word in command]) == 2
    assert "add --start" in capsys.readouterr().err
