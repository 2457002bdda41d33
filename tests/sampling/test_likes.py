"""Features of an encoder: stored beside images, told to a model, and drawn from: `diffpath sample --like`."""

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds

from diffpath_jax import api, cli
from diffpath_jax.data import details, records
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.data.pipeline import read_arrays
from diffpath_jax.evaluation.features.open import open_extractor
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.networks.conditions import FEATURES
from diffpath_jax.networks.embeddings import FeaturesEmbedding, Standardisation
from diffpath_jax.networks.pure import purify
from diffpath_jax.runs import run as runs
from diffpath_jax.sampling.likes import Likes
from diffpath_jax.sampling.references import References
from tests.conftest import TINY_DENOISER, TINY_RESNET, train_words, write_run

WIDTH = 32


def encode(out, data, *words, code=0):
    assert cli.main(["encode", "--data", str(data), "--out", str(out), *map(str, words)]) == code
    return out


def told_words(workdir, data, width=WIDTH):
    return train_words(workdir, data, {"network.conditions": "('label','features')", "network.feature_width": width})


@pytest.fixture(scope="module")
def beside(tmp_path_factory, dataset, resnet_run):
    """The data set with a network's features beside its images."""
    return encode(tmp_path_factory.mktemp("features") / "set", dataset, "--features", resnet_run)


@pytest.fixture(scope="module")
def run(tmp_path_factory, beside):
    """A model of random parameters that is told features."""
    network = {**TINY_DENOISER["network"], "conditions": ("label", "features"), "feature_width": WIDTH}
    return write_run(tmp_path_factory.mktemp("told") / "run", beside, {**TINY_DENOISER, "network": network})


def sample(run, out, *words, code=0, count=3):
    fixed = ["--workdir", run, "--out", out, "--num_per_class", count, "--sampler", "ddim", "--steps", 2]
    assert cli.main([str(word) for word in ["sample", *fixed, *words]]) == code
    return open_dataset(out) if code == 0 else None


def test_they_are_those_of_the_images_which_stay_as_they_are(beside, dataset, resnet_run):
    source, written = open_dataset(dataset), open_dataset(beside)
    extract = open_extractor(resnet_run, resize="tf_bilinear").extract
    assert written.schema.feature_width == WIDTH and written.images == source.digest != written.digest
    for split in source.splits:
        before, after = list(source.read(split)), list(written.read(split))
        np.testing.assert_array_equal(
            [record.features for record in after], extract(np.stack([record.image for record in before]))
        )
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one.image, other.image)
            assert (one.slide, one.patient, one.label, one.index) == (
                other.slide,
                other.patient,
                other.label,
                other.index,
            )
    assert "numbers of the encoder" in (beside / "README.md").read_text()


def test_other_programs_read_them(beside):
    source = tfds.builder_from_directory(beside).as_data_source("test")
    record = next(open_dataset(beside).read("test"))
    np.testing.assert_array_equal(source[0]["features"], record.features)


def test_latents_keep_them(beside, autoencoder_run, tmp_path):
    latents = open_dataset(encode(tmp_path / "latents", beside, "--first_stage", autoencoder_run, "--augment", "flips"))
    assert latents.images == open_dataset(beside).images
    read = {FEATURES.name: FEATURES.read}
    found = read_arrays(latents, "train", read=read)["features"].reshape(-1, 4, WIDTH)  # of four orientations
    wanted = read_arrays(open_dataset(beside), "train", read=read)["features"]
    np.testing.assert_array_equal(found, np.repeat(wanted[:, None], 4, axis=1))


def test_what_changes_images_leaves_them_out(beside, tmp_path):
    words = ["transform", "--data", str(beside), "--splits", "test"]
    for name, changes in (("fewer", ["--num_per_class", "3"]), ("jpeg", ["--jpeg", "50"])):
        assert cli.main([*words, "--out", str(tmp_path / name), *changes]) == 0
    fewer, jpeg = open_dataset(tmp_path / "fewer"), open_dataset(tmp_path / "jpeg")
    assert fewer.details.encoder == open_dataset(beside).details.encoder and fewer.schema.feature_width == WIDTH
    assert jpeg.details.encoder == "" and all(record.features is None for record in jpeg.read("train"))


def test_records_without_them_are_the_bytes_that_they_were():
    plain = records.PatchRecord(np.zeros((2, 2, 3), np.uint8), 0, "s", "p", 0.5, 1.0, 7)
    schema = records.Schema((2, 2), ("a",))
    assert b"features" not in records.encode(plain)
    assert records.decode(records.encode(plain), schema).features is None


def test_a_model_learns_with_them_and_goes_on(beside, tmp_path):
    for _ in range(2):
        assert cli.main(told_words(tmp_path / "run", beside)) == 0
    run = runs.open_run(tmp_path / "run")
    assert run.features == open_dataset(beside).details.features["digest"]


@pytest.mark.parametrize(("width", "said"), [(WIDTH + 1, f"make it {WIDTH}"), (0, "but network.conditions has")])
def test_a_width_that_is_not_theirs_is_one_line(beside, tmp_path, capsys, width, said):
    assert cli.main(told_words(tmp_path / "run", beside, width)) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_data_without_them_are_one_line(dataset, tmp_path, capsys):
    assert cli.main(told_words(tmp_path / "run", dataset)) == 2
    assert "no features lie beside its images; fix: write a data set with `diffpath encode" in capsys.readouterr().err


def test_a_sample_is_told_those_of_an_image_of_its_class(run, beside, tmp_path):
    liked = sample(run, tmp_path / "liked", "--like", beside, "--guidance_of", "features=1")
    rows = pq.read_table(tmp_path / "liked" / "samples.parquet").to_pylist()
    held_out = list(open_dataset(beside).read("test"))
    classes = open_dataset(beside).schema.classes
    assert all(classes[held_out[row["like_image"]].label] == row["class"] for row in rows)
    assert len({row["like_image"] for row in rows}) == len(rows) == 6
    assert liked.details.sampling["like_origin"] == "held out" and liked.details.references == ""
    plain = sample(run, tmp_path / "plain")
    images = [[record.image for record in made.read("train")] for made in (liked, plain)]
    assert not np.array_equal(*images)


def test_the_library_draws_the_same(run, beside, tmp_path):
    drawn = api.sample(
        api.open_run(run),
        tmp_path / "api",
        num_per_class=2,
        like=beside,
        start=beside,
        start_level=0.6,
        sampler="ddim",
        steps=4,
    )
    words = ["--like", beside, "--start", beside, "--start_level", 0.6, "--steps", 4]
    assert drawn.digest == sample(run, tmp_path / "cli", *words, count=2).digest
    with pytest.raises(DiffpathError, match="another split with `like_split`"):
        api.sample(api.open_run(run), tmp_path / "known", num_per_class=1, like=beside, like_split="train")
    assert not (tmp_path / "known").exists()


def test_training_images_are_refused_unless_every_record_says_so(run, beside, tmp_path, capsys):
    sample(run, tmp_path / "set", "--like", beside, "--like_split", "train", code=4)
    assert "another split with --like_split" in capsys.readouterr().err
    words = ["--like", beside, "--like_split", "train", "--allow_training_references"]
    made = sample(run, tmp_path / "set", *words)
    assert made.details.references == "are like images that the model was trained on, and repeat these"
    assert made.details.references in (tmp_path / "set" / "README.md").read_text()


def test_drawn_features_are_of_no_image(run, beside, tmp_path):
    made = sample(run, tmp_path / "set", "--like", beside, "--like_split", "train", "--like_drawn")
    assert made.details.references == "" and details.LIKE_ORIGIN not in made.details.sampling
    assert "like_image" not in pq.read_table(tmp_path / "set" / "samples.parquet").column_names


def test_drawn_features_have_the_mean_and_covariance_of_their_class():
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((3, 3))
    features = [(rng.standard_normal((25, 3)) @ mixing + 5 * label).astype(np.float32) for label in range(2)]
    images = [{"features": row} for row in np.concatenate(features)]
    order = (np.arange(25), np.arange(25, 50))
    likes = Likes(References(images, order, "", "train", "training"), drawn=True, seed=3)
    count = 20_000
    drawn = likes.batch(np.arange(2 * count))["features"]
    for label, own in enumerate(features):
        found, wanted = drawn[label::2], np.cov(own.T)
        spread = np.sqrt(np.diag(wanted) / count)
        assert (np.abs(found.mean(axis=0) - own.mean(axis=0)) < 5 * spread).all()
        # The standard error of a covariance of normal numbers.
        error = np.sqrt((np.outer(np.diag(wanted), np.diag(wanted)) + wanted**2) / count)
        assert (np.abs(np.cov(found.T) - wanted) < 5 * error).all()
    np.testing.assert_array_equal(likes.batch(np.array([7]))["features"][0], drawn[7])


def test_what_is_not_known_is_a_vector_of_its_own_with_a_gradient():
    network = purify(lambda rngs: FeaturesEmbedding(4, 6, rngs))
    params, state = network.init(jax.random.key(0))
    x = jnp.stack([jnp.arange(4.0), jnp.full(4, jnp.nan), 3 * jnp.arange(4.0) + 2])
    found, _ = network.apply(params, state, x)
    np.testing.assert_array_equal(found[1], params["null"])
    assert jnp.isfinite(found).all() and not np.allclose(found[0], found[2])
    assert jnp.isfinite(jax.grad(lambda x: network.apply(params, state, x)[0].sum())(x)).all()


def test_numbers_are_standardised_by_all_that_were_seen():
    rng = np.random.default_rng(0)
    scales, means = np.array([1e-2, 1, 100]), np.array([5, -1, 1000])
    batches = (rng.standard_normal((40, 16, 3)) * scales + means).astype(np.float32)
    batches[:, ::5] = np.nan  # rows that are not known do not count
    standardise = Standardisation(3)
    first = standardise(jnp.asarray(batches[0]))
    np.testing.assert_allclose(np.nanmean(first, axis=0), 0, atol=2e-2)
    for batch in batches[1:]:
        last = standardise(jnp.asarray(batch))
    seen = batches.reshape(-1, 3)
    np.testing.assert_allclose(standardise.mean[...], np.nanmean(seen, axis=0), rtol=1e-5)
    before = batches[:-1].reshape(-1, 3).astype(np.float64)
    wanted = (batches[-1] - np.nanmean(before, axis=0)) / np.nanstd(before, axis=0)
    np.testing.assert_allclose(last, wanted, rtol=1e-2, atol=1e-2)
    standardise(jnp.full((2, 3), jnp.nan))
    assert standardise.seen[...] == 40


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--like_drawn"], "error: --like_drawn in the command line: there is no image to be like; fix: add --like"),
        (["--condition", "features=1"], "no word says features; fix: name images with --like"),
    ],
)
def test_what_is_not_known_is_one_line(run, tmp_path, capsys, words, said):
    sample(run, tmp_path / "set", *words, code=2)
    assert said in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_features_that_the_model_does_not_know_are_refused(run, beside, dataset, denoiser_run, tmp_path, capsys):
    sample(denoiser_run, tmp_path / "set", "--like", beside, code=2)
    assert "the model is not told features" in capsys.readouterr().err
    sample(run, tmp_path / "set", "--like", dataset, code=2)
    assert "no features lie beside its images" in capsys.readouterr().err
    wider = {**TINY_RESNET, "network": {**TINY_RESNET["network"], "width": 8}}
    encoder = write_run(tmp_path / "wider", dataset, wider)
    other = encode(tmp_path / "other", dataset, "--features", encoder)
    sample(run, tmp_path / "set", "--like", other, code=2)
    assert "encode it with the encoder of training" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_options_of_latents_are_not_passed_over(dataset, resnet_run, tmp_path, capsys):
    encode(tmp_path / "set", dataset, "--features", resnet_run, "--dtype", "bfloat16", code=2)
    assert "--dtype in the command line: there is no autoencoder" in capsys.readouterr().err
