"""The answers at the top of a study follow from its numbers."""

import pytest

from diffpath_jax.study.rows.realness import Realness
from diffpath_jax.study.rows.verdict import real_verdict
from diffpath_jax.study.table import Cell


def share(value: float) -> Cell:
    return Cell(value, percent=True, digits=0)


@pytest.mark.parametrize(
    ("jpeg", "coverage", "floor", "near"),
    [
        (90, 0.6, 0.9, True),
        (90, 0.0, 0.9, False),  # the moments agree, and no image is near a real one
        (None, 0.9, 0.9, False),
        (75, 0.0, 0.0, None),  # not even real images are near each other
        (75, None, None, None),
    ],
)
def test_images_are_real_only_where_distance_and_coverage_agree(jpeg, coverage, floor, near):
    covers = [None if value is None else share(value) for value in (coverage, floor)]
    found = real_verdict(Realness(Cell(12.0, 10.0, 14.0), Cell(10.0), jpeg, *covers))
    assert found.good is near and found.answer.startswith("1.2 x the floor")
    assert ("covers" in found.answer) == (coverage is not None)
    assert "12.00 [10.00, 14.00]; other real images reach 10.00" in found.sentence
    if coverage == 0.6:
        assert "covers 60 %" in found.answer and "near 60 % of the held-out real ones" in found.sentence
        assert "no farther than the same real images as JPEG of quality 90" in found.sentence
