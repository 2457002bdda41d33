"""The wheel holds all that commands need, and they run where nothing of the clone can be seen."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from diffpath_jax.io import packaged
from diffpath_jax.io.errors import DiffpathError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of the sources, without a network."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    names = [*("README.md", "LICENSE", "pyproject.toml", "setup.py"), *("diffpath_jax", "data_prep", "configs", "demo")]
    for name in names:
        subprocess.run(["cp", "-r", str(ROOT / name), str(source)], check=True)
    words = ["-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir"]
    subprocess.run([sys.executable, *words, str(out), str(source)], check=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory, wheel) -> Path:
    """The wheel unpacked into a folder of its own."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(installed: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of the unpacked wheel: ``-P`` keeps the clone out of the search path."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "XLA_FLAGS": ""}
    code = f"import diffpath_jax.cli as c; assert c.__file__.startswith({str(installed)!r}); c.entry_point()"
    command = [sys.executable, "-P", "-c", code, *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_wheel_holds_every_file_that_the_clone_has(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    beside = {"configs": "diffpath_jax/configs", "demo": "diffpath_jax/demo"}
    for folder in ("diffpath_jax", "data_prep", *beside):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                inside = Path(beside.get(folder, folder)) / path.relative_to(ROOT / folder)
                assert inside.as_posix() in names
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)


def test_an_installed_wheel_finds_its_configs_and_names_them(installed, tmp_path):
    shown = run(installed, tmp_path, "train", "--dry_run", "--config", "diffpath:demo_ddpm:debug", "--peak_tflops", "1")
    assert shown.returncode == 0, shown.stderr
    wrong = run(installed, tmp_path, "train", "--dry_run", "--config", "diffpath:nothing")
    assert wrong.returncode == 2
    for path in (ROOT / "configs").glob("*.py"):
        assert (path.stem in wrong.stderr) == (path.stem != "common")


@pytest.mark.full
def test_an_installed_wheel_runs_the_whole_demo(installed, tmp_path):
    """prep, train, sample, eval and report, with the page's templates; the slide is fetched."""
    done = run(installed, tmp_path, "demo", "--debug")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "demo_output" / "report.html").stat().st_size > 10_000


def test_a_file_is_what_a_path_says_and_a_packaged_config_what_the_prefix_says():
    assert packaged.config_path("some/where.py:small") == "some/where.py:small"
    assert packaged.config_path("diffpath:demo_ddpm:debug") == f"{ROOT / 'configs' / 'demo_ddpm.py'}:debug"
    assert packaged.config_path("diffpath:demo_ddpm") == str(ROOT / "configs" / "demo_ddpm.py")
    with pytest.raises(DiffpathError, match="demo_ddpm"):
        packaged.config_path("diffpath:../demo_ddpm")
