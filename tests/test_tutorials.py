"""The tutorials run from beginning to end, as a reader runs them."""

import json
import os
import re
import subprocess
from pathlib import Path

import matplotlib
import pytest

TUTORIALS = sorted((Path(__file__).parents[1] / "docs" / "tutorials").glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[str]:
    notebook = json.loads(path.read_text())
    assert notebook["nbformat"] == 4
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def shell(command: str, names: dict) -> None:
    """Runs a line that begins with an exclamation mark, with values of variables in it as Jupyter puts them."""
    words = re.sub(r"\{([^{}]+)\}", lambda match: str(eval(match.group(1), names)), command)
    subprocess.run(words, shell=True, check=True, env={**os.environ, "XLA_FLAGS": ""})


def run(code: str, names: dict) -> None:
    names["_shell"] = shell
    code = re.sub(r"^( *)!(.+)$", lambda match: f"{match[1]}_shell({match[2]!r}, globals())", code, flags=re.M)
    exec(compile(code, "cell", "exec"), names)


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_notebooks_are_stored_without_output_and_lead_to_what_is_there(path):
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code and not any(cell["outputs"] or cell["execution_count"] for cell in code)
    for link in re.findall(r"\]\(([^)#]+)", "\n".join(cells(path, "markdown"))):
        assert (path.parent / link).exists(), link


@pytest.mark.full
def test_tutorials_run_in_order(tmp_path, monkeypatch):
    assert len(TUTORIALS) == 3
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEPS", "60")
    matplotlib.use("Agg")
    for path in TUTORIALS:
        names: dict = {}
        for code in cells(path, "code"):
            run(code, names)
    assert (tmp_path / "tutorial" / "compare" / "comparison.json").exists()
    assert (tmp_path / "tutorial" / "dataset" / "qa" / "index.html").exists()
