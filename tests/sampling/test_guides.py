"""What guides a run: a smaller run, a classifier, a null class; what does not belong to it is refused."""

import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.runs import run as runs
from tests.conftest import TINY_CLASSIFIER, TINY_DENOISER, write_run
from tests.sampling.test_job import drawn, refused, sample_command

SMALLER = {"network": {**TINY_DENOISER["network"], "channels": 8}}


@pytest.mark.full
def test_a_smaller_run_guides_and_a_set_says_so(denoiser_run, tmp_path, dataset):
    """In one interval and beside class guidance; a run that is guided by itself draws what it draws alone."""
    guide = write_run(tmp_path / "guide", dataset, {**TINY_DENOISER, **SMALLER})
    common = ["--sampler", "ddim", "--steps", 2, "--guidance", 0.5]
    runs_of = {
        "alone": [],
        "itself": ["--guide", denoiser_run, "--guide_weight", 2],
        "smaller": ["--guide", f"{guide}@1", "--guide_weight", 2, "--guide_to", 0.9],
    }
    for name, words in runs_of.items():
        assert cli.main(sample_command(denoiser_run, tmp_path / name, *common, *words)) == 0
    images = {name: np.stack(list(drawn(tmp_path / name).values())).astype(int) for name in runs_of}
    assert np.abs(images["itself"] - images["alone"]).max() <= 1
    assert np.abs(images["smaller"] - images["alone"]).max() > 1
    sampling = open_dataset(tmp_path / "smaller").details.sampling
    digest = runs.load_parameters(runs.open_run(guide)).digest
    assert (sampling["guide_digest"], sampling["guide_step"], sampling["guide_weight"]) == (digest, 1, 2.0)
    assert "guide_digest" not in open_dataset(tmp_path / "alone").details.sampling


@pytest.mark.parametrize(
    ("sections", "words", "why"),
    [
        ({"noise": {"schedule": "linear"}}, [], "its noise"),
        ({"diffusion": {"prediction": "eps"}}, [], "its prediction eps"),
        ({"diffusion": {"prediction": "v", "label_dropout": 0.0}}, ["--guidance", 1], "no null class"),
        ({}, ["--patch_px", 18], "stride 4"),
    ],
)
def test_a_guide_that_does_not_belong_is_refused(denoiser_run, tmp_path, dataset, capsys, sections, words, why):
    deeper = {"network": {**TINY_DENOISER["network"], "channels": 8, "channel_mult": (1, 1, 1)}}
    guide = write_run(tmp_path / "guide", dataset, {**TINY_DENOISER, **deeper}, **sections)
    asked = ["--guide", guide, "--guide_weight", 1, *words]
    assert why in refused(capsys, sample_command(denoiser_run, tmp_path / "x", *asked))
    assert not (tmp_path / "x").exists()


def test_a_classifier_that_does_not_belong_is_refused(denoiser_run, tmp_path, dataset, capsys):
    other = write_run(tmp_path / "other", dataset, TINY_CLASSIFIER, noise={"schedule": "linear"})
    guided = ("--classifier_scale", 1, "--classifier")
    words = sample_command(denoiser_run, tmp_path / "x", *guided)
    assert "noise" in refused(capsys, [*words, other])
    assert "not a classifier of noisy images" in refused(capsys, [*words, denoiser_run])
    assert "--classifier_scale" in refused(capsys, sample_command(denoiser_run, tmp_path / "x", "--classifier", other))
    assert "not a diffusion model" in refused(capsys, sample_command(other, tmp_path / "x"))


def test_guidance_needs_a_null_class(tmp_path, dataset, capsys):
    without = {"prediction": "v", "label_dropout": 0.0}
    run = write_run(tmp_path / "run", dataset, TINY_DENOISER, diffusion=without)
    assert "null class" in refused(capsys, sample_command(run, tmp_path / "x", "--guidance", 1))
