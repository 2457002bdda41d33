"""``diffpath membership``: losses against the formula, alarms of an overtrained model and none of others, bad input."""

import csv
import json
import re
import shutil
from dataclasses import replace

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffpath_jax import cli
from diffpath_jax.config import noise
from diffpath_jax.config.tasks import make_task
from diffpath_jax.data import manifest, records
from diffpath_jax.evaluation import denoising_losses
from diffpath_jax.evaluation import membership as looking
from diffpath_jax.evaluation.feature_cache import FeatureStore
from diffpath_jax.evaluation.features.extractor import FeatureExtractor
from diffpath_jax.io.sealed import SEAL
from diffpath_jax.metrics.memorization import membership
from diffpath_jax.metrics.memorization.membership import LEAKS, NO_SIGN, UNKNOWN, MembershipConfig
from diffpath_jax.networks.codecs import to_unit
from diffpath_jax.runs import run as runs
from diffpath_jax.sampling.draw import Model
from diffpath_jax.training.tasks.task import NETWORK
from tests.metrics.memorization import tissue
from tests.test_cli import fails

# 150 images on either side: the interval of an area without a difference ends below 0.6.
CONFIG = MembershipConfig(permutations=500, resamples=20)


def words(out, *more):
    return [str(word) for word in ("membership", *more, "--out", out, "--cache", out.parent / "cache", "--draws", 1)]


@pytest.fixture(scope="module")
def looked(tmp_path_factory, dataset, denoiser_run, samples, resnet_run):
    out = tmp_path_factory.mktemp("membership") / "out"
    named = ["--workdir", denoiser_run, "--data", dataset, "--generated", samples, "--features", resnet_run]
    assert cli.main(words(out, *named)) == 0
    return out


class Items:
    """Images with labels, as a data set's records."""

    def __init__(self, images, labels):
        self._images, self._labels = images, np.asarray(labels, np.int32)

    def __len__(self):
        return len(self._images)

    def __getitem__(self, index):
        return {"image": self._images[index], "label": self._labels[index]}


class IdealDenoiser:
    """The network that training on some images ends in: v of their posterior mean, in closed form.

    A label of 1 makes it a little worse.
    """

    def __init__(self, schedule):
        self._alpha_bar = jnp.asarray(schedule.alpha_bar, jnp.float32)

    def apply(self, params, state, x_t, t, conditions):
        images = params["images"]
        alpha_bar = self._alpha_bar[t][:, None]
        flat, known = x_t.reshape(len(x_t), -1), images.reshape(len(images), -1)
        away = jnp.square(flat[:, None] - jnp.sqrt(alpha_bar)[..., None] * known).sum(axis=-1)
        x_0 = jax.nn.softmax(-away / (2 * (1 - alpha_bar)), axis=1) @ known
        eps = (flat - jnp.sqrt(alpha_bar) * x_0) / jnp.sqrt(1 - alpha_bar)
        v = jnp.sqrt(alpha_bar) * eps - jnp.sqrt(1 - alpha_bar) * x_0 + 0.1 * conditions["label"][:, None]
        return v.reshape(x_t.shape), state


@pytest.fixture
def ideal(denoiser_run, monkeypatch):
    """Makes a model of a run whose network is the ideal one for some images."""
    run = runs.open_run(denoiser_run)
    network = IdealDenoiser(noise.schedule(run.config.noise))
    monkeypatch.setattr(runs.Run, "network", property(lambda self: network))

    def model(images):
        return Model(run, runs.Weights({"images": np.asarray(to_unit(jnp.asarray(images)))}, {}, 0, "", False))

    return model


def test_losses_are_those_of_the_formula(ideal):
    """One image by hand: its own noise, equation 2 of the forward process, and the run's target, v."""
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    model, steps = ideal(images), np.array([100, 600])
    items = Items(images[[2, 0, 2]], [1, 0, 1])
    losses = denoising_losses.denoising_losses(model, items, steps, draws=2, seed=5, title="losses")
    np.testing.assert_allclose(losses[0], losses[2], rtol=1e-5)  # its noise is the image's, wherever it lies
    key = jax.random.fold_in(jax.random.key(5), denoising_losses.image_key(images[2]))
    alpha_bar = noise.schedule(model.run.config.noise).alpha_bar
    x_0 = np.asarray(to_unit(jnp.asarray(images[2:])))
    for place, t in enumerate(steps):
        errors = []
        for draw in range(2):
            eps = np.asarray(jax.random.normal(jax.random.fold_in(key, draw), x_0.shape[1:]))
            signal, share = np.sqrt(alpha_bar[t]), np.sqrt(1 - alpha_bar[t])
            x_t, label = jnp.asarray(signal * x_0 + share * eps, jnp.float32), {"label": jnp.ones(1, jnp.int32)}
            output, _ = model.run.network.apply(model.trained.params, {}, x_t, jnp.full(1, t), label)
            errors.append(np.square(np.asarray(output) - (signal * eps - share * x_0)).mean())
        assert losses[2, place] == pytest.approx(np.mean(errors), rel=1e-4)


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


def smooth_images(rng, count, side=8):
    """Coarse random colours with noise upon them."""
    coarse = np.kron(rng.normal(size=(count, 4, 4, 3)), np.ones((1, side // 4, side // 4, 1)))
    images = 128 + 40 * coarse + 8 * rng.normal(size=(count, side, side, 3))
    return images.clip(0, 255).astype(np.uint8)


def losses_of(model, *sides):
    """Denoising losses at the levels of the command, and these levels."""
    levels = denoising_losses.noise_levels(model.run.config)
    parts = [
        denoising_losses.denoising_losses(
            model, Items(images, np.zeros(len(images))), levels.timesteps, draws=1, seed=0, title="losses"
        )
        for images in sides
    ]
    return np.concatenate(parts), levels


def verdict(model, members, others):
    losses, levels = losses_of(model, members, others)
    images = membership.population(np.full(len(members), ""), np.full(len(others), ""))
    attacks = membership.attacks({"loss": membership.loss_score(losses, levels.noise, CONFIG)}, images, CONFIG)
    return membership.outcome(attacks, CONFIG)


@pytest.mark.parametrize(("trained_on_members", "expected"), [(True, LEAKS), (False, NO_SIGN)])
def test_a_denoiser_that_knows_its_images_leaks_and_one_of_fresh_images_does_not(ideal, trained_on_members, expected):
    rng = np.random.default_rng(1)
    members, others, fresh = (smooth_images(rng, count) for count in (150, 150, 400))
    assert verdict(ideal(members if trained_on_members else fresh), members, others) == expected


@pytest.mark.full
def test_a_model_trained_for_long_on_50_images_leaks_and_one_of_fresh_draws_does_not(denoiser_run):
    run = runs.open_run(denoiser_run)
    task = make_task(run.config, num_classes=len(run.classes))
    optimiser = optax.adam(5e-3)
    rng = np.random.default_rng(2)
    members, others = smooth_images(rng, 50), smooth_images(rng, 150)

    @jax.jit
    def step(params, state, moments, images, key):
        batch = {"image": images, "label": jnp.zeros(len(images), jnp.int32)}
        (_, aux), gradient = jax.value_and_grad(task.losses[NETWORK], has_aux=True)(params, state, batch, key)
        updates, moments = optimiser.update(gradient, moments)
        return optax.apply_updates(params, updates), aux["model_state"], moments

    def trained(batches):
        params, state = jax.jit(task.init)(jax.random.key(0))
        moments = optimiser.init(params)
        for number, images in enumerate(batches):
            key = jax.random.fold_in(jax.random.key(1), number)
            params, state, moments = step(params, state, moments, jnp.asarray(images), key)
        return Model(run, runs.Weights(params[NETWORK], state[NETWORK], 0, "", False))

    assert verdict(trained([members] * 300), members, others) == LEAKS
    assert verdict(trained(smooth_images(rng, 50) for _ in range(300)), members, others) != LEAKS


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--held_out", "train"], "what --members names"),
        (["--held_out", "nowhere"], "no such split"),
        (["--draws", "0"], "--draws: '0'"),
        (["--features", "nowhere"], "no generated images"),
        (["--workdir", "nowhere"], "no such file"),
        (["--generated", "nowhere"], "no such directory"),
    ],
)
def test_bad_input(capsys, tmp_path, dataset, denoiser_run, more, why):
    named = ["--workdir", denoiser_run, "--data", dataset]
    assert re.search(why, fails(capsys, *words(tmp_path / "out", *named), *more))
    assert not (tmp_path / "out").exists()


def test_only_a_diffusion_model_and_only_its_own_data_have_members(capsys, tmp_path, dataset, denoiser_run, resnet_run):
    command = words(tmp_path / "out", "--workdir", resnet_run, "--data", dataset)
    assert "not a diffusion model" in fails(capsys, *command)
    other = tmp_path / "other"
    shutil.copytree(dataset, other)
    content = json.loads((other / "manifest.json").read_text())
    content["splits"]["test"] = content["splits"]["val"]
    schema = records.Schema(tuple(content["image_px"]), tuple(content["classes"]))
    splits = {name: [manifest.Shard(**shard) for shard in shards] for name, shards in content["splits"].items()}
    content["digest"] = manifest.content_digest(schema, splits)
    del content[SEAL]
    (other / "manifest.json").write_text(json.dumps(content))
    command = words(tmp_path / "out", "--workdir", denoiser_run, "--data", other)
    assert "was not trained on it" in fails(capsys, *command)
    assert not (tmp_path / "out").exists()


PATIENTS, FIELDS = 16, 4


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A data set of drawn tissue of many patients, half of them held out."""
    place = tmp_path_factory.mktemp("cohort")
    (place / "images" / "tissue").mkdir(parents=True)
    images, names = tissue.cohort(range(PATIENTS), px=32, stride=32, side=64)
    rows = ["image,patient,split"]
    for number, (image, name) in enumerate(zip(images, names, strict=True)):
        cv2.imwrite(str(place / "images" / "tissue" / f"{number}.png"), image[..., ::-1])
        rows.append(f"tissue/{number}.png,{name},{'train' if number < len(images) // 2 else 'test'}")
    (place / "patients.csv").write_text("\n".join(rows) + "\n")
    words = ["prep", "--images", place / "images", "--patients", place / "patients.csv", "--mpp", 1, "--out"]
    assert cli.main([str(word) for word in (*words, place / "data")]) == 0
    return manifest.open_dataset(place / "data")


def colours(images):
    """Mean colours of a grid of 4 x 4."""
    blocks = images.reshape(len(images), 4, 8, 4, 8, 3).mean(axis=(2, 4), dtype=np.float32)
    return blocks.reshape(len(images), -1)


@pytest.mark.parametrize("copies", [True, False])
def test_a_released_set_of_copies_leaks_by_patient_and_one_of_strangers_does_not(ideal, cohort, tmp_path, copies):
    """The model itself knows none of them; what is released are its members, or other patients."""
    strangers, _ = tissue.cohort(range(100, 108), px=32, stride=32, side=64)
    model = ideal(strangers)
    model = replace(model, run=replace(model.run, images=(cohort.digest,), image_px=(32, 32), classes=("tissue",)))
    options = {"members": "train", "held_out": "test", "limit": 1000, "seed": 0}
    members, others = looking.sides(model.run, cohort, **options)
    assert len(members.images) == len(others.images) == PATIENTS * FIELDS // 2
    released = members.images if copies else replace(others.images, fetch=lambda chosen: strangers[list(chosen)])
    generated = replace(released, training_data=(cohort.digest,), digest=f"copies {copies}")
    extractor = FeatureExtractor("colours", "mean colours", "0" * 64, "none", colours)
    sources = looking.Sources(model, members, others, generated, [extractor])
    record, scored = looking.measure(sources, FeatureStore(tmp_path), looking.Settings(CONFIG, draws=1))
    assert (record.units, record.members) == ("patients", (PATIENTS * FIELDS // 2, PATIENTS // 2))
    (nearer,) = record.nearer
    nearest = record.attacks[looking.MATCHING], record.attacks[f"{looking.MATCHING}, colours"]
    if copies:
        assert record.outcome == LEAKS
        assert all(attack.area.value == attack.area_by_patient.value == 1 for attack in nearest)
        assert nearer.to_members == pytest.approx(0, abs=1e-6) and "nearer to the training" in nearer.words
    else:
        assert record.outcome == UNKNOWN  # no sign, but 8 patients a side are few
        assert all(attack.area.low < 0.5 < attack.area.high for attack in nearest)
        assert nearer.words == "neither is shown to be nearer"
    own = record.attacks[looking.LOSS]
    assert own.area.low < 0.5 < own.area.high
    assert scored.losses.shape == (PATIENTS * FIELDS, len(record.levels))
