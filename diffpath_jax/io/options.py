"""Types of command-line options, numbers in a range and names: what does not fit is refused before work begins."""

import argparse
import os
from collections.abc import Callable
from typing import Any, get_args

import pydantic

from diffpath_jax.io.adapters import adapter
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.names import why_not


def ranged(kind: Any) -> Callable[[str], int | float]:
    """Returns a type for argparse.

    Args:
        kind: one of :mod:`diffpath_jax.ranges`, an annotated ``int`` or ``float``.
    """
    base, check = get_args(kind)[0], adapter(kind)

    def read(text: str) -> int | float:
        try:
            return check.validate_python(base(text))
        except pydantic.ValidationError as error:
            why = error.errors()[0]["msg"].lower()
        except ValueError:
            why = f"not a {'whole ' if base is int else ''}number"
        raise argparse.ArgumentTypeError(f"{text[:40]!r}: {why}")

    return read


def name(text: str) -> str:
    """Returns the name of a data set, which becomes that of its files: a type for argparse."""
    why = why_not(text) or ("" if text.replace("_", "").isalnum() else "letters, digits and _ only")
    if why:
        raise argparse.ArgumentTypeError(f"{text[:40]!a}: {why}")
    return text


def check_memory(size: int, *, what: str, fix: str) -> None:
    """Refuse what this machine cannot hold.

    Args:
        size: bytes that are needed at least.
        what: the option that asks for them.
        fix: what helps.

    Raises:
        DiffpathError: they are more than the machine has.
    """
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > there:
        why = f"it takes {size / 2**30:,.0f} GiB, and this machine has {there / 2**30:,.0f}"
        raise DiffpathError(what, where="the command line", why=why, fix=fix)
