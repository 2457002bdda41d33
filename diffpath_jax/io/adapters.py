"""Checks of values by their types, each compiled once."""

import functools
from typing import Any

import pydantic

_compiled = functools.cache(pydantic.TypeAdapter)


def adapter(kind: Any) -> pydantic.TypeAdapter:
    """Returns what checks and converts values of a type: making one takes milliseconds, and commands need hundreds.

    Args:
        kind: a type, annotated or not.
    """
    return _compiled(kind)
