"""``diffpath membership``: losses against the formula, alarms of an overtrained model and none of others, bad input."""

import csv
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.config import noise
from diffpath_jax.evaluation import denoising_losses
from diffpath_jax.networks.codecs import to_unit
from diffpath_jax.runs import run as runs
from diffpath_jax.sampling.draw import Model
from tests.test_cli import fails


def words(out, *more):
    return [str(word) for word in ("membership", *more, "--out", out, "--cache", out.parent / "cache", "--draws", 1)]


@pytest.fixture(scope="module")
def looked(tmp_path_factory, dataset, denoiser_run, samples, resnet_run):
    out = tmp_path_factory.mktemp("membership") / "out"
    named = ["--workdir", denoiser_run, "--data", dataset, "--generated", samples, "--features", resnet_run]
    assert cli.main(words(out, *named)) == 0
    return out


def test_losses_are_those_of_the_formula_and_do_not_depend_on_the_batch(denoiser_run):
    """One image by hand: its own noise, equation 2 of the forward process, and the run's target, v."""
    run = runs.open_run(denoiser_run)
    trained = runs.load_parameters(run)
    rng = np.random.default_rng(0)
    items = [{"image": rng.integers(0, 256, (16, 16, 3), np.uint8), "label": np.int32(i % 2)} for i in range(3)]
    steps = np.array([100, 600])
    options = {"draws": 2, "seed": 5, "title": "losses"}
    found = denoising_losses.denoising_losses(Model(run, trained), items, steps, **options)
    alone = denoising_losses.denoising_losses(Model(run, trained), items[2:], steps, **options)
    np.testing.assert_allclose(found[2:], alone, rtol=1e-5)
    key = jax.random.fold_in(jax.random.key(5), denoising_losses.image_key(items[2]["image"]))
    alpha_bar = noise.schedule(run.config.noise).alpha_bar
    x_0 = np.asarray(to_unit(jnp.asarray(items[2]["image"])))
    for place, t in enumerate(steps):
        errors = []
        for draw in range(2):
            eps = np.asarray(jax.random.normal(jax.random.fold_in(key, draw), x_0.shape))
            signal, share = np.sqrt(alpha_bar[t]), np.sqrt(1 - alpha_bar[t])
            x_t = jnp.asarray(signal * x_0 + share * eps, jnp.float32)[None]
            conditions = {"label": jnp.zeros(1, jnp.int32)}
            output, _ = run.network.apply(trained.params, trained.model_state, x_t, jnp.full(1, t), conditions)
            errors.append(np.square(np.asarray(output)[0] - (signal * eps - share * x_0)).mean())
        assert found[2, place] == pytest.approx(np.mean(errors), rel=1e-4)


def test_levels_lie_where_their_shares_of_noise_are(denoiser_run):
    levels = denoising_losses.noise_levels(runs.open_run(denoiser_run).config)
    np.testing.assert_allclose(levels.noise, denoising_losses.NOISE_SHARES, atol=2e-3)


def test_record_table_scores_and_page(looked, dataset):
    found = json.loads((looked / "membership.json").read_text())
    assert found["members"] == found["non_members"] and found["units"] == "images"
    assert "patients on both sides: 1" in found["units_reason"]
    names = {"denoising loss", "nearest generated image", "nearest generated image, resnet16"}
    assert set(found["attacks"]) == names
    assert found["outcome"] in found["verdict"] and "non-members are too few" in found["verdict"]
    assert found["config"]["significance"] == 0.01
    (nearer,) = found["nearer"]
    assert nearer["difference"]["value"] == pytest.approx(nearer["to_non_members"] - nearer["to_members"])
    with (looked / "scores.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == sum((found["members"][0], found["non_members"][0]))
    with (looked / "membership.csv").open() as file:
        table = {(line["score"], line["metric"]): line for line in csv.DictReader(file)}
    area = found["attacks"]["denoising loss"]["area"]
    assert float(table["denoising loss", "AUC"]["value"]) == area["value"]
    values = np.array([float(line["denoising loss"]) for line in lines])
    member = np.array([line["side"] == "member" for line in lines])
    assert (values[member][:, None] > values[~member]).mean() == pytest.approx(area["value"])
    text = (looked / "index.html").read_text()
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert found["outcome"] in text and "Denoising loss by noise" in text
