"""CONTRIBUTING's listing of the house is the house, and what its recipes name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
HOUSE, RECIPES = TEXT.split("```")[1], TEXT.split("## Recipes")[1]
FILES = [path for name in ("diffpath_jax", "data_prep", "tests") for path in (ROOT / name).rglob("*.py")]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in FILES}
NAMED = sorted(set(re.findall(r"`([\w./]+)`", RECIPES)))


def test_every_module_stands_in_the_listing():
    modules = {Path(name).stem for name in TEXTS if not name.startswith(("tests/", "diffpath_jax/commands/"))}
    assert {name for name in modules if not name.startswith("__")} - set(re.findall(r"\w+", HOUSE)) == set()


def exists(name: str) -> bool:
    """A file or folder by the end of its path, or words of code: ``module.NAME`` stands in that module."""
    if "/" in name:
        return any(f"/{path}".endswith(f"/{name}") or f"/{name}" in f"/{path}" for path in TEXTS)
    *owner, last = name.removesuffix(".py").split(".")
    if name.endswith(".py"):
        return any(Path(path).name == name for path in TEXTS)
    of_owner = {path: text for path, text in TEXTS.items() if owner and Path(path).stem == owner[-1]}
    return re.search(rf"\b{last}\b", "\n".join((of_owner or TEXTS).values())) is not None


@pytest.mark.parametrize("name", NAMED)
def test_what_recipes_name_is_there(name):
    assert exists(name)
