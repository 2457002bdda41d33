"""What the operating system refuses reaches the user as one line, through whatever library it comes."""

import errno
import os

import jax
import jax.numpy as jnp
import pytest

from diffpath_jax import cli
from diffpath_jax.io import files
from diffpath_jax.io.errors import DiffpathError, ExitCode, from_system


def raised_from(error, cause):
    error.__cause__ = cause
    return error


NO_ROOM = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (NO_ROOM, "make room"),
        (OSError(errno.EFBIG, "File too large", "big"), "make room"),
        (PermissionError(errno.EACCES, "Permission denied", b"b\xff"), "permissions"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit"),
        (ValueError("Error writing: [errno 28] No space left on device [/x]"), "make room"),
        (raised_from(RuntimeError("it failed"), NO_ROOM), "make room"),
        (ExceptionGroup("several", [NO_ROOM, NO_ROOM]), "make room"),
        (MemoryError("9 TiB"), "memory"),
    ],
)
def test_one_line_with_what_helps(error, fix):
    line = from_system(error)
    assert line.code == ExitCode.SYSTEM
    assert fix in line.fix


def test_a_path_that_is_none_is_bad_input():
    line = from_system(OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300))
    assert line.code == ExitCode.BAD_INPUT and "shorter" in line.fix


@pytest.mark.parametrize("error", [KeyError("x"), ExceptionGroup("several", [NO_ROOM, KeyError("x")]), OSError("why")])
def test_a_bug_is_no_refusal(error):
    assert from_system(error) is None


def test_a_bug_keeps_its_traceback(monkeypatch):
    def broken(argv):
        raise KeyError("a bug")

    monkeypatch.setattr(cli, "_dispatch", broken)
    with pytest.raises(KeyError):
        cli.main(["doctor"])


def test_a_refusal_inside_a_file_names_it_and_leaves_nothing(tmp_path):
    with pytest.raises(OSError) as caught, files.replace_file(tmp_path / "x") as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words", [[], ["nonsense"], ["sample"], ["sample", "--steps", "many"], ["doctor", "--odd"], ["\udcff"]]
)
def test_bad_options_are_one_line_too(capsys, words):
    assert cli.main(words) == ExitCode.BAD_INPUT
    shown = capsys.readouterr().err
    assert shown.startswith("error: option in the command line: ") and shown.count("\n") == 1 and "; fix: " in shown


def test_a_device_without_room_is_one_line():
    with pytest.raises(jax.errors.JaxRuntimeError) as caught:
        jnp.zeros(2**44, jnp.float32).block_until_ready()
    line = from_system(caught.value)
    assert line is not None and line.code == ExitCode.SYSTEM
    assert str(line).startswith("memory in a device: out of memory") and "optim.accumulate" in str(line)


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.EMFILE, ExitCode.SYSTEM), (errno.ENFILE, ExitCode.SYSTEM), (errno.ENOENT, ExitCode.BAD_INPUT)],
)
def test_a_file_that_the_machine_refuses_to_open_is_no_bad_file(number, code):
    """Readers of all formats say of a file that it cannot be read; too many open files are not its fault."""
    error = DiffpathError("hash key", where="key", why="cannot be read", fix="check --key_file")
    error.__cause__ = OSError(number, os.strerror(number))
    said = from_system(error)
    assert said.code == code and said.what == "hash key" and said.why == "cannot be read"
    assert ("ulimit" in said.fix) == (code == ExitCode.SYSTEM)
