"""What a user may name as features, and what distances in them are called."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.evaluation.features import inception
from diffpath_jax.evaluation.features.extractor import ExtractorKind, FeatureExtractor
from diffpath_jax.evaluation.features.inception import Inception
from diffpath_jax.evaluation.features.open import EXTRACTORS, open_extractor
from diffpath_jax.io.errors import DiffpathError
from tests.conftest import register
from tests.evaluation.test_eval import content, eval_words

ENCODER = Path(__file__).parents[2] / "golden" / "encoder.onnx"


def stand_in(published):
    """In the place of the network of FID: the means of the channels."""
    params = {"scale": np.float32(0.1)}

    def apply(params, images):
        return images.mean(axis=(1, 2)) * params["scale"]

    return Inception(apply, params, "1" * 64, published, "clean")


@pytest.fixture
def weights_file(tmp_path):
    path = tmp_path / "inception.safetensors"
    path.touch()
    return path


@pytest.mark.parametrize(("published", "names"), [(True, ("FID", "KID")), (False, ("FD-inception", "KD-inception"))])
def test_only_the_published_network_gives_fid(monkeypatch, tmp_path, weights_file, dataset, samples, published, names):
    monkeypatch.setattr(inception, "load_inception", lambda path, *, resize: stand_in(published))
    words = ["--real", dataset, "--generated", samples, "--features", weights_file, ENCODER, "--audit", "none"]
    assert cli.main(eval_words(tmp_path / "out", *words)) == 0
    first, second = content(tmp_path / "out")["distances"]
    assert {*names, f"{names[0]}-infinity"} <= set(first["rows"]["generated"]["overall"]["metrics"])
    assert (first["features"]["resize"], second["features"]["frechet_name"]) == ("clean", "FD-encoder")
    text = (tmp_path / "out" / "index.html").read_text()
    # The encoder's section says it in any case.
    assert text.count("not FID or KID") == 1 + (not published)
    assert f'<span class="soft">{names[0]}, resize clean</span>' in text


def views(published):
    """Other outputs of the stand-in: colours at four places, and logits of three classes."""

    def spatial(params, images):
        return images[:, ::8, ::8].reshape(len(images), -1) * params["scale"]

    return replace(stand_in(published), views={"spatial": spatial, "logits": stand_in(published).apply})


@pytest.mark.parametrize("published", [True, pytest.param(False, marks=pytest.mark.full)])
def test_what_costs_is_measured_where_it_is_asked_for(monkeypatch, tmp_path, weights_file, dataset, samples, published):
    monkeypatch.setattr(inception, "load_inception", lambda path, *, resize: views(published))
    words = ["--real", dataset, "--generated", samples, "--features", weights_file, "--audit", "none"]
    options = ["--metrics", "sfid", "inception_score", "precision_recall_3"]
    named = ["sFID", "Inception Score"] if published else ["FD-inception-spatial", "IS-inception"]
    named += ["precision (k = 3)", "recall (k = 3)"]
    metrics = []
    for out, extra in (("plain", []), ("more", options)):
        assert cli.main(eval_words(tmp_path / out, *words, *extra)) == 0
        metrics.append(content(tmp_path / out)["distances"][0]["rows"]["generated"]["overall"]["metrics"])
    assert metrics[1].keys() - metrics[0].keys() == set(named)
    assert {name: metrics[1][name] for name in metrics[0]} == metrics[0]
    assert metrics[1][named[1]]["splits"] == 10
    text = (tmp_path / "more" / "index.html").read_text()
    assert all(name in text for name in named)


def test_what_no_extractor_has_is_refused(tmp_path, dataset, samples, capsys):
    words = ["--real", dataset, "--generated", samples, "--features", ENCODER, "--metrics", "sfid"]
    assert cli.main(eval_words(tmp_path / "out", *words)) == 2
    assert "--metrics sfid in the command line: none of --features has" in capsys.readouterr().err


def test_two_extractors_of_one_name_are_told_apart(tmp_path, dataset, samples):
    for folder, mean in (("a", 0.5), ("b", 0.4)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "uni.onnx").write_bytes(ENCODER.read_bytes())
        (tmp_path / folder / "uni.json").write_text(json.dumps({"mean": [mean] * 3}))
    encoders = [tmp_path / folder / "uni.onnx" for folder in "ab"]
    words = ["--real", dataset, "--generated", samples, "--features", *encoders, "--audit", "none"]
    assert cli.main(eval_words(tmp_path / "out", *words)) == 0
    names = {distances["features"]["name"] for distances in content(tmp_path / "out")["distances"]}
    assert len(names) == 2 and all(name.startswith("uni-") for name in names)
    assert {path.stem for path in (tmp_path / "out" / "figures").iterdir()} == {f"FD-{name}" for name in names}


def test_the_resize_reaches_the_network(monkeypatch, weights_file):
    asked = []
    monkeypatch.setattr(inception, "load_inception", lambda path, *, resize: asked.append(resize) or stand_in(True))
    open_extractor(weights_file, resize="tf_bilinear")
    assert asked == ["tf_bilinear"]


def test_bad_resize(weights_file):
    with pytest.raises(DiffpathError, match="'nearest' is unknown; fix: use one of tf_bilinear, clean"):
        open_extractor(weights_file, resize="nearest")


@pytest.mark.parametrize(
    ("name", "why"), [("nowhere", "no such"), ("x.txt", "no kind"), ("x.safetensors", "x.safetensors")]
)
def test_what_is_no_extractor(tmp_path, name, why):
    if "." in name:
        (tmp_path / name).write_text(json.dumps({}))
    with pytest.raises(DiffpathError, match=why):
        open_extractor(tmp_path / name, resize="clean")


@pytest.fixture
def means(monkeypatch):
    """A kind of extractor that the package does not have: the mean of each channel, from a file of weights."""

    def open_means(path, *, resize):
        def extract(images):
            return images.mean(axis=(1, 2), dtype=np.float32) * np.float32(path.read_text())

        return FeatureExtractor("means", "mean of each channel", "2" * 64, resize, extract)

    kind = ExtractorKind("means", "a file *.means", lambda path: path.suffix == ".means", open_means)
    return register(monkeypatch, EXTRACTORS, kind)


def test_a_kind_from_outside(means, tmp_path, dataset, samples, capsys):
    (tmp_path / "x.means").write_text("0.01")
    words = ["--real", dataset, "--generated", samples, "--features", tmp_path / "x.means", "--audit", "none"]
    assert cli.main(eval_words(tmp_path / "out", *words)) == 0
    (distances,) = content(tmp_path / "out")["distances"]
    assert {"FD-means", "KD-means", "FD-means-infinity"} <= set(distances["rows"]["generated"]["overall"]["metrics"])
    with pytest.raises(DiffpathError, match=r"no kind of extractor; fix: name one of: .*a file \*.means"):
        open_extractor(tmp_path / "out" / "metrics.json", resize="clean")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["eval", "--help"])
    assert "a file *.means" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(ValueError, match="there is a feature extractor 'means'"):
        EXTRACTORS.register(replace(means, source="another file"))
