"""um/px as a condition: one model of several magnifications, whose images say how many they have."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.io.errors import ExitCode
from diffpath_jax.networks.conditions import SCALE
from tests.conftest import train_words, write_annotations, write_slide
from tests.networks.test_embedders import embedder


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """16 px patches of the same slide at 2 and at 4 um/px."""
    folder = tmp_path_factory.mktemp("scales")
    slide, annotations = write_slide(folder / "one.svs"), write_annotations(folder / "one.geojson")
    words = ["prep", "--slides", str(slide), "--annotations", str(annotations), "--patch_px", "16", "--gap_um", "16"]
    for name, field in (("near", 32), ("far", 64)):
        more = ["--out", str(folder / name), "--fov_um", str(field), "--stride_um", "16"]
        assert cli.main([*words, *more]) == 0
    return folder / "near", folder / "far"


def train(sets, workdir, *words):
    return cli.main([*train_words(workdir, ",".join(map(str, sets))), *words])


@pytest.fixture(scope="module")
def run(sets, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("scaled") / "run"
    assert train(sets, workdir, "--config.network.conditions=('label','mpp')") == 0
    return workdir


def test_two_scales_need_a_network_that_is_told_them(sets, tmp_path, capsys):
    assert train(sets, tmp_path / "run") == ExitCode.BAD_INPUT
    said = capsys.readouterr().err.replace("\n", " ")
    assert "4 um/px, but" in said and "add 'mpp' to network.conditions" in said
    assert not (tmp_path / "run").exists()


def draw(run, out, *words):
    fixed = ["--num_per_class", "2", "--steps", "2", "--sampler", "ddim", "--raw_parameters"]
    assert cli.main(["sample", "--workdir", str(run), "--out", str(out), *fixed, *words]) == 0
    return open_dataset(out)


def test_images_have_the_scale_that_was_asked_for(run, tmp_path, capsys):
    far = draw(run, tmp_path / "far", "--condition", "mpp=4")
    assert "16 px at 4 um/px: field of view 64 um" in capsys.readouterr().err
    assert (far.details.mpp, far.details.fov_um) == (4.0, 64.0)
    assert {(record.mpp, record.fov_um) for record in far.read("train")} == {(4.0, 64.0)}
    # Without a word the scale of the first data set.
    near, asked = draw(run, tmp_path / "near"), draw(run, tmp_path / "asked", "--condition", "mpp=2")
    assert near.details.mpp == 2.0
    pixels = [np.stack([record.image for record in each.read("train")]) for each in (near, asked, far)]
    assert np.array_equal(pixels[0], pixels[1])


def test_images_to_start_from_have_the_scale_that_is_drawn(run, sets, tmp_path, capsys):
    words = ["--start", str(sets[1]), "--start_split", "test", "--start_level", "0.5", "--num_per_class", "1"]
    fixed = ["sample", "--workdir", str(run), "--steps", "2", "--sampler", "ddim", *words]
    assert cli.main([*fixed, "--out", str(tmp_path / "wrong")]) == ExitCode.BAD_INPUT
    assert "its images have 4 um/px, those that are drawn 2" in capsys.readouterr().err.replace("\n", " ")
    assert cli.main([*fixed, "--out", str(tmp_path / "right"), "--condition", "mpp=4"]) == 0


@pytest.mark.parametrize("text", ["0", "-1", "1000", "nan", "many"])
def test_a_scale_that_cannot_be_is_refused(text):
    with pytest.raises(ValueError):
        SCALE.parse(text)


def test_half_as_many_is_the_same_step_everywhere():
    """By the linear part of the embedding; what is not known has a vector of its own."""
    module = embedder(SCALE)
    kernel = module.logarithm.map.kernel
    kernel[...] = kernel[...].at[1:].set(0)
    quarter, half, one, unknown = module(jnp.array([0.25, 0.5, 1.0, jnp.nan]))
    np.testing.assert_allclose(half - quarter, one - half, rtol=1e-5)
    np.testing.assert_array_equal(unknown, module.logarithm.null[...])
