"""Whose a slide is and where it goes, from the command line: closed to every doubt, balanced, and proven."""

import itertools
import os
import re
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds

from data_prep.splits import folds, patients, splits
from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.io.errors import DiffpathError
from tests.conftest import write_slide

FIELDS = ["--fov_um", "16", "--patch_px", "16", "--workers", "0"]
NAMES = [f"s{number}" for number in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six slides with a label each; two are of one patient."""
    place = tmp_path_factory.mktemp("cohort")
    (place / "slides").mkdir()
    for number, name in enumerate(NAMES):
        write_slide(place / "slides" / f"{name}.svs", seed=number, size=256)
    (place / "labels.csv").write_text("slide,class\n" + "".join(f"{name},Tissue\n" for name in NAMES))
    return place


@pytest.fixture
def prep(folder, tmp_path, capsys):
    """Run the command with a table of patients; gives its exit code, its error lines and all it said."""

    def run(table, *more, out="out"):
        (tmp_path / "patients.csv").write_text(table)
        words = [
            "prep",
            "--slides",
            folder / "slides",
            "--slide_labels",
            folder / "labels.csv",
            "--out",
            tmp_path / out,
        ]
        code = cli.main([str(word) for word in [*words, "--patients", tmp_path / "patients.csv", *FIELDS, *more]])
        shown = capsys.readouterr().err
        return code, [line for line in shown.splitlines() if line.startswith("error")], shown

    return run


def table(owners, header="slide,patient"):
    return header + "\n" + "".join(f"{name},{owner}\n" for name, owner in zip(NAMES, owners, strict=True))


TWO_SPLITS = table(["p0,train", "p0,test", "p1,val", "p2,test", "p3,train", "p4,train"], "slide,patient,split")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (table("aabbcd") + "s0,b\n", "s0 stands twice"),
        (table("aabbcd") + "s0.svs,b\n", "s0.svs is meant by 's0.svs' and 's0', and they differ"),
        (table("aabbcd") + " s0 , b \n", "s0 stands twice"),
        (table(["P1", "p1", "b", "b", "c", "d"]), "'P1' and 'p1' look like one patient"),
        (table(["P 1", "P1", "b", "b", "c", "d"]), "'P 1' and 'P1' look like one patient"),
        (table(["P1", "P\N{FULLWIDTH DIGIT ONE}", "b", "b", "c", "d"]), "look like one patient"),
        (table(["a", "   ", "b", "b", "c", "d"]), "row 3 lacks patient"),
        (table(["a", "", "b", "b", "c", "d"]), "row 3 lacks patient"),
        (table(["Doe, J", "a", "b", "b", "c", "d"]), "row 2 has more values than columns"),
        (table("aabbcd").replace("s3", "s9"), "no row for s3.svs"),
        (table("aabbcd").replace("s3", "S3"), "no row for s3.svs"),
        (table("aabbcd").replace(",", "|"), "'slide' must be one of them, once"),
        (table("aabbcd", "slide,patient,patient"), "'patient' must be one of them, once"),
        (table("aabbcd", "slide,subject"), "'patient' must be one of them, once"),
        ("", "'slide' must be one of them, once"),
        ("slide,patient\n", "no row for s0.svs"),
        (TWO_SPLITS, "patient 'p0' in .*in train and in test"),
        (TWO_SPLITS.replace("p0,test", "p0,"), "row 3 lacks split"),
        (TWO_SPLITS.replace("p0,test", "p0,Train"), "'Train' of s1 is none; fix: write one of train, val, test"),
        (table("aaaabb"), "2 patients with fields of view cannot fill 3 splits"),
    ],
)
def test_what_could_put_a_patient_in_two_splits_is_one_line(prep, tmp_path, rows, said):
    code, lines, _ = prep(rows)
    assert code == 2 and len(lines) == 1 and re.search(said, lines[0]) and "; fix: " in lines[0], lines
    assert not (tmp_path / "out").exists()


def test_rows_that_repeat_themselves_and_extra_columns_do_no_harm(prep):
    rows = table(["a,x", "a,y", "b,", "b,", "c,", "d,"], "slide,patient,note") + "s0,a,x\n" + "elsewhere,z,z\n"
    assert prep("\ufeff" + rows)[0] == 0


def where_is(out):
    """patient -> splits, as the records say; the hashed names of the private table tell that it agrees."""
    found: dict[str, set[str]] = {}
    for row in pq.read_table(out / "private" / "patches.parquet").to_pylist():
        found.setdefault(row["patient"], set()).add(row["split"])
    dataset = open_dataset(out)
    in_records = {s: {record.patient for record in dataset.read(s)} for s in dataset.splits}
    assert sum(map(len, in_records.values())) == len(set().union(*in_records.values())) == len(found)
    return found


def test_the_table_decides_where_patients_go(prep, tmp_path):
    rows = table(["p0,test", "p0,test", "p1,val", "p2,train", "p3,train", "p4,test"], "slide,patient,split")
    code, _, shown = prep(rows)
    assert code == 0 and "5 patients: 2 in train, 1 in val, 2 in test; none in two splits" in " ".join(shown.split())
    assert where_is(tmp_path / "out") == {
        "p0": {"test"},
        "p1": {"val"},
        "p2": {"train"},
        "p3": {"train"},
        "p4": {"test"},
    }
    # Another split is another data set.
    assert prep(rows.replace("p1,val", "p1,test"))[0] == 4
    code, lines, _ = prep(rows, "--fractions", "0.5,0,0.5", out="other")
    assert code == 2 and "the splits are given already" in lines[0]


def test_folds_are_data_sets_that_share_their_shards(prep, tmp_path):
    code, _, shown = prep(table("aabcde"), "--folds", "5", "--name", "mine")
    assert code == 0 and "5 patients: 1 in fold0, 1 in fold1, 1 in fold2" in " ".join(shown.split())
    out = tmp_path / "out"
    assert all(len(found) == 1 for found in where_is(out).values())
    whole, tested = open_dataset(out), Counter()
    for number in range(5):
        dataset = open_dataset(out / f"fold{number}")
        patients_of = {s: {record.patient for record in dataset.read(s)} for s in ("train", "val", "test")}
        for one, other in itertools.combinations(patients_of.values(), 2):
            assert not one & other
        assert sum(map(len, patients_of.values())) == 5 and len(patients_of["test"]) == len(patients_of["val"]) == 1
        tested.update(patients_of["test"])
        # Every record is in each data set once, and on the disk once for all of them.
        assert sum(map(dataset.count, dataset.splits)) == sum(map(whole.count, whole.splits))
        shards = [path for s in dataset.splits for path in dataset.paths(s)]
        assert {path.stat().st_ino for path in shards} == {
            p.stat().st_ino for s in whole.splits for p in whole.paths(s)
        }
        source = tfds.builder_from_directory(out / f"fold{number}").as_data_source("train")
        assert len(source) == dataset.count("train")
        assert f"test is fold{number}" in (out / f"fold{number}" / "README.md").read_text()
    assert set(tested.values()) == {1} and len(tested) == 5
    # Done is done; another number of folds is another job.
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != ".lock"}
    assert prep(table("aabcde"), "--folds", "5", "--name", "mine")[0] == 0
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != ".lock"}
    assert prep(table("aabcde"), "--folds", "3", "--name", "mine")[0] == 4


@pytest.mark.full
def test_folds_without_hard_links(prep, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("not here")))
    assert prep(table("aabbcc"), "--folds", "3")[0] == 0
    assert {open_dataset(tmp_path / "out" / f"fold{number}").count("test") for number in range(3)} == {72}


def test_two_folds_have_no_validation_split():
    assert folds.parts(1, 2) == {"train": ["fold0"], "val": [], "test": ["fold1"]}
    assert folds.parts(2, 3) == {"train": ["fold1"], "val": ["fold0"], "test": ["fold2"]}


@pytest.mark.parametrize(
    ("owners", "more", "said"),
    [
        ("aabbcc", ["--folds", "4"], "3 patients with fields of view cannot fill 4 splits"),
        ("aaaaaa", ["--folds", "2"], "1 patients with fields of view cannot fill 2 splits"),
        ("abcdef", ["--folds", "1"], "1 is not from 2 to 20"),
        ("abcdef", ["--folds", "-3"], "greater than or equal to 0"),
        ("abcdef", ["--folds", "3", "--fractions", "0.7,0.1,0.2"], "--fractions is given too"),
    ],
)
def test_folds_that_cannot_be(prep, tmp_path, owners, more, said):
    code, lines, _ = prep(table(owners), *more)
    assert code == 2 and len(lines) == 1 and said in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [2, 5, 10])
def test_folds_are_balanced_by_class(number):
    rng = np.random.default_rng(number)
    # A rare class in a third of the patients, sizes over two orders of magnitude.
    counts = {
        f"p{i}": {"common": int(10 ** rng.uniform(1, 3)), "rare": int(10 ** rng.uniform(1, 2)) * (i % 3 == 0)}
        for i in range(20 * number)
    }
    spec = splits.SplitSpec((1.0, 0.0, 0.0), 0.0, seed=0, folds=number)
    where = splits.split_patients(counts, spec)
    assert set(where) == set(counts) and set(where.values()) == set(spec.names)
    for name in ("common", "rare"):
        shares = Counter()
        for patient, found in counts.items():
            shares[where[patient]] += found[name] / sum(c[name] for c in counts.values())
        assert max(abs(share * number - 1) for share in shares.values()) < 0.1
    assert splits.split_patients(counts, spec) == where


def test_the_seed_deals_out_patients_of_equal_weight():
    counts = {f"p{i}": {"a": 5} for i in range(20)}
    dealt = [splits.split_patients(counts, splits.SplitSpec((1.0, 0.0, 0.0), 0.0, seed, folds=5)) for seed in (0, 0, 1)]
    assert dealt[0] == dealt[1] != dealt[2]
    assert all(set(Counter(where.values()).values()) == {4} for where in dealt)


def test_a_hundred_thousand_owners_are_dealt_out_soon():
    counts = {f"{i:06d}": {"ab"[i % 2]: 1} for i in range(100_000)}
    where = Counter(splits.split_patients(counts, splits.SplitSpec((0.7, 0.1, 0.2), 0.0, seed=0)).values())
    assert {split: round(count / 1000) for split, count in where.items()} == {"train": 70, "val": 10, "test": 20}


def test_patient_tables_of_images_are_read_like_those_of_slides(tmp_path):
    path = tmp_path / "patients.csv"
    path.write_text("image,patient\na/1.png,x\n1.png,y\n")
    read = patients.read_patients(path, column="image", splits=splits.SPLITS)
    assert read.owner("it", ("1.png",)).patient == "y"
    with pytest.raises(DiffpathError, match="they differ"):
        read.owner("it", ("a/1.png", "1.png"))


def test_a_gap_that_swallows_every_field_is_an_error(slide, annotated, tmp_path, capsys):
    words = ["--slides", slide, "--annotations", annotated, "--fov_um", 64, "--patch_px", 16, "--workers", 0]
    assert cli.main(["prep", *map(str, words), "--gap_um", "10000", "--out", str(tmp_path / "out")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "no field is left for any (dropped in the gap: " in line and "--gap_um" in line
    assert not (tmp_path / "out" / "manifest.json").exists()
