"""What the pages name is there: functions beside their equations."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MATHEMATICS = (ROOT / "docs/MATHEMATICS.md").read_text().split("## ", 1)[1]
PACKAGE = {
    path.relative_to(ROOT / "diffpath_jax").as_posix(): path.read_text() for path in ROOT.glob("diffpath_jax/**/*.py")
}
NAMED = sorted(set(re.findall(r"`([\w.]+)`", MATHEMATICS)))


# Keys of configs stand here, whatever their section.
SECTIONS = [PACKAGE["config/sections.py"], PACKAGE["networks/config.py"]]


@pytest.mark.parametrize("name", NAMED)
def test_what_stands_beside_an_equation_is_there(name):
    """A module, a word of a module, or a key of a config, by the end of its path."""
    *owner, last = name.split(".")
    modules = [path for path in PACKAGE if f"/{path}".endswith(f"/{'/'.join([*owner, last])}.py")]
    place = f"/{'/'.join(owner)}.py" if owner else ".py"
    texts = [text for path, text in PACKAGE.items() if f"/{path}".endswith(place)]
    assert modules or any(re.search(rf"\b{last}\b", text) for text in texts + SECTIONS)
