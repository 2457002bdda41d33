"""Rows by name, from this package and from others."""

import importlib.metadata
import sys
from dataclasses import dataclass, replace

import pytest

from diffpath_jax.io.registry import Registry


@dataclass(frozen=True)
class Dye:
    name: str
    rgb: tuple[int, int, int]


BLUE, PINK = Dye("blue", (0, 0, 255)), Dye("pink", (255, 100, 180))

MODULE = """
from {home} import DYES, Dye

DYES.register(Dye({name!r}, {rgb}))
"""
HOME = """
from diffpath_jax.io.registry import Registry
from tests.io.test_registry import Dye

DYES = Registry("dye", package="dyes_of_a_package", entry_points="diffpath.dyes_of_a_test")
"""


def test_rows_keep_their_order_and_are_looked_up_by_name():
    dyes = Registry("dye", (PINK, BLUE))
    assert list(dyes) == ["pink", "blue"] and len(dyes) == 2
    assert dyes["blue"] is BLUE and "green" not in dyes and dyes.get("green") is None
    with pytest.raises(KeyError, match="dye 'green' is unknown; known are pink, blue"):
        dyes["green"]


def test_a_name_belongs_to_one_row_and_so_does_whatever_else_is_unique():
    dyes = Registry("dye", (PINK,), unique={"colour": lambda dye: dye.rgb})
    assert dyes.register(Dye(*PINK.__dict__.values())) == PINK
    for other in (replace(PINK, rgb=(1, 2, 3)), replace(PINK, name="rose")):
        with pytest.raises(ValueError, match=r"a dye 'pink' already, and '\w+' has the name or the colour of it"):
            dyes.register(other)
    assert list(dyes.values()) == [PINK]
    dyes.register(BLUE)
    Registry("dye", (PINK,)).register(replace(PINK, name="rose"))


def test_modules_that_register_are_imported_when_rows_are_asked_for(tmp_path, monkeypatch):
    package = tmp_path / "dyes_of_a_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "home.py").write_text(HOME)
    home = "dyes_of_a_package.home"
    (package / "own.py").write_text(MODULE.format(home=home, name="blue", rgb=BLUE.rgb))
    (tmp_path / "dyes_of_another.py").write_text(MODULE.format(home=home, name="pink", rgb=PINK.rgb))
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = importlib.metadata.EntryPoint("pink", "dyes_of_another", "diffpath.dyes_of_a_test")
    groups = {entry.group: [entry]}
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: groups.get(group, []))
    dyes = importlib.import_module(home).DYES
    assert "dyes_of_another" not in sys.modules and "dyes_of_a_package.own" not in sys.modules
    assert list(dyes.values()) == [BLUE, PINK]
