"""Owned directories and files: one owner, nothing foreign, nothing left after a failure."""

import csv
import io

import pytest

from diffpath_jax.io import files
from diffpath_jax.io.csv_text import csv_text
from diffpath_jax.io.errors import DiffpathError, ExitCode


def test_a_directory_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with (
        pytest.raises(DiffpathError, match=r"no metrics\.json") as caught,
        files.own_results(tmp_path, marker="metrics.json"),
    ):
        pass
    assert caught.value.code == ExitCode.REFUSED
    (tmp_path / "metrics.json").write_text("")
    with files.own_results(tmp_path, marker="metrics.json"):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "own", [lambda path: files.own_results(path, marker="x"), files.own_file], ids=["directory", "file"]
)
def test_two_at_once(tmp_path, own):
    with own(tmp_path / "a" / "out"):
        with pytest.raises(DiffpathError, match="in use by process") as caught, own(tmp_path / "a" / "out"):
            pass
        assert caught.value.code == ExitCode.REFUSED
    with own(tmp_path / "a" / "out"):
        pass


@pytest.mark.parametrize(
    "own", [lambda path: files.own_results(path, marker="x"), files.own_file], ids=["directory", "file"]
)
@pytest.mark.parametrize("error", [DiffpathError("a", where="b", why="c", fix="d"), OSError(28, "No space")])
def test_nothing_is_left_of_a_failure(tmp_path, own, error):
    with pytest.raises(type(error)), own(tmp_path / "a" / "b" / "out"):
        raise error
    assert not list(tmp_path.iterdir())


def test_what_is_there_stays_after_a_failure(tmp_path):
    with pytest.raises(OSError), files.own_results(tmp_path / "out", marker="x"):
        (tmp_path / "out" / "x").write_text("half a day's work")
        raise OSError(28, "No space")
    assert (tmp_path / "out" / "x").exists()


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1", "-1+1", "@SUM(A1)", "\tx"])
def test_no_cell_is_a_formula(text):
    (row,) = csv.DictReader(io.StringIO(csv_text(("class", "value"), [{"class": text, "value": -1.5}]), newline=""))
    assert row == {"class": f"'{text}", "value": "-1.5"}


def test_paths_that_are_passed_on():
    assert files.shareable("/home/someone/data/colon") == "colon"
    assert files.shareable("data/colon") == "data/colon"
