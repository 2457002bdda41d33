"""Labels, numbers and categories as conditions: a model of a known joint distribution, also where it never trained."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.diffusion import conditioning
from diffpath_jax.diffusion.samplers import loop, thresholding
from diffpath_jax.diffusion.samplers.ddim import ddim
from diffpath_jax.diffusion.schedule import cosine_schedule, to_eps
from diffpath_jax.diffusion.timesteps import uniform
from diffpath_jax.networks import embedders
from diffpath_jax.networks.conditions import COLUMNS, CONDITIONS
from diffpath_jax.networks.pure import purify
from diffpath_jax.shapes import DenoiserOutput
from diffpath_jax.training.tasks.diffusion import DiffusionConfig, diffusion_task
from diffpath_jax.training.tasks.task import NETWORK
from tests.conftest import register, train_words

SITE = embedders.category("site", ("north", "south"), read=lambda record: record.site)
FOUND = embedders.labels("found", ("tumour", "stroma"), read=lambda record: record.found, dropout=0.1)
AGE = embedders.number("age", low=0.0, high=1.0, read=lambda record: record.age, dropout=0.2)


def test_values_are_read_from_records_and_from_words():
    record = types.SimpleNamespace(site="south", found=("stroma", "tumour"), age=0.25)
    unknown = types.SimpleNamespace(site=None, found=None, age=None)
    none = types.SimpleNamespace(site="north", found=(), age=0)
    for kind, values in ((SITE, (1, 2, 0)), (FOUND, (3, -1, 0)), (AGE, (0.25, np.nan, 0.0))):
        read = [kind.read(each) for each in (record, unknown, none)]
        np.testing.assert_array_equal(read, values)
        assert {each.dtype for each in read} == {kind.null(2).dtype}
        np.testing.assert_array_equal(kind.null(2), read[1])
    assert (SITE.parse("south"), FOUND.parse("stroma"), FOUND.parse("tumour+stroma"), FOUND.parse("")) == (1, 2, 3, 0)
    for kind, text in ((SITE, "west"), (FOUND, "tumour+fat"), (AGE, "old")):
        with pytest.raises(ValueError):
            kind.parse(text)
    with pytest.raises(ValueError, match="more than 30"):
        embedders.labels("many", [str(i) for i in range(31)], read=lambda record: ())


def embedder(kind, *, width=5, rngs=None):
    told = types.SimpleNamespace(num_classes=0, condition_width=width, feature_width=0, columns=(3, 0))
    return kind.make(told, rngs=rngs or nnx.Rngs(0))


def test_embeddings_of_labels_add_up():
    rows = embedder(FOUND)
    none, first, second, both, unknown = rows(jnp.array([0, 1, 2, 3, -1]))
    np.testing.assert_array_equal(none, 0)
    np.testing.assert_allclose(both, first + second, rtol=1e-6)
    np.testing.assert_allclose(unknown, rows.rows.embedding[...][2], rtol=1e-6)


def test_unknown_numbers_leave_gradients_finite():
    module = embedder(AGE)
    value, gradients = nnx.value_and_grad(lambda m: m(jnp.array([0.5, jnp.nan])).sum())(module)
    assert np.isfinite(value) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_conditions_are_dropped_together_and_each_by_its_own_share():
    count = 20_000
    given = {"site": jnp.zeros(count, jnp.int32), "found": jnp.ones(count, jnp.int32), "age": jnp.ones(count)}
    nulls = {kind.name: kind.null(2) for kind in (SITE, FOUND, AGE)}
    own = {kind.name: kind.dropout for kind in (FOUND, AGE)}
    dropped = conditioning.drop(jax.random.key(0), given, nulls, rate=0.1, own=own)
    site, found, age = dropped["site"] == 2, dropped["found"] == -1, jnp.isnan(dropped["age"])
    for lost, share in ((site, 0.1), (found, 1 - 0.9 * 0.9), (age, 1 - 0.9 * 0.8)):
        assert float(lost.mean()) == pytest.approx(share, abs=0.015)
    assert (found | ~site).all() and (age | ~site).all()
    # Apart from what is dropped together, they are independent.
    assert float((found & age)[~site].mean()) == pytest.approx(0.1 * 0.2, abs=0.01)
    alone = conditioning.drop(jax.random.key(0), given, nulls, rate=0.1)
    np.testing.assert_array_equal(alone["site"], dropped["site"])


def test_each_condition_is_guided_by_its_own_weight():
    """Of a sum of its conditions, null ones 0: c moves by w of all and by w_k of the k-th."""

    def predict(x, t, told):
        total = sum(jnp.nan_to_num(value.astype(jnp.float32)) for value in told.values())
        return total.reshape(-1, 1, 1, 1) + 0 * x, None

    given = {"found": jnp.array([3, 1]), "age": jnp.array([0.5, 0.25])}
    nulls = {"found": np.asarray(0, np.int32), "age": np.asarray(np.nan, np.float32)}
    x, t = jnp.zeros((2, 1, 1, 1)), jnp.array([0, 1])
    for w, own, expected in (
        (0.0, {}, [3.5, 1.25]),
        (2.0, {}, [3 * 3.5, 3 * 1.25]),
        (0.0, {"age": 4.0}, [3 + 5 * 0.5, 1 + 5 * 0.25]),
        (1.0, {"age": 4.0, "found": 0.5}, [2 * 3.5 + 2 + 1.5, 2 * 1.25 + 1 + 0.5]),
    ):
        found, _ = conditioning.with_guidance(predict, given, nulls, weight=w, own=own)(x, t)
        np.testing.assert_allclose(found[:, 0, 0, 0], expected, rtol=1e-6)
    active = np.array([True, False])
    found, _ = conditioning.with_guidance(predict, given, nulls, weight=0.0, own={"age": 4.0}, active=active)(x, t)
    np.testing.assert_allclose(found[:, 0, 0, 0], [5.5, 1.25], rtol=1e-6)


@pytest.fixture(scope="module")
def run(tmp_path_factory, dataset):
    """A model that was told labels and a number of each field, by its index."""
    parity = embedders.labels("parity", ("odd", "third"), dropout=0.5, read=of_index)
    depth = embedders.number("depth", low=0.0, high=100.0, read=lambda record: float(record.index))
    workdir = tmp_path_factory.mktemp("told") / "run"
    with pytest.MonkeyPatch.context() as patch:
        register(patch, CONDITIONS, parity)
        register(patch, CONDITIONS, depth)
        assert cli.main(train_words(workdir, dataset, {"network.conditions": "('label','parity','depth')"})) == 0
        yield workdir


def of_index(record):
    return [name for name, divisor in (("odd", 2), ("third", 3)) if record.index % divisor]


def sampled(run, out, *words, code=0):
    fixed = ["sample", "--workdir", run, "--out", out, "--num_per_class", 1, "--steps", 2, "--sampler", "ddim"]
    assert cli.main([str(word) for word in (*fixed, "--raw_parameters", *words)]) == code
    return np.stack([record.image for record in open_dataset(out).read("train")]) if code == 0 else None


@pytest.mark.full
def test_a_model_is_told_and_guided_by_the_command(run, tmp_path, capsys):
    told = ["--condition", "parity=odd+third", "--condition", "depth=30"]
    plain = sampled(run, tmp_path / "plain", *told)
    guided = sampled(run, tmp_path / "guided", *told, "--guidance", 1, "--guidance_of", "parity=4.5")
    assert not np.array_equal(plain, guided)
    details = open_dataset(tmp_path / "guided").details
    assert details.job["conditions"] == {"parity": 3, "depth": 30.0}
    assert details.sampling["guidance_of"] == "parity=4.5"
    for number, (word, why) in enumerate(
        (("depth=1", "never saw images without 'depth' alone"), ("parity=-1", "no weight"), ("parity", "no weight"))
    ):
        sampled(run, tmp_path / f"x{number}", *told, "--guidance_of", word, code=2)
        assert why in capsys.readouterr().err
    sampled(run, tmp_path / "odd", "--condition", "parity=even", code=2)
    assert "'even' is none of odd, third" in capsys.readouterr().err


T = 64
SCHEDULE = cosine_schedule(T)
# Images of two pixels: the mean of each label, the way of age, and the covariance around them.
MEANS, COVARIANCE = np.array([[0.8, -0.3], [-0.2, 0.6]]), np.array([[0.09, 0.03], [0.03, 0.04]])


def mean_of(bits, age):
    """Additive: the sum of the labels' means, and a bend with age."""
    bits, age = np.asarray(bits), np.asarray(age)
    there = (bits[:, None] >> np.arange(2)) & 1
    return there @ MEANS + np.stack([0.5 * age, -0.4 * np.sin(3 * age)], axis=1)


class Linear(nnx.Module):
    """The exact form of such a denoiser: at each t a linear map of x_t and of the sum of embeddings."""

    def __init__(self, rngs):
        self.found, self.age = (embedder(kind, width=8, rngs=rngs) for kind in (FOUND, AGE))
        self.of_x, self.of_told = nnx.Param(jnp.zeros((T, 2, 2))), nnx.Param(jnp.zeros((T, 8, 2)) + 0.1)

    def __call__(self, x, t, conditions, key=None):
        told = self.found(conditions["found"]) + self.age(conditions["age"])
        out = (
            jnp.einsum("bhwc,bwd->bdc", x, self.of_x[...][t])
            + jnp.einsum("be,bed->bd", told, self.of_told[...][t])[..., None]
        )
        return out[:, None]


@dataclasses.dataclass
class Plain:
    """Model space as it is."""

    def encode(self, weights, batch, key):
        return batch["image"]

    def decode(self, weights, x):
        return x

    def shape(self, image_px):
        return (*image_px, 1)


@pytest.mark.full
def test_a_model_recovers_a_joint_distribution_and_combinations_that_it_never_saw():
    """Trained on no label, either label, at any age; drawn with both labels, too."""
    network = purify(Linear)
    nulls = {kind.name: kind.null(0) for kind in (FOUND, AGE)}
    task = diffusion_task(
        network, Plain(), SCHEDULE, DiffusionConfig("x0", label_dropout=0.0), timesteps=uniform(T), nulls=nulls
    )
    factor = jnp.asarray(np.linalg.cholesky(COVARIANCE), jnp.float32)
    optimiser = optax.adam(optax.cosine_decay_schedule(2e-2, 4000))

    def step(carry, key):
        params, state = carry
        one, two, three, four = jax.random.split(key, 4)
        bits, age = jax.random.randint(one, (512,), 0, 3), jax.random.uniform(two, (512,))
        there = (bits[:, None] >> jnp.arange(2)) & 1
        mean = there @ jnp.asarray(MEANS) + jnp.stack([0.5 * age, -0.4 * jnp.sin(3 * age)], axis=1)
        x = (mean + jax.random.normal(three, (512, 2)) @ factor.T).reshape(512, 1, 2, 1).astype(jnp.float32)
        batch = {"image": x, "found": bits, "age": age}
        grads = jax.grad(lambda p: task.losses[NETWORK](p, model_state, batch, four)[0])(params)
        updates, state = optimiser.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    params, model_state = task.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 4000)
    (params, _), _ = jax.jit(lambda p: jax.lax.scan(step, (p, optimiser.init(p)), keys))(params)

    def drawn(bits, age, count=8000):
        told = {"found": jnp.full(count, bits), "age": jnp.full(count, age)}

        def denoiser(x, t):
            return DenoiserOutput(to_eps("x0", SCHEDULE, x, t, network.apply(params[NETWORK], {}, x, t, told)[0]))

        image_keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(2), i))(jnp.arange(count))
        options = {"shape": (1, 2, 1), "threshold": thresholding.unbounded}
        draw = jax.jit(lambda k: loop.sample(denoiser, ddim(SCHEDULE, eta=0.0), keys=k, **options)[0])
        return np.asarray(draw(image_keys))[:, 0, :, 0]

    for bits, age in ((0, 0.2), (1, 0.9), (2, 0.5), (3, 0.1), (3, 0.8)):
        found = drawn(bits, age)
        print(bits, age, found.mean(axis=0), mean_of([bits], [age])[0], np.cov(found.T).ravel(), COVARIANCE.ravel())
        np.testing.assert_allclose(found.mean(axis=0), mean_of([bits], [age])[0], atol=0.04)
        np.testing.assert_allclose(np.cov(found.T), COVARIANCE, atol=0.012)


def test_columns_add_up_and_each_may_be_unknown():
    module = embedder(COLUMNS)
    nan = jnp.nan
    known, one, other, none = module(jnp.array([[2, 0.5], [2, nan], [nan, 0.5], [nan, nan]], jnp.float32))
    np.testing.assert_allclose(known + none, one + other, atol=1e-6)
    category, number = module.parts
    np.testing.assert_allclose(none, category.embedding[...][3] + number.null[...], rtol=1e-6)
    assert not np.allclose(one, none) and not np.allclose(other, none)


def test_columns_are_dropped_one_by_one():
    count = 20_000
    given = {"columns": jnp.zeros((count, 2))}
    nulls = {"columns": np.full(2, np.nan, np.float32)}
    dropped = conditioning.drop(jax.random.key(0), given, nulls, rate=0.1, own={"columns": np.full(2, 0.2)})
    lost = jnp.isnan(dropped["columns"])
    np.testing.assert_allclose(lost.mean(axis=0), 1 - 0.9 * 0.8, atol=0.015)
    assert float(lost.all(axis=1).mean()) == pytest.approx(0.1 + 0.9 * 0.2 * 0.2, abs=0.01)
