"""Containers and templates of clusters name files, extras and options that exist."""

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from diffpath_jax import cli

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def commands_of(text: str) -> list[list[str]]:
    """Words of every diffpath command in a shell script."""
    joined = text.replace("\\\n", " ")
    found = [re.search(r"\bdiffpath (.+)", line) for line in joined.splitlines() if not line.startswith("#")]
    return [shlex.split(match.group(1)) for match in found if match]


def accepted(words: list[str]) -> bool:
    """Whether the command line takes these words, with numbers where the cluster sets some."""
    arguments, _ = cli.parse([re.sub(r"^\$[({].*[)}]$", "1", word) for word in words])
    return arguments.command == words[0]


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("slurm/*")), ids=lambda path: path.name)
def test_batch_scripts_are_bash_and_their_commands_are_taken(path):
    subprocess.run(["bash", "-n", path], check=True)
    commands = commands_of(path.read_text())
    assert commands and all(accepted(words) for words in commands)


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("kubernetes/*")), ids=lambda path: path.name)
def test_manifests_are_jobs_whose_commands_are_taken(path):
    jobs = [each for each in yaml.safe_load_all(path.read_text()) if each["kind"] == "Job"]
    (job,) = jobs
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert accepted(container["args"])
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_there_is_a_template_for_every_long_command_on_both():
    wanted = {"prep", "train", "sample", "study"}
    assert {path.stem for path in DEPLOY.glob("slurm/*")} == wanted
    assert {path.stem for path in DEPLOY.glob("kubernetes/*")} == wanted


@pytest.mark.parametrize("name", ["Dockerfile", "diffpath.def"])
def test_images_copy_what_is_there_and_install_extras_that_exist(name):
    text = (DEPLOY / name).read_text()
    if name == "Dockerfile":
        copied = [word for line in re.findall(r"^COPY (.+)", text, re.M) for word in line.split()[:-1]]
    else:
        copied = [line.split()[0] for line in re.search(r"%files\n((?: .+\n)+)", text).group(1).splitlines()]
    assert {"pyproject.toml", "data_prep", "diffpath_jax", "configs", "demo"} <= set(copied)
    assert all((ROOT / path).exists() for path in copied)
    (extras,) = re.findall(r'"\.\[([a-z0-9,]+)[^a-z0-9,]', text)
    assert set(extras.split(",")) <= set(EXTRAS)
    assert "cuda12" in text and "cuda12" in EXTRAS


@pytest.mark.full
@pytest.mark.skipif(
    shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode != 0,
    reason="no Docker engine",
)
def test_the_image_is_built_and_runs():
    subprocess.run(["docker", "build", "-f", "deploy/Dockerfile", "-t", "diffpath-test", "."], cwd=ROOT, check=True)
    subprocess.run(["docker", "run", "--rm", "diffpath-test", "doctor", "--for", "prep"], check=True)
