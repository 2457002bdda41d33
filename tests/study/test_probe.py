"""Linear probes through the command, beside classifiers, and test images of other classes."""

import json

import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.data.mixture import choose, mixture_counts
from diffpath_jax.evaluation import image_sets
from diffpath_jax.evaluation.features.open import open_extractor
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.metrics import logistic
from diffpath_jax.study import arms, probe
from tests.conftest import TINY_RESNET, write_run


@pytest.fixture(scope="module")
def features(tmp_path_factory, dataset):
    return write_run(tmp_path_factory.mktemp("features") / "run", dataset, TINY_RESNET)


def train(features, data, out, *words):
    fixed = ["probe", "--features", features, "--data", data, "--out", out, "--cache", out.parent / "cache"]
    return cli.main([str(word) for word in (*fixed, *words)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, features, dataset, samples):
    out = tmp_path_factory.mktemp("probes")
    assert train(features, dataset, out / "real") == 0
    assert train(features, f"{dataset},{samples}", out / "both", "--mixture", "(1.0, 0.05)") == 0
    return out


def test_a_probe_is_the_regression_of_the_features_of_its_mixture(trained, features, dataset, samples):
    linear, record = probe.read(trained / "both")
    extractor = open_extractor(features, resize="none")
    sets = [open_dataset(path) for path in (dataset, samples)]
    counts = mixture_counts(sets, "train", (1.0, 0.05))
    images = [image_sets.from_dataset(each, "train") for each in sets]
    chosen = choose([each.labels for each in images], counts, seed=0)
    x = np.concatenate([np.concatenate([extractor.extract(b) for b in each.blocks()]) for each in images])[chosen]
    labels = np.concatenate([each.labels for each in images])[chosen]
    assert record.images == len(labels) > len(images[0])
    again = logistic.fit(x, labels, 2, l2=record.penalty)
    assert linear.weight == pytest.approx(again.weight, abs=1e-6)
    assert record.penalty == float(min(record.validation_loss, key=record.validation_loss.get))


def test_probes_are_arms(trained, dataset, tmp_path):
    words = ["compare", "--test", str(dataset), "--out", str(tmp_path / "out"), "--resamples", "5"]
    words += ["--cache", str(tmp_path / "cache")]
    assert cli.main([*words, "--arm", f"real={trained / 'real'}", "--arm", f"both={trained / 'both'}"]) == 0
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [arm["mixture"] for arm in content["arms"]] == [[], [1.0, 0.05]]
    # Pink and purple are told apart by any feature.
    assert content["arms"][0]["scores"]["accuracy"]["value"] > 0.95
    assert not any("not trained like" in warning for warning in content["warnings"])


def test_damage_is_named(trained, dataset, tmp_path, capsys):
    copy = tmp_path / "probe"
    copy.mkdir()
    for name in (probe.RECORD, probe.WEIGHTS):
        data = bytearray((trained / "real" / name).read_bytes())
        if name == probe.WEIGHTS:
            data[-200] ^= 1
        (copy / name).write_bytes(bytes(data))
    words = ["compare", "--test", str(dataset), "--out", str(tmp_path / "out"), "--arm", f"a={copy}"]
    assert cli.main(words) == 5
    assert "probe.npz" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--mixture", "one"], "no amounts"),
        (["--mixture", "1,2"], "2 amounts for 1"),
        (["--seed", "-1"], "--seed: '-1'"),
    ],
)
def test_bad_words_are_one_line(features, dataset, tmp_path, capsys, words, why):
    assert train(features, dataset, tmp_path / "out", *words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert why in line and "; fix: " in line


def test_test_images_of_other_classes(dataset, tmp_path):
    images = image_sets.from_dataset(open_dataset(dataset), "test")
    pink = images.of_class("pink")
    only = arms.with_classes(images, {"pink": "rosa", "purple": None}, where=tmp_path)
    assert only.classes == ("rosa",) and len(only) == len(pink) and not only.labels.any()
    assert np.array_equal(only.fetch([0]), images.fetch([pink[0]]))
    merged = arms.with_classes(images, {"pink": "stain", "purple": "stain"}, where=tmp_path)
    assert merged.classes == ("stain",) and len(merged) == len(images)
    with pytest.raises(DiffpathError, match=r"what \['purple'\] are"):
        arms.with_classes(images, {"pink": "rosa"}, where=tmp_path)
