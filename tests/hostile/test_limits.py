"""A full disk, a place that may not be written, and few file handles: one line, nothing half-written, then the same
results once there is room."""

import contextlib
import json
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset, read_shard
from diffpath_jax.io.errors import DiffpathError, ExitCode, from_system


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
    "encode": "--data {dataset} --first_stage {autoencoder_run} --out {out}",
    "eval": "--real {dataset} --generated {samples} --features {resnet_run} --resamples 0 --cache {cache} --out {out}",
    "export": "--workdir {denoiser_run} --out {out}.safetensors",
}
PLAIN = ("prep", "sample")
COMMANDS = [name if name in PLAIN else pytest.param(name, marks=pytest.mark.full) for name in WORDS]


@pytest.fixture
def words(request, tmp_path):
    (tmp_path / "key").write_text("a secret for tests")
    places = {"key": tmp_path / "key", "cache": tmp_path / "cache"}

    def of(command: str, out: Path) -> list[str]:
        fixtures = ("slide", "annotated", "denoiser_run", "autoencoder_run", "resnet_run", "dataset", "samples")
        known = {name: request.getfixturevalue(name) for name in fixtures if f"{{{name}}}" in WORDS[command]}
        return [command, *WORDS[command].format(**known, **places, out=out).split()]

    return of


def one_line(shown: str) -> str:
    assert "Traceback" not in shown
    (line,) = [line for line in shown.splitlines() if line.startswith("error")]
    assert "; fix: " in line
    return line


def identity(out: Path) -> object:
    """What a command made, by its own digests."""
    if out.with_suffix(".safetensors").exists():
        return out.with_suffix(".safetensors").read_bytes()
    name = next(name for name in ("manifest.json", "metrics.json") if (out / name).exists())
    return json.loads((out / name).read_text())


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
