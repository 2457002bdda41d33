"""Configs: a Python file with ``get_config``, command-line overrides, and strict frozen dataclasses out of both.

A config file is a program and is run: use only files that you trust.
"""

import contextlib
import dataclasses
import difflib
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from absl import flags
from ml_collections import ConfigDict, config_flags

from diffpath_jax.io import packaged
from diffpath_jax.io.adapters import adapter
from diffpath_jax.io.errors import DiffpathError

T = TypeVar("T")


def load(
    path: str, overrides: Sequence[str], complete: Callable[[dict[str, Any]], dict[str, Any]] = dict
) -> dict[str, Any]:
    """Read a config file and apply ``--config.a.b=c`` overrides.

    Args:
        path: ``FILE.py`` or ``FILE.py:VARIANT``; ``diffpath:NAME`` or ``diffpath:NAME:VARIANT`` for a config that
            comes with the package.
        overrides: the command-line words that no option claimed; of a key that is given twice the last counts.
        complete: adds the keys that the file leaves at their defaults, so that they can be overridden too.

    Raises:
        DiffpathError: no such file or variant, an unknown key, a value of the wrong type, or a stray word.
    """
    path = packaged.config_path(path)
    file = Path(path.partition(":")[0])
    if not file.is_file():
        raise DiffpathError("config", where=file, why="no such file", fix="check the path given to --config")
    for word in overrides:
        if not word.startswith("--config."):
            raise DiffpathError(
                f"option {word!r}",
                where="the command line",
                why="unknown",
                fix="see --help; config keys are --config.a.b=c",
            )
    # What the packaged configs share is found from anywhere, so that a copy of one of them works.
    with _importable(file.resolve().parent, packaged.folder("configs")):
        written = _parsed(path, [f"--config={path}"], config_flags.DEFINE_config_file)
    completed = ConfigDict(complete(written))
    # Of a key that is given twice the last value counts, as everywhere on a command line; tuples would be joined.
    last = {word.partition("=")[0]: word for word in overrides}
    return _parsed(path, tuple(last.values()), partial(config_flags.DEFINE_config_dict, config=completed))


@contextlib.contextmanager
def _importable(*folders: Path) -> Iterator[None]:
    """A config may import the files beside it, as a program may; afterwards their names are free again."""
    path, modules = list(sys.path), set(sys.modules)
    sys.path[:0] = map(str, folders)
    try:
        yield
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).parent in folders:
                del sys.modules[name]


def _parsed(path: str, words: Sequence[str], define: Callable[..., Any]) -> dict[str, Any]:
    """The config after its flag was defined and ``words`` were applied."""
    argv, values = ["diffpath", *words], flags.FlagValues()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            define("config", flag_values=values, sys_argv=argv)
            values(argv)
        return values.config.to_dict()
    except (Exception, SystemExit) as error:
        text = str(error).strip().splitlines()
        raise DiffpathError(
            "config",
            where=path,
            why=text[0] if text else type(error).__name__,
            fix=f"see the keys in {path.partition(':')[0]} and correct --config or its overrides",
        ) from error


def defaults_of(kind: type) -> dict[str, Any]:
    """Returns the fields of a dataclass that have a default, with it."""
    return {f.name: f.default for f in dataclasses.fields(kind) if f.default is not dataclasses.MISSING}


def convert(kind: type[T], content: Mapping[str, Any], *, where: str) -> T:
    """Make a frozen dataclass of a config section; every key must exist and every value fit its type.

    Raises:
        DiffpathError: naming the first key that does not fit, and the nearest known key.
    """
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            fix = f"write {near[0]!r}" if near else "remove it"
            raise DiffpathError(f"key {key!r}", where=where, why=f"unknown; known are {', '.join(known)}", fix=fix)
    try:
        return adapter(kind).validate_python(dict(content))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        missing = first["type"] == "missing"
        why, fix = ("missing", "add it") if missing else (_reason(first), "change its value")
        raise DiffpathError(f"key {key!r}", where=where, why=why, fix=fix) from None


def _reason(error: Mapping[str, Any]) -> str:
    return f"{error['msg'].lower()}, not {error['input']!r}"


def differing_keys(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the keys in which two nested mappings differ."""
    keys = []
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            keys += differing_keys(old, new, f"{prefix}{key}.")
        elif old != new:
            keys.append(f"{prefix}{key}")
    return keys
