"""The page on samplers says what the rows say."""

from pathlib import Path

import pytest

from diffpath_jax.diffusion.samplers.catalogue import SAMPLERS
from diffpath_jax.diffusion.samplers.ddpm import VARIANCES
from diffpath_jax.diffusion.samplers.spacing import SPACINGS
from diffpath_jax.diffusion.samplers.thresholding import THRESHOLDINGS

LINES = (Path(__file__).parents[3] / "docs" / "SAMPLING.md").read_text().splitlines()


def sampler_line(kind):
    noise = "always" if kind.stochastic else "with `--eta`" if "eta" in kind.options else "never"
    options = ", ".join(f"`--{name}`" for name in kind.options)
    cells = (f"`{kind.name}`", kind.summary, str(kind.order), noise, f"`{kind.spacing.name}`", options, kind.reference)
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_stands_on_it(name):
    assert sampler_line(SAMPLERS[name]) in LINES


@pytest.mark.parametrize("kinds", [SPACINGS, THRESHOLDINGS, VARIANCES], ids=["spacings", "thresholdings", "variances"])
def test_every_name_stands_on_it(kinds):
    for kind in kinds.values():
        assert f"| `{kind.name}` | {kind.summary} |" in LINES


def test_it_names_nothing_else():
    names = {line.split("`")[1] for line in LINES if line.startswith("| `")}
    assert names == {*SAMPLERS, *SPACINGS, *THRESHOLDINGS, *VARIANCES}
