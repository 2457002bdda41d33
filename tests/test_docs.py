"""What the pages name is there: functions beside their equations, words of errors as they are printed."""

import argparse
import ast
import errno
import os
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


ERRORS = re.findall(r"`(error: .+? in .+?; fix: .+?)`", (ROOT / "docs/TROUBLESHOOTING.md").read_text())
SOURCES = [Path(argparse.__file__), *ROOT.glob("diffpath_jax/**/*.py"), *ROOT.glob("data_prep/**/*.py")]
CONSTANTS = [
    node.value
    for path in SOURCES
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.Constant) and isinstance(node.value, str)
]
PRINTED = "\n".join([*CONSTANTS, *(os.strerror(number).lower() for number in errno.errorcode)]).replace("`", "--")


# Placeholders, options, and what is put together from several words.
SPLIT = re.compile(r"\b[A-Z]{3,}\b|--\w+|'|, ")


def fixed_words(error: str) -> list[str]:
    """The words of an error line between the placeholders, which are in capitals."""
    what, rest = error.removeprefix("error: ").split(" in ", 1)
    why, fix = rest.split(": ", 1)[1].split("; fix: ")[:2]
    parts = (part.strip(" ,:;'[]()") for text in (what, why, fix) for part in SPLIT.split(text))
    return [part for part in parts if re.search(r"\w{3}", part)]


@pytest.mark.parametrize("error", ERRORS)
def test_errors_are_printed_so(error):
    assert [part for part in fixed_words(error) if part not in PRINTED] == []


def test_there_are_errors_to_look_up():
    assert len(ERRORS) > 40
