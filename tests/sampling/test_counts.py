"""How many images of each class `diffpath sample` draws."""

import argparse

import pytest

from diffpath_jax.commands import sample, sample_counts
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.runs.run import open_run


def counts(run, *words):
    parser = argparse.ArgumentParser()
    sample.add_arguments(parser)
    return sample_counts.counts(
        parser.parse_args(["--workdir", "RUN", "--out", "OUT", *map(str, words)]), open_run(run)
    )


def test_as_many_as_a_data_set_has(denoiser_run, dataset):
    there = tuple(open_dataset(dataset).class_counts["train"].values())
    assert counts(denoiser_run, "--counts_of", dataset) == there
    # Rounded up: a mixture of half as many never lacks one.
    assert counts(denoiser_run, "--counts_of", dataset, "--times", 0.5) == tuple(-(-n // 2) for n in there)
    assert counts(denoiser_run, "--counts_of", dataset, "--times", 3, "--less", dataset) == tuple(2 * n for n in there)


def test_counts_that_cannot_be(denoiser_run, dataset):
    with pytest.raises(DiffpathError, match="makes 0 images"):
        counts(denoiser_run, "--counts_of", dataset, "--less", dataset)
    with pytest.raises(DiffpathError, match=r"makes \d+ images"):
        counts(denoiser_run, "--counts_of", dataset, "--times", 1e8)


def test_a_number_is_not_multiplied(denoiser_run):
    with pytest.raises(DiffpathError, match="a number already"):
        counts(denoiser_run, "--num_per_class", 3, "--times", 2)
