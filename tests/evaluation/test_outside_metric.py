"""A metric that is registered from outside the package shows everywhere that metrics do."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.metrics import bootstrap
from diffpath_jax.metrics.metric import Metric
from diffpath_jax.metrics.table import METRICS
from tests.conftest import register
from tests.evaluation.test_eval import content, eval_words


@pytest.fixture
def brightness(monkeypatch):
    """A metric that the package does not have, registered as a user would."""

    def difference(comparison):
        x, y = (
            bootstrap.weighted_mean(np.asarray(features, np.float64).mean(axis=1), groups)
            for features, groups in (
                (comparison.x, comparison.x_groups),
                (comparison.y, comparison.y_groups),
            )
        )
        return lambda x_weights, y_weights: abs(x(x_weights) - y(y_weights))

    metric = Metric("BD-{features}", "difference of the mean brightness", difference, digits=5, lower=0.0)
    return register(monkeypatch, METRICS, metric)


def test_a_metric_from_outside_shows_everywhere(brightness, tmp_path, dataset, samples, resnet_run, capsys):
    words = ["--real", dataset, "--generated", samples, "--features", resnet_run, "--audit", "none"]
    assert cli.main(eval_words(tmp_path / "out", *words)) == 0
    for group in ("overall", "pink", "purple"):
        number = content(tmp_path / "out")["distances"][0]["rows"]["generated"][group]["metrics"]["BD-resnet16"]
        assert 0 <= number["low"] <= number["value"] <= number["high"]
        with (tmp_path / "out" / "per_class.csv").open() as file:
            keys = {"set": "generated", "class": group, "metric": "BD-resnet16"}
            (line,) = (line for line in csv.DictReader(file) if keys.items() <= line.items())
        assert [float(line[name]) for name in ("value", "low", "high")] == [
            number[name] for name in ("value", "low", "high")
        ]
        page = (tmp_path / "out" / "index.html").read_text()
        shown = f'{number["value"]:.5f} <span class="soft">[{number["low"]:.5f}, {number["high"]:.5f}]</span>'
        assert shown in page and brightness.title in page
    console = " ".join(capsys.readouterr().err.split())
    assert f"BD-resnet16 {number['value']:.4g} [{number['low']:.4g}, {number['high']:.4g}]" in console
    with pytest.raises(SystemExit):
        cli.main(["eval", "--help"])
    assert brightness.title in " ".join(capsys.readouterr().out.split())


def test_a_metric_is_registered_once(brightness):
    with pytest.raises(ValueError, match="there is a metric 'BD-"):
        METRICS.register(replace(brightness, digits=3))
