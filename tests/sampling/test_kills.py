"""A sampling job that is killed at random moments goes on, and ends as one that was left alone."""

import random
import subprocess
import sys
import time

import pytest

from diffpath_jax.data.manifest import open_dataset
from tests.conftest import ALONE
from tests.sampling.test_job import sample_command


def start_job(workdir, out, steps):
    words = ["--sampler", "ddpm", "--steps", steps, "--num_per_class", 40, "--batch_size", 4]
    command = [sys.executable, "-m", "diffpath_jax.cli", *sample_command(workdir, out, *words)]
    return subprocess.Popen(command, env=ALONE, stderr=subprocess.DEVNULL)


def end_of(process, seconds):
    """Exit code of a process that is killed after some seconds, unless it was done just before."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(60)


def check_killed_job(workdir, folder, kills, seed, steps=40):
    """Kill a job at random moments until that has struck ``kills`` times; whenever it is done it starts elsewhere.

    Returns:
        Kills that struck while batches were being drawn, and jobs that were finished.
    """
    begin = time.monotonic()
    assert start_job(workdir, folder / "whole", steps).wait(300) == 0
    seconds = time.monotonic() - begin
    expected = open_dataset(folder / "whole").digest
    rng, struck, partial, finished = random.Random(seed), 0, 0, 0
    while struck < kills or not finished:
        out = folder / f"killed-{finished}"
        process = start_job(workdir, out, steps)
        # Once enough kills have struck, the job is left to end.
        code = end_of(process, rng.uniform(0.3, 1.0) * seconds if struck < kills else 300)
        if code == -9:
            struck += 1
            partial += bool(list(out.glob(".staging/*.array_record")))
            continue
        assert code == 0
        found = open_dataset(out)
        assert found.digest == expected
        assert [record.index for record in found.read("train")] == list(range(80))
        finished += 1
    return partial, finished


def test_a_killed_job_goes_on(denoiser_run, tmp_path):
    check_killed_job(denoiser_run, tmp_path, kills=1, seed=0, steps=10)


@pytest.mark.full
def test_a_hundred_kills(denoiser_run, tmp_path):
    partial, finished = check_killed_job(denoiser_run, tmp_path, kills=100, seed=1)
    print(f"100 kills, {partial} with part of the job done; {finished} jobs finished, all as the uninterrupted one")
    assert partial > 20
