"""Tab in a shell: what argcomplete answers of the real console script."""

import os
import subprocess
import sys

import pytest

PROGRAM = "from diffpath_jax.cli import entry_point; entry_point()"


def completed(line, tmp_path):
    """The words that a shell is offered for a line, which argcomplete writes into a file."""
    pytest.importorskip("argcomplete")
    out = tmp_path / "words"
    told = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"}
    told["_ARGCOMPLETE_STDOUT_FILENAME"] = str(out)
    done = subprocess.run([sys.executable, "-c", PROGRAM], env={**os.environ, **told}, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return [word.strip() for word in out.read_text().split("\n") if word]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("diffpath re", ["reader", "reconstruct", "report"]),
        ("diffpath prep --patch_p", ["--patch_px"]),
        # This command loads JAX.
        pytest.param("diffpath reader make --question p", ["pairs"], marks=pytest.mark.full),
    ],
)
def test_commands_options_and_choices(tmp_path, line, words):
    assert sorted(completed(line, tmp_path)) == words


def test_nothing_runs_without_argcomplete(tmp_path):
    (tmp_path / "argcomplete.py").write_text("raise ImportError")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    told = {"_ARGCOMPLETE": "1", "COMP_LINE": "diffpath ", "COMP_POINT": "9", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env={**os.environ, **told}, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
