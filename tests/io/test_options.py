"""Types of options: what does not fit is refused with the reason; what fits is a number."""

import argparse

import pytest

from diffpath_jax import ranges
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.options import check_memory, name, ranged


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (ranges.Positive, "1", 1), (ranges.Seed, "0", 0), (ranges.PositiveReal, "1e-3", 1e-3),
        (ranges.Fraction, "1", 1.0), (ranges.Side, "32768", 32768),
    ],
)  # fmt: skip
def test_what_fits(kind, text, value):
    assert ranged(kind)(text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *((ranges.Positive, text) for text in ("nan", "inf", "-inf", "0", "-1", "")),
        *((ranges.PositiveReal, text) for text in ("nan", "inf", "-inf", "0", "-1", "")),
        *((ranges.Positive, text) for text in ("1.5", "1e3", "0x10", "9" * 30)),
        *((ranges.PositiveReal, text) for text in ("1e308", "1,5")),
        (ranges.Share, "1"), (ranges.PositiveFraction, "0"), (ranges.Seed, "-1"), (ranges.Side, "1000000"),
    ],
)  # fmt: skip
def test_what_does_not(kind, text):
    with pytest.raises(argparse.ArgumentTypeError):
        ranged(kind)(text)


@pytest.mark.parametrize("text", ["../../x", "a b", "", "a-b", "CON", "x" * 300])
def test_names_of_data_sets(text):
    with pytest.raises(argparse.ArgumentTypeError):
        name(text)
    assert name("set_1") == "set_1"


def test_more_than_the_machine_has_is_refused_by_its_size():
    check_memory(2**20, what="--batch_size", fix="")
    with pytest.raises(DiffpathError, match=r"it takes 1,048,576 GiB"):
        check_memory(2**50, what="--batch_size", fix="lower it")
