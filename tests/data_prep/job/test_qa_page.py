"""What a job says of quality and duplicates: counts by reason, private tables, the page and what it must not say."""

import json
import re

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from data_prep.fields import duplicates, quality, tiling
from data_prep.qa import pictures
from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset
from tests.data_prep.drawn_tissue import GLASS, INKS, METHYL_BLUE, PONCEAU_FUCHSIN, save, tissue

SIDE = 512
NAMES = ("Smith_John_1.svs", "Doe_Jane_2.svs", "Smith_John_copy.svs", "Roe_Richard_3.svs")
PATIENTS = ("John Smith", "Jane Doe", "Johnny Smith", "Richard Roe")


def draw_slides(folder):
    """Slides of 8 x 8 fields of 64 px: a pen, a bad focus, glass; the third is the first, saved again as JPEG."""
    rng = np.random.default_rng(0)
    images = [tissue(rng, (SIDE, SIDE)) for _ in range(4)]
    images[0][:, :128] = INKS["green"]
    images[1][256:] = cv2.GaussianBlur(images[1], (0, 0), 5)[256:]
    images[2] = cv2.imdecode(cv2.imencode(".jpg", images[0], [cv2.IMWRITE_JPEG_QUALITY, 85])[1], cv2.IMREAD_COLOR)
    images[3][:64] = GLASS
    images[3][64:128, 64:128] = images[3][128:192, 64:128]
    (folder / "slides").mkdir()
    for name, image in zip(NAMES, images, strict=True):
        save(folder / "slides" / name, image)
    (folder / "slides" / "Poe_Edgar_4.svs").write_bytes(b"II*\0" + bytes(500))
    rows = "".join(f"{n},{p}\n" for n, p in zip((*NAMES, "Poe_Edgar_4.svs"), (*PATIENTS, "Edgar Poe"), strict=True))
    (folder / "patients.csv").write_text("slide,patient\n" + rows)
    labels = "".join(f"{name},{'Ill' if i == 2 else 'Well'}\n" for i, name in enumerate((*NAMES, "Poe_Edgar_4.svs")))
    (folder / "labels.csv").write_text("slide,class\n" + labels)
    (folder / "key").write_text("secret")
    return folder


def prepare(folder, out, *more):
    words = ["prep", "--slides", folder / "slides", "--slide_labels", folder / "labels.csv", "--out", out]
    words += ["--patients", folder / "patients.csv", "--key_file", folder / "key", "--fractions", "0.5,0,0.5"]
    words += ["--fov_um", 32, "--patch_px", 64, "--workers", 0, *more]
    return cli.main([str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return draw_slides(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="module")
def out(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("reported") / "out"
    assert prepare(folder, place) == 3
    return place


def test_every_rejected_field_is_counted_by_its_reason(out):
    details = open_dataset(out).details
    # Two columns of ink on each of two slides are no tissue, nor is a row of glass; half a slide is out of focus.
    assert details.outcomes == {
        tiling.KEPT: 48 + 32 + 48 + 56,
        tiling.NO_TISSUE: 16 + 16 + 8,
        quality.BLURRED: 32,
    }
    card = (out / "README.md").read_text()
    assert "- out of focus: 32" in card and "WARNING" in card


def test_scores_are_in_the_private_table(out):
    table = pq.read_table(out / "private" / "patches.parquet").to_pylist()
    assert len(table) == 184
    assert all(row["blur"] <= 0.65 and row["saturation"] >= 0.03 and row["pen_share"] <= 0.1 for row in table)
    assert len({row["blur"] for row in table}) > 100


def test_duplicates_are_reported_where_they_are(out):
    details = open_dataset(out).details.duplicates
    none = dict.fromkeys(duplicates.WHERE, 0)
    first, copy = NAMES[0], NAMES[2]
    rows = pq.read_table(out / "private" / "duplicates.parquet").to_pylist()
    exact = [row for row in rows if row["kind"] == "exact"]
    near = [row for row in rows if row["kind"] == "near"]
    assert [(row["slide_file_first"], row["slide_file_second"]) for row in exact] == [(NAMES[3], NAMES[3])]
    assert {frozenset((row["slide_file_first"], row["slide_file_second"])) for row in near} == {
        frozenset((first, copy))
    }
    assert len(near) == 48 and all(row["index_first"] == row["index_second"] for row in near)
    crossing = {(row["split_first"], row["split_second"]) for row in near}
    where = "across splits" if crossing == {("train", "test")} else "within a split"
    assert details.exact == {**none, "within a slide": 1}
    assert details.near == {**none, where: 48}
    assert details.other_class == 48


def test_dropped_duplicates_leave_the_first_of_each(out, folder, tmp_path, capsys):
    place = tmp_path / "out"
    assert prepare(folder, place, "--duplicates", "drop") == 3
    dataset, whole = open_dataset(place), open_dataset(out)
    assert dataset.count("train") + dataset.count("test") == 184 - 49
    assert dataset.details.outcomes["dropped as duplicates"] == 49
    assert "49 duplicates are left out" in capsys.readouterr().err
    rows = pq.read_table(place / "private" / "patches.parquet").to_pylist()
    assert sum(row["split"] == duplicates.DROPPED for row in rows) == 49
    # Training loses nothing to the test images.
    kept = {(record.slide, record.index) for record in dataset.read("train")}
    every = {(record.slide, record.index) for record in whole.read("train")}
    pairs = pq.read_table(out / "private" / "duplicates.parquet").to_pylist()
    inside = [row for row in pairs if row["split_first"] == row["split_second"] == "train"]
    own = {(row["slide_second"], row["index_second"]) for row in inside}
    assert kept == every - own
    # The data set belongs to another job.
    assert prepare(folder, out, "--duplicates", "drop") == 4


def test_the_page_shows_every_slide_and_its_pictures_load_late(out):
    text = (out / "qa" / "index.html").read_text()
    files = re.findall(r'<img[^>]*src="([^":]+)"', text)
    assert len(files) > 10 and all((out / "qa" / file).is_file() for file in files)
    assert text.count('loading="lazy"') == len(files)
    assert len(re.findall('<section class="slide"', text)) == 4
    for words in ("out of focus", "too little tissue", "WARNING", "1 slide is not", "from the least blurred"):
        assert words in text
    assert len(text) < 300_000


def test_names_and_reasons_are_private(out):
    private = json.loads((out / "private" / "names.js").read_text().removeprefix("window.diffpathNames = ")[:-2])
    assert sorted(private["slides"].values()) == sorted(NAMES)
    assert sorted(private["patients"].values()) == sorted(PATIENTS)
    (reason,) = private["failed"]
    assert "Poe_Edgar_4.svs" in reason and "fix:" in reason
    for name in ("names.js", "duplicates.parquet"):
        assert (out / "private" / name).stat().st_mode & 0o777 == 0o600
    written = [path for path in out.rglob("*") if path.is_file() and "private" not in path.relative_to(out).parts[:1]]
    written = [path for path in written if ".staging" not in path.parts]
    assert len(written) > 15
    for path in written:
        data = path.read_bytes()
        # Three letters would turn up in the bytes of some picture by chance.
        words = (b"Smith", b"Jane", b"Richard", b"Roe_", b"Edgar", b"Poe_")
        assert not [word for word in words if word in data], path


def test_pictures_of_slides_that_are_gone_go_too(tmp_path):
    (tmp_path / pictures.EXAMPLES).mkdir()
    stay = [tmp_path / "a.png", tmp_path / pictures.EXAMPLES / "a-kept.jpg", tmp_path / "index.html"]
    go = [
        tmp_path / "b.png",
        tmp_path / pictures.EXAMPLES / "b-kept.jpg",
        tmp_path / pictures.EXAMPLES / "duplicate-00.jpg",
    ]
    go += [tmp_path / ".a.png.0123.tmp", tmp_path / pictures.EXAMPLES / ".a-kept.jpg.0123.tmp"]
    for path in (*stay, *go):
        path.touch()
    pictures.keep_only(tmp_path, ["a"])
    assert all(path.exists() for path in stay) and not any(path.exists() for path in go)


@pytest.mark.parametrize("words", [("--blur_max", 2), ("--pen_max", "nan"), ("--saturation_min", -1)])
def test_limits_out_of_range_are_refused(folder, tmp_path, capsys, words):
    assert prepare(folder, tmp_path / "out", *words) == 2
    assert f"argument {words[0]}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_slide_without_a_field_is_named_with_its_reasons_and_its_stain_gives_them_back(tmp_path, capsys):
    (tmp_path / "slides").mkdir()
    for name, dyes in (("red", {}), ("blue", {"dyes": (METHYL_BLUE, PONCEAU_FUCHSIN)})):
        save(tmp_path / "slides" / f"{name}.svs", tissue(np.random.default_rng(1), (256, 256), **dyes))
    (tmp_path / "patients.csv").write_text("slide,patient,split\nred,P1,train\nblue,P2,test\n")
    (tmp_path / "labels.csv").write_text("slide,class\nred,Well\nblue,Well\n")
    words = ["prep", "--slides", tmp_path / "slides", "--slide_labels", tmp_path / "labels.csv", "--workers", 0]
    words += ["--patients", tmp_path / "patients.csv", "--fov_um", 32, "--patch_px", 64]
    assert cli.main([str(word) for word in [*words, "--out", tmp_path / "he"]]) == 0
    printed = capsys.readouterr()
    named = [line for line in (printed.out + printed.err).splitlines() if "none of its fields is kept" in line]
    assert named == [f"note: blue.svs: none of its fields is kept ({tiling.NO_TISSUE}: 16)"]
    assert f"one of its fields is kept ({tiling.NO_TISSUE}: 16)" in (tmp_path / "he/qa/index.html").read_text()
    assert cli.main([str(word) for word in [*words, "--out", tmp_path / "other", "--stain", "other"]]) == 0
    dataset = open_dataset(tmp_path / "other")
    assert dataset.count("train") == dataset.count("test") == 16 and dataset.details.job["stain"] == "other"
    assert "stain" not in open_dataset(tmp_path / "he").details.job
