"""Images larger than those of training: windows, what survives a kill, maps of classes, and files that slides are."""

import dataclasses
import json

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import openslide
import pytest

from diffpath_jax import cli
from diffpath_jax.config import sections
from diffpath_jax.data import marking
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.devices import sharding
from diffpath_jax.diffusion.windows import Windows
from diffpath_jax.render import pyramid
from diffpath_jax.runs import run as runs
from diffpath_jax.sampling import draw as draws
from diffpath_jax.sampling import field, stepwise
from diffpath_jax.sampling.draw import Model

DDIM = ["--sampler", "ddim", "--steps", 3]


def sample(run, out, *words, code=0):
    words = ["sample", "--workdir", run, "--out", out, "--num_per_class", "pink=1", *DDIM, *words]
    assert cli.main([str(word) for word in words]) == code
    return open_dataset(out) if code == 0 else None


def image(dataset):
    (record,) = dataset.read("train")
    return record.image


@pytest.mark.parametrize("side", [pytest.param(16, marks=pytest.mark.full), 24])
def test_one_window_is_the_image_drawn_whole_to_the_bit(denoiser_run, tmp_path, side):
    """Of the side of training images, and of another."""
    whole = sample(denoiser_run, tmp_path / "whole", "--patch_px", side, "--batch_size", 1)
    assert sample(denoiser_run, tmp_path / "one", "--patch_px", side, "--window_px", side).digest == whole.digest


@pytest.fixture(scope="module")
def recipe(denoiser_run):
    options = sections.SamplerConfig("dpmpp", 4)
    return draws.Recipe(runs.diffusion_model(runs.open_run(denoiser_run)), options, (40, 40))


def drawn(recipe, draw, labels=(0,)):
    weights = Model(recipe.run, runs.load_parameters(recipe.run)).weights
    numbers = jnp.arange(len(labels))
    images, _ = draw(weights, jax.random.key(0), numbers, {"label": jnp.array(labels, jnp.int32)}, {})
    return np.asarray(images)


def test_a_killed_field_goes_on_from_its_steps(recipe, tmp_path, monkeypatch):
    """Every step is kept; the second run is stopped after two of four."""
    mesh = sharding.make_mesh(jax.devices()[:1])
    covered = dataclasses.replace(recipe, field=field.FieldOptions(16, 8, 4))
    at_once = drawn(covered, draws.make_draw(covered, mesh=mesh))
    monkeypatch.setattr(stepwise, "KEEP_EVERY", -1.0)
    write, calls = stepwise.write_state, []

    def stopped(file, numbers, count, arrays):
        write(file, numbers, count, arrays)
        calls.append(count)
        if calls == [1, 2]:
            raise KeyboardInterrupt

    monkeypatch.setattr(stepwise, "write_state", stopped)
    draw = stepwise.make_stepwise_draw(covered, mesh=mesh, file=tmp_path / "steps.npz")
    with pytest.raises(KeyboardInterrupt):
        drawn(covered, draw)
    resumed = drawn(covered, draw)
    assert calls == [1, 2, 3]
    # A program of one step rounds otherwise than one of all.
    assert np.abs(resumed.astype(int) - at_once).max() <= 1
    whole = drawn(covered, stepwise.make_stepwise_draw(covered, mesh=mesh, file=tmp_path / "other.npz"))
    np.testing.assert_array_equal(resumed, whole)
    (tmp_path / "steps.npz").write_bytes(b"damaged")
    assert stepwise.read_state(tmp_path / "steps.npz", np.arange(1)) is None
    assert stepwise.read_state(tmp_path / "other.npz", np.arange(1) + 1) is None


def test_windows_have_the_class_of_their_place(recipe):
    """With guidance every window has its own class, in one image as in two images of one class each."""
    mesh, windows = sharding.make_mesh(jax.devices()[:1]), Windows((40, 40), 16, 8, 4)
    halves = np.zeros((2, 2), np.uint8)
    halves[:, 1] = 1
    labels = field.classes_of_windows(halves, windows).reshape(4, 4)
    assert labels.tolist() == [[0, 0, 1, 1]] * 4
    found = {}
    for name, class_map in {"own": None, "map": halves, "nothing": np.full((3, 3), 255, np.uint8)}.items():
        covered = dataclasses.replace(recipe, field=field.FieldOptions(16, 8, 4, class_map))
        found[name] = drawn(covered, draws.make_draw(covered, mesh=mesh), labels=(0, 1))
    np.testing.assert_array_equal(found["own"], found["nothing"])
    # Both images have the same map, and differ by their noise alone; their outer columns see one class only.
    assert np.abs(found["map"][0, :, :8].astype(int) - found["own"][0, :, :8]).mean() < 1
    assert np.abs(found["map"][0, :, -8:].astype(int) - found["own"][0, :, -8:]).mean() > 1
    assert np.abs(found["map"][1, :, -8:].astype(int) - found["own"][1, :, -8:]).mean() < 1


def test_a_field_is_a_slide_of_any_size(denoiser_run, tmp_path):
    """OpenSlide opens all levels at the right um/px, and says that it is synthetic."""
    words = ("--window_px", 16, "--window_stride_px", 16, "--steps", 1)
    made = sample(denoiser_run, tmp_path / "set", "--patch_px", 528, *words, "--tiff")
    pixels = image(made)
    with openslide.OpenSlide(tmp_path / "set" / "tiff" / "pink" / "0000000.tiff") as slide:
        assert slide.level_dimensions == ((528, 528), (264, 264))
        for name in ("openslide.mpp-x", "openslide.mpp-y"):
            assert float(slide.properties[name]) == pytest.approx(made.details.mpp, rel=1e-4)
        description = slide.properties["tiff.ImageDescription"]
        assert description.startswith("SYNTHETIC") and marking.SOURCE_TYPE in description
        for level, (width, height) in enumerate(slide.level_dimensions):
            found = np.asarray(slide.read_region((0, 0), level, (width, height)).convert("RGB"))
            expected = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
            assert np.abs(found.astype(int) - expected).max() <= (0 if level == 0 else 2)
    record = json.loads((tmp_path / "set" / "manifest.json").read_text())["details"]["sampling"]
    assert (record["window_px"], record["window_stride_px"], record["class_map"]) == (16, 16, "")


def test_levels_of_odd_sides(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (1501, 701, 3), dtype=np.uint8)
    pyramid.write_pyramid(tmp_path / "odd.tiff", pixels, mpp=0.25, words="noise")
    with openslide.OpenSlide(tmp_path / "odd.tiff") as slide:
        assert slide.level_dimensions == ((701, 1501), (350, 750), (175, 375))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--window_px", 15], "window_px"),
        (["--window_px", 32], "more than the 16"),
        (["--window_px", 16, "--window_stride_px", 17], "leave gaps"),
        (["--window_stride_px", 8], "add --window_px"),
        (["--class_map", "{map}"], "add --window_px"),
        (["--window_px", 16, "--class_map", "{map}"], "the value 7 is no class"),
    ],
)
def test_bad_windows(denoiser_run, tmp_path, capsys, words, why):
    cv2.imwrite(str(tmp_path / "map.png"), np.full((2, 2), 7, np.uint8))
    words = [str(word).format(map=tmp_path / "map.png") for word in words]
    sample(denoiser_run, tmp_path / "x", *words, code=2)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and why in line
    assert not (tmp_path / "x").exists()
