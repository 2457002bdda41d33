"""The wheel holds all that commands need, and they run where nothing of the clone can be seen."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from diffpath_jax import cli
from diffpath_jax.io import packaged
from diffpath_jax.io.errors import DiffpathError
from tests.conftest import ALONE

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
    environment = {**ALONE, "PYTHONPATH": str(installed)}
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


# Every command that needs no file from elsewhere, each on what those before it wrote.
SET, MODEL, REAL = "demo/fov_48/dataset", "demo/fov_48/ddpm/model", "demo/fov_48/classifiers/real"
MEASURED = f"--features {REAL} --cache features"
WALK = (
    "doctor",
    "demo --debug --slide {slide} --annotations {annotations} --out demo",
    "prep --slides {slide} --annotations {annotations} --out set --fov_um 32 --patch_px 16",
    "train --config diffpath:demo_ddpm:debug --workdir run --config.data.train=set",
    "train --config diffpath:demo_vqgan:debug --workdir autoencoder --config.data.train=set",
    "encode --data set --first_stage autoencoder --out latents",
    "reconstruct --data set --first_stage autoencoder --out reconstructions",
    "sample --workdir run --out drawn --num_per_class 4 --steps 4",
    "export --workdir run --out run.safetensors",
    f"transform --data {SET} --out fewer --num_per_class 4",
    f"eval --real {SET} --generated demo/fov_48/ddpm/samples/ddpm --out measured {MEASURED}",
    f"membership --workdir {MODEL} --data {SET} --out membership --cache features",
    f"probe --features {REAL} --data {SET} --out probe --cache features",
    f"compare --test {SET} --arm classifier={REAL} --arm probe=probe --out compared --cache features",
    f"reader make --real {SET} --generated demo/fov_48/ddpm/samples/ddpm --images 2 --readers 1 --out readers",
    f"report --dataset {SET} --workdir {MODEL} --samples demo/fov_48/ddpm/samples/ddpm --evals measured --out p.html",
    "publish run --to published --license cc-by-4.0",
    "encoder list",
    "cite demo",
    "study --config diffpath:study_demo:debug --workdir demo --config.slides={slide} --config.annotations={annotations}"
    " --only T2",
)


@pytest.mark.full
def test_an_installed_wheel_walks_through_every_command(installed, tmp_path, slide, annotated):
    """With the pages' templates, where nothing of the clone is to be seen."""
    for words in WALK:
        done = run(installed, tmp_path, *words.format(slide=slide, annotations=annotated).split())
        assert done.returncode == 0, words + done.stdout + done.stderr


def test_the_walk_takes_every_command():
    assert {words.split()[0] for words in WALK} == set(cli.COMMANDS) - {"convert"}


def test_a_file_is_what_a_path_says_and_a_packaged_config_what_the_prefix_says():
    assert packaged.config_path("some/where.py:small") == "some/where.py:small"
    assert packaged.config_path("diffpath:demo_ddpm:debug") == f"{ROOT / 'configs' / 'demo_ddpm.py'}:debug"
    assert packaged.config_path("diffpath:demo_ddpm") == str(ROOT / "configs" / "demo_ddpm.py")
    with pytest.raises(DiffpathError, match="demo_ddpm"):
        packaged.config_path("diffpath:../demo_ddpm")
