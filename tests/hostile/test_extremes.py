"""Numbers at the ends of what options take, with work that is done: whatever it comes to, it is a result or one line.

Generated from the command's own parser, so that a later option is covered too.
"""

import argparse
import contextlib
import random

import pytest

from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.io.errors import ExitCode
from tests.hostile.test_bad_options import parser_of

ENDS = ("0", "1e-9", "1", "0.9999999", "2", "32768", "1e6", "1e9", str(2**31 - 1), str(2**63 - 1))
WORDS = "--slides {slide} --annotations {annotated} --out {out} --workers 0"
# The size of a field, and what goes with an option that says some of it.
SIZE = {"--fov_um": "64", "--patch_px": "16"}
SIZES = {
    "--fov_um": {"--patch_px": "16"},
    "--patch_px": {"--fov_um": "64"},
    "--mpp": {"--patch_px": "16"},
    "--read_px": {"--patch_px": "16", "--at_mpp": "1"},
    "--at_mpp": {"--patch_px": "16", "--read_px": "64"},
}
# How many processes work is no question of what it comes to.
NOT_TRIED = {"--workers"}
# A result, after some minutes.
LONG = {("--stride_um", "1"), ("--stride_um", "0.9999999"), ("--stride_um", "2")}


def taken(action: argparse.Action) -> tuple[str, ...]:
    """Those of the ends that an option takes."""
    values = []
    for text in ENDS if action.type is not None else ():
        with contextlib.suppress(ValueError, argparse.ArgumentTypeError):
            values += [text] if isinstance(action.type(text), int | float) else []
    return tuple(values)


CASES = [
    (action.option_strings[-1], value)
    for action in parser_of("prep")._actions
    if action.option_strings and action.option_strings[-1] not in NOT_TRIED
    for value in taken(action)
    if (action.option_strings[-1], value) not in LONG
]
SAMPLE = {*random.Random(0).sample(CASES, 4), ("--stride_um", "1e-9"), ("--gap_um", "1e9")}


@pytest.mark.parametrize(
    ("option", "value"), [case if case in SAMPLE else pytest.param(*case, marks=pytest.mark.full) for case in CASES]
)
def test_a_result_or_one_line(slide, annotated, tmp_path, capsys, option, value):
    given = {**SIZES.get(option, SIZE), option: value}
    words = WORDS.format(slide=slide, annotated=annotated, out=tmp_path / "out").split()
    code = cli.main(["prep", *words, *(f"{name}={text}" for name, text in given.items())])
    shown = capsys.readouterr().err
    assert code in set(ExitCode) - {ExitCode.BUG} and "Traceback" not in shown
    if code == ExitCode.OK:
        made = open_dataset(tmp_path / "out")
        assert sum(made.count(split) for split in made.splits) > 0
    else:
        assert len([line for line in shown.splitlines() if line.startswith("error: ")]) == 1, shown


def test_every_number_of_prep_is_tried():
    assert {"--fov_um", "--overlap", "--tissue_min", "--max_per_slide", "--block_um", "--folds"} <= dict(CASES).keys()
