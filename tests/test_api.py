"""The ten names of the library, and the README's example of them."""

import re
from pathlib import Path

import numpy as np
import pytest

from diffpath_jax import api, cli
from diffpath_jax.io.errors import DiffpathError

README = Path(__file__).parents[1] / "README.md"


def test_there_are_ten_names_and_each_is_there():
    assert len(api.__all__) == 10
    assert all(hasattr(api, name) and getattr(api, name).__doc__ for name in api.__all__)


def test_it_draws_what_the_command_draws(tmp_path, denoiser_run):
    drawn = api.sample(
        api.open_run(denoiser_run), tmp_path / "api", num_per_class={"pink": 3}, seed=4, sampler="ddim", steps=2
    )
    words = ["--workdir", denoiser_run, "--out", tmp_path / "cli", "--num_per_class", "pink=3", "--seed", 4]
    assert cli.main([str(word) for word in ("sample", *words, "--sampler", "ddim", "--steps", 2)]) == 0
    assert drawn.digest == api.open_dataset(tmp_path / "cli").digest
    assert [record.label for record in drawn.read("train")] == [0, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"num_per_class": {"green": 1}}, "unknown class 'green'"),
        ({"num_per_class": 0}, "no image is asked for"),
        ({"num_per_class": {"pink": -1}}, "no image is asked for"),
        ({"num_per_class": 1, "conditions": {"site": 1}}, "the model is not told 'site'"),
        ({"num_per_class": 1, "steps": 0}, "'steps'"),
        ({"num_per_class": 1, "stepz": 3}, "write 'steps'"),
        ({"num_per_class": 1, "sampler": "nothing"}, "ddim"),
        ({"num_per_class": 1, "patch_px": 15}, "patch_px"),
    ],
)
def test_what_does_not_fit_is_said_in_python_s_words(tmp_path, denoiser_run, arguments, said):
    with pytest.raises(DiffpathError) as error:
        api.sample(api.open_run(denoiser_run), tmp_path / "out", **arguments)
    assert said in str(error.value) and "--" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_distances_of_features_are_those_of_closed_forms():
    """Two Gaussians of one spread: the squared distance of their means. A set has no kernel distance from itself."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 4))
    assert api.frechet_distance(x, x + np.array([3, 0, 4, 0])) == pytest.approx(25)
    assert api.kernel_distance(x, x + 9) > api.kernel_distance(x, rng.standard_normal((200, 4))) > -0.1


def test_it_evaluates_as_the_command_does(tmp_path, dataset, samples, resnet_run):
    record = api.evaluate(dataset, samples, features=[resnet_run], resamples=4, cache=tmp_path / "cache")
    features = [api.extract_features(images(path, split), resnet_run) for path, split in
                ((dataset, "test"), (samples, "train"))]  # fmt: skip
    distances = record.distances[0]
    value = distances.rows["generated"]["overall"].metrics[distances.features.frechet_name].value
    assert api.frechet_distance(*features) == pytest.approx(value, rel=1e-4)


def images(path, split):
    return np.stack([record.image for record in api.open_dataset(path).read(split)])


def test_it_reads_fields_as_prep_does(slide, annotated, dataset):
    fields = list(api.read_fields(slide, annotated, fov_um=32, patch_px=16, stride_um=16))
    stored = {record.image.tobytes() for split in ("train", "val", "test") for record in
              api.open_dataset(dataset).read(split)}  # fmt: skip
    assert len(fields) >= len(stored) > 100
    assert {field.image.tobytes() for field in fields} >= stored
    assert {field.label for field in fields} == {"pink", "purple"}
    assert all(field.mpp == 2 and field.roi_share >= 0.75 for field in fields)
    everything = list(api.read_fields(slide, fov_um=64, patch_px=16))
    assert {field.label for field in everything} == {"tissue"}


def test_the_readme_s_example_runs(tmp_path, monkeypatch, dataset, denoiser_run, resnet_run, slide, annotated):
    """With this test's own slide, data set and runs under the names that it uses."""
    (example,) = [code for code in re.findall(r"```python\n(.*?)```", README.read_text(), re.S) if "api" in code]
    places = {"data/colon": dataset, "runs/ddpm": denoiser_run, "runs/resnet": resnet_run}
    places |= {"slides/one.svs": slide, "slides/one.geojson": annotated}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, place in places.items():
        assert name in example
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(place)
    exec(compile(example, "README.md", "exec"), {})
