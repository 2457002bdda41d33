"""Prep jobs that are killed or stopped at any moment leave no process behind and go on to the same bytes."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest

from diffpath_jax.data.staging import JOB, STAGING
from tests.data_prep.job.test_scheduling import digest, words, write_slides

# A job whose assembly is short: only the first two overlays are drawn.
FEW_OVERLAYS = """
import contextlib
import signal
from data_prep.job import scheduling, source_tasks
from diffpath_jax import cli
choose = scheduling.choose
@contextlib.contextmanager
def choose_few(**options):
    with choose(**options) as scheduler:
        yield lambda task, items: scheduler(task, items if task.func is source_tasks.prepare else items[:2])
scheduling.choose = choose_few
# A shell that runs the tests in the background has it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
cli.entry_point()
"""


def start(folder, out, *more):
    command = [sys.executable, "-c", FEW_OVERLAYS, *words(folder, out, *more)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)


BEING_WRITTEN = ".*.array_record.*.tmp"


def group_of(process):
    """Every living process of a job's process group."""
    return [p for p in psutil.process_iter() if p.status() != psutil.STATUS_ZOMBIE and os.getpgid(p.pid) == process.pid]


def check_killed_job(folder, place, kills, seed):
    """Kill a job's whole group at random moments until that has struck ``kills`` times; done jobs start elsewhere.

    Returns:
        Kills that struck while part of the slides were staged, and jobs that were finished.
    """
    begin = time.monotonic()
    assert start(folder, place / "whole", "--workers", 2).wait(300) == 0
    seconds = time.monotonic() - begin
    expected = digest(place / "whole")
    rng, struck, partial, finished = random.Random(seed), 0, 0, 0
    while struck < kills or not finished:
        out = place / f"killed-{finished}"
        process = start(folder, out, "--workers", 2)
        try:
            code = process.wait(rng.uniform(0.3, 1.0) * seconds if struck < kills else 300)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait(60)
        if code == -9:
            struck += 1
            partial += bool(list(out.glob(f"{STAGING}/*.array_record")))
            continue
        assert code == 0
        assert digest(out) == expected
        for path in (place / "whole").glob("*.array_record*"):
            assert (out / path.name).read_bytes() == path.read_bytes()
        assert not list(out.rglob("*.tmp"))
        assert not (out / STAGING).exists()
        finished += 1
    return partial, finished


def test_a_killed_job_goes_on(tmp_path):
    check_killed_job(write_slides(tmp_path / "input", 6), tmp_path, kills=1, seed=0)


@pytest.mark.full
def test_two_hundred_kills(tmp_path):
    begin = time.monotonic()
    partial, finished = check_killed_job(write_slides(tmp_path / "input", 40), tmp_path, kills=200, seed=1)
    seconds = time.monotonic() - begin
    print(f"200 kills in {seconds:.0f} s, {partial} with slides staged; {finished} jobs, all as the uninterrupted one")
    assert partial > 50


@pytest.mark.parametrize(
    ("sent", "code", "where"),
    [
        pytest.param(signal.SIGINT, 130, ("--scheduler", "local:2"), id="int-dask"),
        pytest.param(signal.SIGTERM, 143, ("--workers", 2), id="term-processes"),
        pytest.param(signal.SIGINT, 130, ("--workers", 2), id="int-processes", marks=pytest.mark.full),
        pytest.param(signal.SIGTERM, 143, ("--scheduler", "local:2"), id="term-dask", marks=pytest.mark.full),
    ],
)
def test_a_stopped_job_leaves_no_process(tmp_path, sent, code, where):
    mine = write_slides(tmp_path / "input", 2, size=2048)
    process = start(mine, tmp_path / "out", *where)
    wait_until(lambda: list((tmp_path / "out" / STAGING).glob(BEING_WRITTEN)))
    # As a terminal and a batch system do, to all processes of the job.
    os.killpg(process.pid, sent)
    begin = time.monotonic()
    assert process.wait(30) == code
    assert time.monotonic() - begin < 10
    wait_until(lambda: not group_of(process))
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert json.loads((tmp_path / "out" / STAGING / JOB).read_text())


def test_workers_end_with_a_killed_job(tmp_path):
    mine = write_slides(tmp_path / "input", 2, size=2048)
    process = start(mine, tmp_path / "out", "--workers", 2)
    wait_until(lambda: list((tmp_path / "out" / STAGING).glob(BEING_WRITTEN)))
    assert len(group_of(process)) > 2
    process.kill()
    process.wait()
    wait_until(lambda: not group_of(process))


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
