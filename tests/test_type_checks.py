"""Tests run with types and shapes checked, and a function is left alone after its first calls."""

import inspect

import numpy as np
import pytest
from jaxtyping import Float, TypeCheckError, jaxtyped

from diffpath_jax.render import image_grid
from tests.type_checks import CALLS, on_first_calls

LONG, SHORT = np.zeros(3), np.zeros(2)


@jaxtyped(typechecker=on_first_calls)
def of_one_length(x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"]) -> int:
    return len(x) + len(y)


class Owner:
    @property
    @jaxtyped(typechecker=on_first_calls)
    def number(self) -> int:
        return "none"


def calls_that_fail(call):
    """Numbers of the calls, from 1, that a check refuses."""
    found = []
    for number in range(1, CALLS + 2):
        try:
            call()
        except TypeCheckError:
            found.append(number)
    return found


def test_the_package_is_checked():
    assert inspect.unwrap(image_grid.tile) is not image_grid.tile


@pytest.mark.parametrize("call", [lambda: of_one_length(LONG, SHORT), lambda: Owner().number])
def test_first_calls_are_checked_and_later_ones_are_not(call):
    assert calls_that_fail(call) == list(range(1, CALLS + 1))
