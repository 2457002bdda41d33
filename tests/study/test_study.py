"""The whole study at toy size: every row is there, and kills change nothing."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from diffpath_jax.study.rows.catalogue import ROWS
from tests.conftest import ALONE

KILLS = 20


# Patients are hashed with a key of each study's own, and intervals are drawn in the order of hashes.
KEY, DATASETS = "a secret for tests", runpy.run_path("configs/study_demo.py")["get_config"]("debug").datasets


def command(workdir: Path, slide: Path, annotated: Path) -> list[str]:
    (key := workdir.with_suffix(".key")).write_text(KEY)
    words = ["study", "--config", "diffpath:study_demo:debug", "--workdir", str(workdir)]
    sources = [f"--config.slides={slide}", f"--config.annotations={annotated}", "--config.worth.scarce_class=purple"]
    keys = [f"--config.datasets.{name}.prep={each.prep} --key_file {key}" for name, each in DATASETS.items()]
    return [sys.executable, "-m", "diffpath_jax.cli", *words, *sources, *keys]


def environment(cache: Path) -> dict[str, str]:
    return {**ALONE, "JAX_COMPILATION_CACHE_DIR": str(cache)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, slide, annotated):
    out = tmp_path_factory.mktemp("study") / "whole"
    done = subprocess.run(command(out, slide, annotated), env=environment(out), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out


def tables(workdir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((workdir / "tables").iterdir())}


@pytest.mark.full
def test_every_row_is_filled(whole):
    content = json.loads((whole / "study.json").read_text())
    assert content["missing"] == {}
    text = (whole / "study.html").read_text()
    assert all(f'id="{key}"' in text for key in ROWS)
    for key in ("T2", "T4", "T5a", "T5b", "T5c", "T5d", "T5e", "T5f", "T5g", "T5h", "T5i", "P_copies", "P_membership"):
        assert content["tables"][key], key


@pytest.mark.full
def test_kills_at_random_moments_change_nothing(whole, tmp_path, slide, annotated):
    out, moments = tmp_path / "killed", np.random.default_rng(0)
    words = command(out, slide, annotated)
    for _ in range(KILLS):
        process = subprocess.Popen(
            words, env=environment(whole), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(moments.uniform(5, 60))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(words, env=environment(whole), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert tables(out) == tables(whole)
    assert (out / "study.json").read_bytes() == (whole / "study.json").read_bytes()
