"""What checks types and shapes while tests run (``--jaxtyping-packages`` in pyproject.toml)."""

import contextlib
import functools
import inspect
import itertools
import sys
from collections.abc import Callable

from beartype import beartype

# A call costs 50 us more where it is checked, and some functions are called a hundred thousand times.
CALLS = 500


def on_first_calls(function: Callable) -> Callable:
    """Returns a function, as jaxtyping derives it from one of ours, with its types checked on its first calls only."""
    calls = itertools.count(1)

    @functools.cache
    def check():
        return beartype(function)

    @functools.wraps(function)
    def counted(*args, **kwargs):
        if next(calls) == CALLS:
            _leave_unchecked(function.__module__, function.__qualname__)
        return check()(*args, **kwargs)

    return counted


def _leave_unchecked(module: str, qualname: str) -> None:
    """Tells jaxtyping by typing's own mark; a function within a function has no name to find it by, and stays."""
    *classes, name = qualname.split(".")
    with contextlib.suppress(AttributeError):
        found = inspect.getattr_static(functools.reduce(getattr, classes, sys.modules[module]), name)
        found = found.fget if isinstance(found, property) else found
        inspect.unwrap(found).__no_type_check__ = True
