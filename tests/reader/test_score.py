"""Scores of reader studies, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from diffpath_jax import cli
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import parse_json
from diffpath_jax.io.sealed import SEAL, sealed
from diffpath_jax.reader import answers, key
from diffpath_jax.reader.page import COLUMNS
from tests.reader.folders import answer, make, write_folder


@pytest.fixture(scope="module")
def studies(tmp_path_factory, real, generated) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("studies")
    for question in ("rating", "pairs", "class"):
        assert make(folder / question, real, generated, "--images", "16", "--question", question) == 0
    return {path.name: path for path in folder.iterdir()}


def scored(study: Path, out: Path, files: list[Path], *words: str) -> dict:
    assert cli.main(["reader", "score", str(study), *map(str, files), "--out", str(out), *words]) == 0
    return json.loads((out / "reader.json").read_text())


@pytest.mark.parametrize("question", ["rating", "pairs", "class"])
def test_who_is_always_right(tmp_path, studies, question):
    """Perfect scores, perfect agreement; no interval, as nothing varies."""
    study = key.read(studies[question])
    files = [answer(tmp_path / f"{reader}.csv", study, reader) for reader in (1, 2, 3)]
    content = scored(studies[question], tmp_path / "out", files, "--resamples", "50")
    main = content["scores"][0]
    assert main["mean"] == {"value": 1.0} and main["readers"]["2"] == {"value": 1.0}
    assert content["agreement"]["fleiss"] == (None if question == "pairs" else pytest.approx(1))
    assert content["cases"] == [len(study.cases)] * 2
    seconds = np.arange(1, len(study.cases) + 1)
    assert content["seconds"]["1"]["median"] == pytest.approx(np.median(seconds))
    assert SEAL in content and "index.html" in {path.name for path in (tmp_path / "out").iterdir()}


def test_ratings_against_another_implementation(tmp_path, studies):
    study = key.read(studies["rating"])
    files, rng = [], np.random.default_rng(5)
    for reader in (1, 2):
        told = rng.integers(1, 6, len(study.cases))
        lines = [f"{study.study},{reader},{i + 1},{told[i]},900,0" for i in range(len(told))]
        files.append(tmp_path / f"{reader}.csv")
        files[-1].write_text("\n".join([",".join(COLUMNS), *lines]))
    content = scored(studies["rating"], tmp_path / "out", files, "--resamples", "200")
    areas = []
    for each in answers.read_all(files, study):
        is_generated = np.array([case.generated is not None for case in study.cases])
        told = each.choices
        pairs = is_generated.sum() * (~is_generated).sum()
        areas.append(scipy.stats.mannwhitneyu(told[is_generated], told[~is_generated]).statistic / pairs)
    main = content["scores"][0]
    assert [main["readers"][name]["value"] for name in "12"] == pytest.approx(areas)
    assert main["mean"]["value"] == pytest.approx(np.mean(areas))
    assert main["mean"]["low"] < main["mean"]["value"] < main["mean"]["high"]


def test_intervals_of_pairs_are_those_of_a_share(tmp_path, studies):
    """Of one reader, over images alone: about the binomial standard error."""
    study = key.read(studies["pairs"])
    content = scored(studies["pairs"], tmp_path / "out", [answer(tmp_path / "1.csv", study, 1, right=0.6, seed=3)])
    own, n = content["scores"][0]["readers"]["1"], len(study.cases)
    error = np.sqrt(own["value"] * (1 - own["value"]) / (n - 1))
    assert own["standard_error"] == pytest.approx(error, rel=0.1)
    assert any("one reader" in text for text in content["warnings"])


def test_a_reader_adds_to_the_interval(tmp_path, studies):
    """Readers who differ make the mean less sure than the same answers twice do."""
    study = key.read(studies["class"])
    same = [answer(tmp_path / f"same{reader}.csv", study, reader, right=0.75) for reader in (1, 2)]
    unlike = [answer(tmp_path / f"un{reader}.csv", study, reader, right=own) for reader, own in ((1, 0.55), (2, 1.0))]
    errors = [
        scored(studies["class"], tmp_path / f"out{i}", files, "--resamples", "200")["scores"][0]["mean"][
            "standard_error"
        ]
        for i, files in enumerate((same, unlike))
    ]
    assert errors[1] > errors[0]


def test_only_what_all_answered_is_scored(tmp_path, studies):
    study = key.read(studies["rating"])
    files = [answer(tmp_path / f"{reader}.csv", study, reader) for reader in (1, 2)]
    files[1].write_text("\n".join(files[1].read_text().splitlines()[:-4]).replace(",", ";"))
    content = scored(studies["rating"], tmp_path / "out", files, "--resamples", "0")
    assert content["cases"] == [28, 32] and any("left out 4 of 32" in text for text in content["warnings"])


BAD = {
    "another study": (lambda text: text.replace("study-", "study-f"), ExitCode.REFUSED),
    "no head": (lambda text: "\n".join(text.splitlines()[1:]), ExitCode.BAD_INPUT),
    "no lines": (lambda text: text.splitlines()[0], ExitCode.BAD_INPUT),
    "a word for a number": (lambda text: text.replace(",1000,", ",fast,"), ExitCode.DAMAGED),
    "two readers": (lambda text: text + text.splitlines()[-1].replace(",1,", ",2,", 1) + "\n", ExitCode.BAD_INPUT),
    "a trial twice": (lambda text: text + text.splitlines()[-1] + "\n", ExitCode.BAD_INPUT),
    "an answer that there is not": (lambda text: text.replace(",5,", ",6,"), ExitCode.BAD_INPUT),
    "a cell too many": (lambda text: text.replace(",1000,0", ",1000,0,7"), ExitCode.DAMAGED),
    "a cell too few": (lambda text: text.replace(",1000,0", ",1000"), ExitCode.DAMAGED),
    "no text": (lambda text: text + "\x00", ExitCode.DAMAGED),
    "negative time": (lambda text: text.replace(",1000,", ",-1,"), ExitCode.BAD_INPUT),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_answers_are_one_line(tmp_path, studies, capsys, what):
    study, (spoil, code) = key.read(studies["rating"]), BAD[what]
    path = answer(tmp_path / "1.csv", study, 1)
    path.write_text(spoil(path.read_text()))
    assert cli.main(["reader", "score", str(studies["rating"]), str(path), "--out", str(tmp_path / "out")]) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and "; fix: " in lines[0]
    assert not (tmp_path / "out").exists()


def test_two_files_of_one_reader_are_refused(tmp_path, studies):
    study = key.read(studies["rating"])
    files = [answer(tmp_path / name, study, 1) for name in ("a.csv", "b.csv")]
    with pytest.raises(DiffpathError, match="reader 1 answers in"):
        answers.read_all(files, study)


def test_a_damaged_key_is_named(tmp_path, studies):
    study = key.read(studies["rating"])
    content = parse_json(key.path_of(studies["rating"], study.study).read_bytes())
    content["cases"][0]["label"] += 1
    (tmp_path / "key.json").write_text(json.dumps(content))
    with pytest.raises(DiffpathError, match="does not match its digest"):
        key.read(tmp_path / "key.json")
    (tmp_path / "key.json").write_text(json.dumps(sealed({k: v for k, v in content.items() if k != SEAL})))
    assert key.read(tmp_path / "key.json").study == study.study


def test_training_images_are_refused_and_a_held_out_split_is_the_default(tmp_path, dataset, samples, capsys):
    words = ("--images", "4", "--readers", "1")
    assert make(tmp_path / "train", dataset, samples, *words, "--split", "train") == ExitCode.REFUSED
    assert "the model was trained on these images" in capsys.readouterr().err
    assert make(tmp_path / "test", dataset, samples, *words) == 0
    assert key.read(tmp_path / "test").real.split == "test"


def test_what_would_give_images_away_is_refused(tmp_path, real, capsys):
    import cv2

    other = write_folder(tmp_path / "small", grey=50, count=2)
    for path in other.rglob("*.png"):
        cv2.imwrite(str(path), cv2.imread(str(path))[:4, :4])
    assert make(tmp_path / "out", real, other) == ExitCode.BAD_INPUT
    assert "which would tell them apart" in capsys.readouterr().err


def test_another_study_is_not_written_over(tmp_path, real, generated):
    words = ("--images", "4", "--readers", "1")
    assert make(tmp_path / "out", real, generated, *words) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    assert make(tmp_path / "out", real, generated, *words) == 0
    assert make(tmp_path / "out", real, generated, *words, "--seed", "1") == ExitCode.REFUSED
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}


def test_too_few_images_are_said(tmp_path, real, generated, capsys):
    assert make(tmp_path / "out", real, generated, "--images", "50") == ExitCode.BAD_INPUT
    assert "fix: lower --images" in capsys.readouterr().err and not (tmp_path / "out").exists()
