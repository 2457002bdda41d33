"""What training says of its images before it begins."""

import numpy as np
import pytest

from diffpath_jax.commands.train import _hints
from diffpath_jax.config import checks
from diffpath_jax.io.errors import DiffpathError
from tests.training.test_loop import CLASSIFIER

NAMES = ("pink", "purple", "blue")


@pytest.mark.parametrize(
    ("counts", "balanced", "said"),
    [
        ((60, 60, 60), True, []),
        ((60, 700, 0), False, ["fewer than 50 training images of blue 0"]),
        ((60, 700, 650), True, ["each image of pink 11.7 times as often as one of purple"]),
        (
            (3, 2, 2),
            True,
            ["7 training images fill no batch of 8", "fewer than 50 training images of pink 3"],
        ),
    ],
)
def test_what_speaks_against_so_few_images_is_said(counts, balanced, said):
    found = list(_hints(np.array(counts), NAMES, 8, balanced=balanced))
    assert len(found) == len(said)
    assert all(words in hint for words, hint in zip(said, found, strict=True))


def test_classes_are_balanced_in_one_way():
    content = CLASSIFIER.as_json()
    content["data"]["balanced"] = True
    with pytest.raises(DiffpathError, match=r"data\.balanced.*choose one"):
        checks.run_config(content, where="test")
    content["classifier"]["balance"] = "none"
    assert checks.run_config(content, where="test").data.balanced
