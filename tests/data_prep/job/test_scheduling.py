"""Prep over many slides: the same bytes however the work is spread and interrupted; who fails, fails alone."""

import contextlib
import functools
import os
import shutil
import signal
import time

import cv2
import numpy as np
import psutil
import pytest
import tifffile

from data_prep import cli as prep_cli
from data_prep.job import scheduling
from data_prep.qa import overlays, pictures
from data_prep.slide import slides
from data_prep.sources import digests
from data_prep.sources.slide import SlideSource
from diffpath_jax import cli
from diffpath_jax.data import writer
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.data.staging import STAGING, Staging
from diffpath_jax.io.errors import DiffpathError
from tests.conftest import PINK, write_annotations, write_slide

WAYS = {"here": {"workers": 0}, "processes": {"workers": 2}, "dask": {"workers": 0, "cluster": "local:2"}}


def write_slides(folder, count, size=256):
    """Slides, annotations, patients (two slides each) and a key."""
    for name in ("slides", "regions"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        write_slide(folder / "slides" / f"s{number:02d}.svs", seed=number, size=size)
        write_annotations(folder / "regions" / f"s{number:02d}.geojson", size=size)
    rows = "".join(f"s{number:02d},person{number // 2}\n" for number in range(99))
    (folder / "patients.csv").write_text("slide,patient\n" + rows)
    (folder / "key").write_text("secret")
    return folder


def words(folder, out, *more):
    paths = ["--slides", folder / "slides", "--annotations", folder / "regions", "--out", out]
    tables = ["--patients", folder / "patients.csv", "--key_file", folder / "key", "--fractions", "0.5,0,0.5"]
    return [str(word) for word in ("prep", *paths, *tables, "--fov_um", 16, "--patch_px", 16, *more)]


def digest(out):
    """Digest of all shards of a data set, after a check of its bytes."""
    return open_dataset(out).digest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_slides(tmp_path_factory.mktemp("many") / "input", 6)


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """The data set of an uninterrupted run in one process."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert cli.main(words(folder, out, "--workers", 0)) == 0
    return out


@pytest.fixture
def blank_overlays(monkeypatch):
    """Overlays take most of the time of small slides: in this process they are empty files."""

    def blank(folder, name, *_):
        folder.mkdir(exist_ok=True)
        (folder / pictures.picture_file(name)).touch()

    monkeypatch.setattr(overlays, "draw", blank)


@pytest.mark.parametrize("where", [("--workers", 2), ("--scheduler", "local:2")], ids=["processes", "dask"])
def test_bytes_do_not_depend_on_where_the_work_is_done(folder, whole, tmp_path, where):
    assert cli.main(words(folder, tmp_path / "out", *where)) == 0
    assert digest(tmp_path / "out") == digest(whole)
    found = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*")}
    assert found == {path.relative_to(whole) for path in whole.rglob("*")}
    for name in ("private/patches.parquet", "manifest.json", "README.md"):
        assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes()


def square(number):
    return number * number


def bad_at_two(number):
    if number == 2:
        raise DiffpathError("number", where="the test", why="two", fix="none")
    if number == 3:
        raise KeyError("three")
    return number


def hungry_at_two(number):
    if number == 2:
        np.empty((2**40, 2**10))
    return number


def deadly_at_two(number):
    if number == 2:
        os._exit(7)
    time.sleep(0.05)
    return number


def killed_the_first_time(marks, number):
    if number == 3 and not (marks / "killed").exists():
        (marks / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.fixture(scope="module")
def schedulers():
    """Every way to run tasks, started when it is first asked for; Dask takes seconds."""
    with contextlib.ExitStack() as stack:
        yield functools.cache(lambda way: stack.enter_context(scheduling.choose(**{"cluster": None, **WAYS[way]})))


def outcomes(scheduler, task, items):
    return sorted(scheduler(task, items), key=lambda outcome: outcome.index)


@pytest.mark.parametrize("way", WAYS)
def test_an_error_stays_with_its_item(schedulers, way):
    found = outcomes(schedulers(way), bad_at_two, range(6))
    assert [outcome.index for outcome in found] == list(range(6))
    assert [outcome.result for outcome in found] == [0, 1, None, None, 4, 5]
    assert str(found[2].error) == "number in the test: two; fix: none"
    assert isinstance(found[3].error, scheduling.UnexpectedError)
    assert "KeyError: 'three'" in str(found[3].error)


@pytest.mark.parametrize("way", WAYS)
def test_want_of_memory_stays_with_its_item(schedulers, way):
    found = outcomes(schedulers(way), hungry_at_two, range(4))
    assert [outcome.result for outcome in found] == [0, 1, None, 3]
    assert isinstance(found[2].error, MemoryError) and "allocate" in str(found[2].error)


@pytest.mark.parametrize("way", ["processes", "dask"])
def test_only_the_item_that_kills_its_worker_is_lost(schedulers, way):
    found = outcomes(schedulers(way), deadly_at_two, range(8))
    assert [outcome.result for outcome in found] == [0, 1, None, 3, 4, 5, 6, 7]
    assert [outcome.index for outcome in found if outcome.error] == [2]
    assert isinstance(found[2].error, scheduling.WorkerDied)


@pytest.mark.parametrize("way", ["processes", "dask"])
def test_an_item_whose_worker_was_killed_by_chance_is_done(schedulers, way, tmp_path):
    found = outcomes(schedulers(way), functools.partial(killed_the_first_time, tmp_path), range(6))
    assert (tmp_path / "killed").exists()
    assert [outcome.result for outcome in found] == list(range(6))


def test_a_pool_outlives_its_dead_workers_and_leaves_no_process():
    with scheduling.choose(workers=2, cluster=None) as scheduler:
        assert sum(outcome.error is not None for outcome in scheduler(deadly_at_two, range(5))) == 1
        assert sorted(outcome.result for outcome in scheduler(square, range(5))) == [0, 1, 4, 9, 16]
    assert not [child for child in psutil.Process().children() if "_serve" in " ".join(child.cmdline())]


def deadly_slide(task, item):
    if isinstance(item, SlideSource) and item.slide.name == "s02.svs":
        os._exit(9)
    return task(item)


@pytest.mark.parametrize("way", ["processes", pytest.param("dask", marks=pytest.mark.full)])
def test_a_slide_that_kills_its_worker_fails_alone(folder, whole, tmp_path, monkeypatch, capsys, schedulers, way):
    out, scheduler = tmp_path / "out", schedulers(way)

    def deadly(task, items):
        return scheduler(functools.partial(deadly_slide, task), items)

    with monkeypatch.context() as patch:
        patch.setattr(prep_cli, "_scheduler", lambda *_: contextlib.nullcontext(deadly))
        assert cli.main(words(folder, out)) == 3
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(lines) == 1 and "s02.svs" in lines[0] and "dies" in lines[0]
    assert len(open_dataset(out).details.job["sources"]) == 5
    # With a good worker the same command does the slide that is missing, and no other.
    stamps = {path: path.stat().st_mtime_ns for path in (out / STAGING).glob("*.array_record")}
    assert len(stamps) == 5
    assert cli.main(words(folder, out, "--workers", 0)) == 0
    assert digest(out) == digest(whole)
    assert not (out / STAGING).exists()


def hungry_slide(task, item):
    if isinstance(item, SlideSource) and item.slide.name == "s02.svs":
        raise MemoryError("Unable to allocate 3 TiB")
    return task(item)


def test_a_slide_for_which_memory_is_too_small_fails_alone(folder, tmp_path, monkeypatch, capsys, blank_overlays):
    def hungry(task, items):
        return scheduling._in_this_process(functools.partial(hungry_slide, task), items)

    monkeypatch.setattr(prep_cli, "_scheduler", lambda *_: contextlib.nullcontext(hungry))
    assert cli.main(words(folder, tmp_path / "out")) == 3
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "s02.svs: there is not enough memory for it (Unable to allocate 3 TiB)" in line


def test_a_bad_slide_is_tried_again_until_it_is_good(folder, whole, tmp_path, capsys, blank_overlays):
    mine = shutil.copytree(folder, tmp_path / "input")
    (mine / "slides" / "s04.svs").write_bytes((folder / "slides" / "s04.svs").read_bytes()[:5000])
    out, stamps = tmp_path / "out", []
    for workers in (0, 2):
        assert cli.main(words(mine, out, "--workers", workers)) == 3
        shown = capsys.readouterr().err
        assert shown.count("error:") == 1 and "s04.svs" in shown
        # Nothing new: the second run leaves the shards alone.
        stamps.append({path: path.stat().st_mtime_ns for path in out.glob("*.array_record*")})
    assert stamps[0] == stamps[1]
    assert len(open_dataset(out).details.job["sources"]) == 5
    shutil.copy(folder / "slides" / "s04.svs", mine / "slides")
    assert cli.main(words(mine, out, "--workers", 0)) == 0
    assert digest(out) == digest(whole)


def test_a_rerun_of_an_unfinished_job_does_what_changed(folder, tmp_path, monkeypatch, blank_overlays):
    mine = shutil.copytree(folder, tmp_path / "input")
    out = tmp_path / "out"
    monkeypatch.setattr(writer, "_write_tfds_metadata", interrupted)
    assert cli.main(words(mine, out, "--workers", 0)) == 130
    staged = {path.name for path in (out / STAGING).glob("*.array_record")}
    hashed: list[str] = []
    monkeypatch.setattr(digests, "sha256_file", lambda path: hashed.append(path.name) or real_digest(path))
    # One slide changes without a change of size or time, one annotation changes, two slides come, one goes.
    changed = mine / "slides" / "s01.svs"
    times = changed.stat()
    data = bytearray(changed.read_bytes())
    data[-1000:] = bytes(1000)
    changed.write_bytes(data)
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    write_annotations(mine / "regions" / "s02.geojson", size=200)
    (mine / "slides" / "s00.svs").unlink()
    for number in (6, 7):
        write_slide(mine / "slides" / f"s{number:02d}.svs", seed=number, size=256)
        write_annotations(mine / "regions" / f"s{number:02d}.geojson", size=256)
    assert cli.main(words(mine, out, "--workers", 0)) == 130
    assert [name for name in hashed if name.endswith(".svs")] == ["s01.svs", "s06.svs", "s07.svs"]
    assert len({path.name for path in (out / STAGING).glob("*.array_record")} - staged) == 4
    monkeypatch.setattr(writer, "_write_tfds_metadata", write_metadata)
    assert cli.main(words(mine, out, "--workers", 0)) == 0
    assert cli.main(words(mine, tmp_path / "fresh", "--workers", 0)) == 0
    assert digest(out) == digest(tmp_path / "fresh")
    assert len(list((out / "qa").glob("*.png"))) == 7


real_digest, write_metadata = digests.sha256_file, writer._write_tfds_metadata


def interrupted(*args, **options):
    raise KeyboardInterrupt


def test_a_finished_data_set_of_other_slides_is_refused(whole, folder, tmp_path, capsys):
    out = shutil.copytree(whole, tmp_path / "out")
    mine = shutil.copytree(folder, tmp_path / "input")
    assert cli.main(words(mine, out)) == 0
    write_annotations(mine / "regions" / "s02.geojson", size=200)
    assert cli.main(words(mine, out)) == 4
    assert "a job with another sources" in capsys.readouterr().err
    assert cli.main(words(folder, out, "--roi_min", 0.9)) == 4
    assert "a job with another fields" in capsys.readouterr().err
    assert digest(out) == digest(whole)


def buggy_slide(task, item):
    if isinstance(item, SlideSource) and item.slide.name == "s01.svs":
        raise ZeroDivisionError
    return task(item)


def test_a_bug_is_not_swallowed_and_the_other_slides_are_staged(folder, tmp_path, monkeypatch, schedulers):
    def buggy(task, items):
        return schedulers("processes")(functools.partial(buggy_slide, task), items)

    monkeypatch.setattr(prep_cli, "_scheduler", lambda *_: contextlib.nullcontext(buggy))
    with pytest.raises(ExceptionGroup) as caught:
        cli.main(words(folder, tmp_path / "out"))
    (bug,) = caught.value.exceptions
    assert "ZeroDivisionError" in str(bug) and "s01.svs" in bug.__notes__[0]
    assert len(list((tmp_path / "out" / STAGING).glob("*.array_record"))) == 5


def test_slides_out_of_reach_cost_no_staged_work(folder, whole, tmp_path, monkeypatch, capsys, blank_overlays):
    mine, out = shutil.copytree(folder, tmp_path / "input"), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(writer, "_write_tfds_metadata", interrupted)
        assert cli.main(words(mine, out, "--workers", 0)) == 130
    for slide in (mine / "slides").iterdir():
        slide.write_bytes(b"")
    assert cli.main(words(mine, out, "--workers", 0)) == 2
    shutil.copytree(folder, mine, dirs_exist_ok=True)
    monkeypatch.setattr(SlideSource, "read", interrupted)
    assert cli.main(words(mine, out, "--workers", 0)) == 0
    assert digest(out) == digest(whole)


def test_copies_of_a_slide_fail(folder, tmp_path, capsys, blank_overlays):
    mine = shutil.copytree(folder, tmp_path / "input")
    shutil.copy(mine / "slides" / "s01.svs", mine / "slides" / "s05.svs")
    assert cli.main(words(mine, tmp_path / "out", "--workers", 0)) == 3
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "s05.svs: it has the same bytes as s01.svs" in line


def test_workers_that_do_not_see_the_output_say_so_once(folder, tmp_path, monkeypatch, capsys):
    begun = Staging.begun
    monkeypatch.setattr(Staging, "begun", lambda out, where: begun(tmp_path / "elsewhere", where=where))
    assert cli.main(words(folder, tmp_path / "out", "--workers", 0)) == 4
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(lines) == 1 and "file system that all workers share" in lines[0]


@pytest.mark.parametrize(
    ("address", "why"), [("local:x", "not a number of workers"), ("nonsense", "no scheduler answers")]
)
def test_a_cluster_that_is_none(folder, tmp_path, capsys, address, why):
    assert cli.main(words(folder, tmp_path / "out", "--scheduler", address)) == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_whole_level_is_read_in_squares(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    image = (np.array(PINK) + rng.normal(0, 30, (1000, 1700, 3))).clip(0, 255).astype(np.uint8)
    image[:, 800:] = 60
    description = "Aperio Image Library v0\r\n1700x1000 (256x256)|AppMag = 20|MPP = 0.5"
    options = {"tile": (256, 256), "photometric": "rgb", "description": description, "metadata": None}
    tifffile.imwrite(tmp_path / "wide.svs", image, **options)
    slide = slides.open_slide(tmp_path / "wide.svs")
    whole = slides.read_thumbnail(slide, max_px=100)
    monkeypatch.setattr(slides, "MAX_SQUARE_PX", 256)
    pieces = slides.read_thumbnail(slide, max_px=100)
    assert pieces.shape == whole.shape == (59, 100, 3)
    assert np.abs(pieces.astype(int) - whole).max() <= 3
    np.testing.assert_array_equal(whole, cv2.resize(image, (100, 59), interpolation=cv2.INTER_AREA))
