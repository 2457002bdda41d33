"""Columns of a user's table: put beside images, told to a model, asked for by their own words."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds

from diffpath_jax import api, cli
from diffpath_jax.data.columns import Column, column_of
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.runs import run as runs
from diffpath_jax.sampling import told
from tests.conftest import TINY_DENOISER, feature, train_words, write_run, write_slide

FIELDS = ["--fov_um", "32", "--patch_px", "16", "--stride_um", "32", "--gap_um", "16"]
TABLE = "patient,site,age\nP0,north,40\nP1,south,\nP2,north,60\n"
SITE, AGE = Column("site", ("north", "south")), Column("age", low=40.0, high=60.0)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A data set of three patients, and a table of theirs."""
    folder = tmp_path_factory.mktemp("cohort")
    (folder / "slides").mkdir()
    (folder / "regions").mkdir()
    for number in range(3):
        write_slide(folder / "slides" / f"s{number}.svs", seed=number)
        outlines = [feature(name, left, 128, left + 256, 640) for name, left in (("Purple", 128), ("Pink", 640))]
        (folder / "regions" / f"s{number}.geojson").write_text(json.dumps(outlines))
    (folder / "patients.csv").write_text("slide,patient\n" + "".join(f"s{i},P{i}\n" for i in range(3)))
    (folder / "more.csv").write_text(TABLE)
    words = ["--slides", folder / "slides", "--annotations", folder / "regions", "--patients", folder / "patients.csv"]
    assert cli.main([str(word) for word in ["prep", *words, "--out", folder / "set", *FIELDS]]) == 0
    return folder


def transform(cohort, out, *words, table="more.csv", code=0):
    words = ["--data", cohort / "set", "--table", cohort / table, "--out", out, *words]
    assert cli.main(["transform", *map(str, words)]) == code
    return out


@pytest.fixture(scope="module")
def beside(cohort, tmp_path_factory):
    return transform(cohort, tmp_path_factory.mktemp("columns") / "set", "--columns", "site,age")


@pytest.fixture(scope="module")
def run(beside, tmp_path_factory):
    """A model of random parameters that is told columns."""
    network = {**TINY_DENOISER["network"], "conditions": ("label", "columns"), "columns": (2, 0)}
    return write_run(tmp_path_factory.mktemp("told") / "run", beside, {**TINY_DENOISER, "network": network})


def test_each_image_has_the_values_of_its_patient(cohort, beside):
    source, written = open_dataset(cohort / "set"), open_dataset(beside)
    assert written.schema.columns == (SITE, AGE) and written.images == source.digest
    names = pq.read_table(cohort / "set" / "private" / "patches.parquet", columns=["slide", "patient"]).to_pylist()
    patients = {row["slide"]: row["patient"] for row in names}
    expected = {"P0": (0, 0), "P1": (1, np.nan), "P2": (0, 1)}
    seen = set()
    for split in source.splits:
        for before, after in zip(source.read(split), written.read(split), strict=True):
            np.testing.assert_array_equal(after.columns, expected[patients[after.slide]])
            np.testing.assert_array_equal(after.image, before.image)
            seen.add(patients[after.slide])
    assert seen == set(expected)
    assert "Beside each: site (north, south); age (40 to 60)" in (beside / "README.md").read_text()
    tensor = tfds.builder_from_directory(beside).as_data_source("test")[0]["columns"]
    np.testing.assert_array_equal(tensor, next(written.read("test")).columns)


def test_a_column_is_a_number_where_all_are_and_words_and_numbers_come_back():
    assert column_of("age", ["7", "", "3.5"]) == Column("age", low=3.5, high=7.0)
    assert column_of("stain", ["b", "a", "", "b"]) == Column("stain", ("a", "b"))
    assert column_of("odd", ["1", "nan"]).values == ("1", "nan")
    for column, text in ((SITE, "south"), (AGE, "45")):
        assert str(column.decode(column.encode(text))).removesuffix(".0") == text
    assert np.isnan(SITE.encode("")) and np.isnan(AGE.encode(""))
    with pytest.raises(ValueError, match="'west' is none of north, south"):
        SITE.encode("west")
    for texts, why in (
        ([""], "empty"),
        (["2", "2.0"], "all its numbers are 2"),
        ([str(i) + "x" for i in range(1001)], "1001"),
    ):
        with pytest.raises(ValueError, match=why):
            column_of("odd", texts)


@pytest.mark.full
def test_a_model_learns_with_them_and_is_asked_in_their_words(beside, tmp_path):
    keys = {"network.conditions": "('label','columns')", "network.columns": "(2,0)"}
    for _ in range(2):
        assert cli.main(train_words(tmp_path / "run", beside, keys)) == 0
    assert runs.open_run(tmp_path / "run").columns == (SITE, AGE)


def sample(run, out, *words, code=0):
    fixed = ["--workdir", run, "--out", out, "--num_per_class", 1, "--sampler", "ddim", "--steps", 2]
    assert cli.main([str(word) for word in ["sample", *fixed, *words]]) == code
    return open_dataset(out) if code == 0 else None


def test_samples_say_what_they_were_told(run, tmp_path):
    made = sample(run, tmp_path / "set", "--condition", "site=south", "--condition", "age=50")
    table = pq.read_table(tmp_path / "set" / "samples.parquet")
    assert set(table["site"].to_pylist()) == {"south"} and set(table["age"].to_pylist()) == {50.0}
    assert made.details.job["conditions"] == {"site": "south", "age": 50.0}
    said = {"site": "south", "age": 50}
    drawn = api.sample(api.open_run(run), tmp_path / "api", num_per_class=1, conditions=said, sampler="ddim", steps=2)
    assert drawn.digest == made.digest
    other = sample(run, tmp_path / "other", "--condition", "site=north", "--guidance_of", "columns=1")
    assert other.details.job["conditions"] == {"site": "north"} and other.digest != made.digest
    assert "conditions" not in sample(run, tmp_path / "none").details.job


def test_a_column_takes_the_place_of_none_of_the_samples_own(cohort, tmp_path):
    (cohort / "own.csv").write_text("patient,index,seed\nP0,a,x\nP1,b,y\nP2,a,x\n")
    named = transform(cohort, tmp_path / "named", "--columns", "index,seed", table="own.csv")
    network = {**TINY_DENOISER["network"], "conditions": ("label", "columns"), "columns": (2, 2)}
    workdir = write_run(tmp_path / "run", named, {**TINY_DENOISER, "network": network})
    made = sample(workdir, tmp_path / "set", "--condition", "index=b", "--condition", "seed=y")
    table = pq.read_table(tmp_path / "set" / "samples.parquet")
    assert table["index"].to_pylist() == [0, 1] and set(table["seed"].to_pylist()) == {0}
    assert made.details.job["conditions"] == {"index": "b", "seed": "y"}


def test_exported_parameters_know_them(run, tmp_path):
    file = tmp_path / "told.safetensors"
    assert cli.main(["export", "--workdir", str(run), "--out", str(file)]) == 0
    words = ["--weights", file, "--num_per_class", 1, "--sampler", "ddim", "--steps", 2, "--condition", "site=south"]
    assert cli.main([str(word) for word in ["sample", "--out", tmp_path / "set", *words]]) == 0
    assert open_dataset(tmp_path / "set").details.job["conditions"] == {"site": "south"}


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("site=west", "'west' is none of north, south"),
        ("age=old", "could not convert"),
        ("scanner=A", "it takes site, age"),
    ],
)
def test_what_no_column_holds_is_one_line(run, tmp_path, capsys, word, said):
    sample(run, tmp_path / "set", "--condition", word, code=2)
    assert said in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_what_is_not_said_is_not_known(run):
    opened = api.open_run(run)
    site, age = told.told_of({"site": "south"}, opened)["columns"]
    assert site == 1 and np.isnan(age)
    assert told.named({"label": 0, "columns": (0.0, float("nan"))}, opened) == {"site": "north"}
    with pytest.raises(DiffpathError, match="not told 'label'"):
        told.told_of({"label": 1}, opened)


@pytest.mark.parametrize(
    ("text", "columns", "said"),
    [
        ("patient,site\nP0,a\nP1,b\n", "site", "no row for P2"),
        ("patient,site\nP0,a\nP1,b\nP2,a\nP2,b\n", "site", "P2 stands twice"),
        ("patient,site\nP0,a\nP1,b\nP2,a\n", "scanner", "must be one of them"),
        ("patient,site\nP0,a\nP1,b\nP2,a\n", "site,site", "names one twice"),
        ("patient,site\nP0,\nP1,\nP2,\n", "site", "it is empty"),
        ("patient,mpp\nP0,1\nP1,2\nP2,1\n", "mpp", "knows something else by this name"),
    ],
)
def test_tables_that_do_not_fit_are_one_line(cohort, tmp_path, capsys, text, columns, said):
    (cohort / "odd.csv").write_text(text)
    transform(cohort, tmp_path / "set", "--columns", columns, table="odd.csv", code=2)
    assert said in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_data_without_private_names_are_one_line(cohort, beside, tmp_path, capsys):
    words = ["transform", "--data", str(beside), "--columns", "site", "--out", str(tmp_path / "set")]
    assert cli.main([*words, "--table", str(cohort / "more.csv")]) == 2
    assert "nothing says whose its slides are" in capsys.readouterr().err
    assert cli.main(words) == 2
    assert "--columns in the command line: --table belongs to it" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
