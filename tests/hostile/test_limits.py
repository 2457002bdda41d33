"""A full disk, a place that may not be written, and few file handles: one line, nothing half-written, then the same
results once there is room."""

import contextlib
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset, read_shard
from diffpath_jax.io.errors import DiffpathError, ExitCode, from_system
from diffpath_jax.io.files import sha256_file
from diffpath_jax.runs import run as runs
from tests.conftest import ALONE


@contextlib.contextmanager
def limited(kind: int, most: int) -> Iterator[None]:
    """Under a limit of this process; writing beyond that of a file's size is an error, as on a full disk."""
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


WORDS = {
    "prep": "--slides {slide} --annotations {annotated} --key_file {key} --workers 0 --fov_um 32 --patch_px 16 "
    "--stride_um 32 --gap_um 16 --out {out}",
    "sample": "--workdir {denoiser_run} --num_per_class 2 --sampler ddim --steps 2 --out {out}",
    "train": "--config configs/demo_ddpm.py:debug --config.data.train={dataset} --workdir {out}",
    "encode": "--data {dataset} --first_stage {autoencoder_run} --out {out}",
    "reconstruct": "--data {dataset} --first_stage {autoencoder_run} --out {out}",
    "transform": "--data {dataset} --jpeg 50 --out {out}",
    "eval": "--real {dataset} --generated {samples} --features {resnet_run} --resamples 0 --cache {cache} --out {out}",
    "membership": "--workdir {denoiser_run} --data {dataset} --images 8 --draws 1 --cache {cache} --out {out}",
    "compare": "--test {dataset} --arm a={resnet_run} --arm b={resnet_run} --resamples 20 --out {out}",
    "probe": "--features {resnet_run} --data {dataset} --cache {cache} --out {out}",
    "export": "--workdir {denoiser_run} --out {out}.safetensors",
    "publish": "{denoiser_run} --license cc-by-4.0 --to {out}",
    "report": "--dataset {dataset} --workdir {trained} --out {out}.html",
    "reader make": "--real {dataset} --generated {samples} --images 4 --readers 1 --out {out}",
}
# These run what stands above, or write nothing but what they were given.
NOT_TRIED = {"demo", "study", "reader score", "encoder export", "convert", "cite", "doctor"}
PLAIN = ("prep", "sample")
COMMANDS = [name if name in PLAIN else pytest.param(name, marks=pytest.mark.full) for name in WORDS]


def test_no_command_is_forgotten():
    assert {name.split()[0] for name in {*WORDS, *NOT_TRIED}} == set(cli.COMMANDS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, dataset):
    workdir = tmp_path_factory.mktemp("trained") / "run"
    assert cli.main(["train", *WORDS["train"].format(dataset=dataset, out=workdir).split()]) == 0
    return workdir


@pytest.fixture
def words(request, tmp_path):
    (tmp_path / "key").write_text("a secret for tests")
    places = {"key": tmp_path / "key", "cache": tmp_path / "cache"}

    def of(command: str, out: Path) -> list[str]:
        fixtures = (
            "trained",
            "slide",
            "annotated",
            "denoiser_run",
            "autoencoder_run",
            "resnet_run",
            "dataset",
            "samples",
        )
        known = {name: request.getfixturevalue(name) for name in fixtures if f"{{{name}}}" in WORDS[command]}
        return [*command.split(), *WORDS[command].format(**known, **places, out=out).split()]

    return of


def one_line(shown: str) -> str:
    assert "Traceback" not in shown
    (line,) = [line for line in shown.splitlines() if line.startswith("error")]
    assert "; fix: " in line
    return line


def identity(out: Path) -> object:
    """What a command made: the digest of a run's parameters, else every file that tells no time."""
    if (out / "checkpoints").exists():
        return runs.load_parameters(runs.open_run(out)).digest
    made = [path for path in (out, *out.rglob("*"), *out.parent.glob(f"{out.name}.*")) if path.is_file()]
    assert made
    return {str(path.relative_to(out.parent)).replace(out.name, "out"): sha256_file(path) for path in made}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("room", [2_000, pytest.param(20_000, marks=pytest.mark.full)])
def test_a_full_disk(capfd, tmp_path, words, command, room):
    whole = words(command, tmp_path / "whole")
    assert cli.main(whole) == 0
    capfd.readouterr()
    again = words(command, tmp_path / "again")
    with limited(resource.RLIMIT_FSIZE, room):
        code = cli.main(again)
    shown = capfd.readouterr().err
    if code:
        assert code in (ExitCode.SYSTEM, ExitCode.PARTIAL), shown
        assert "room" in one_line(shown)
    assert code or room > 2_000
    assert not list(tmp_path.rglob("*.tmp"))
    assert cli.main(again) == 0
    assert identity(tmp_path / "again") == identity(tmp_path / "whole")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_that_cannot_be_written(capfd, words, command):
    """Of the kernel: the superuser cannot write there either."""
    assert cli.main(words(command, Path("/proc/sys/diffpath"))) in (ExitCode.BAD_INPUT, ExitCode.SYSTEM)
    assert "/proc/sys" in one_line(capfd.readouterr().err)


@pytest.mark.full
@pytest.mark.parametrize("command", list(WORDS))
@pytest.mark.parametrize("more", [0, 1, 2, 4, 8])
def test_few_file_handles(capfd, tmp_path, words, command, more):
    assert cli.main(words(command, tmp_path / "whole")) == 0
    capfd.readouterr()
    held = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    with limited(resource.RLIMIT_NOFILE, held + 1 + more):
        code = cli.main(words(command, tmp_path / "again"))
    shown = capfd.readouterr().err
    if code:
        assert code in (ExitCode.SYSTEM, ExitCode.PARTIAL), shown
        assert "open files" in one_line(shown) or "handles" in one_line(shown)
        assert cli.main(words(command, tmp_path / "again")) == 0
    assert identity(tmp_path / "again") == identity(tmp_path / "whole")


def test_a_shard_that_no_handle_is_left_for_is_not_called_damaged(dataset):
    (path, *_) = open_dataset(dataset).paths("train")
    with limited(resource.RLIMIT_NOFILE, 0), pytest.raises(DiffpathError) as caught:
        list(read_shard(path))
    assert from_system(caught.value).code == ExitCode.SYSTEM
    assert len(list(read_shard(path))) > 0


@pytest.mark.full
def test_a_full_disk_is_one_line_of_a_process_too(tmp_path, words):
    """Threads that write a checkpoint have no more to say than the line does."""
    command = [sys.executable, "-m", "diffpath_jax.cli", *words("train", tmp_path / "run")]
    limited = ["bash", "-c", 'ulimit -f 40; exec "$@"', "-", *command]
    done = subprocess.run(limited, env=ALONE, capture_output=True, text=True)
    assert done.returncode == ExitCode.SYSTEM
    assert "room" in one_line(done.stderr) and str(tmp_path / "run") in one_line(done.stderr)
    assert "RuntimeError" not in done.stderr and "never retrieved" not in done.stderr
