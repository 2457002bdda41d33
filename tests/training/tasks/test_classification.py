"""What a classifier is taught with: weights of classes, and other amounts of stain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffpath_jax.config import checks
from diffpath_jax.config.tasks import make_task
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.metrics.stain import stain_amounts
from diffpath_jax.networks.codecs import to_pixels, to_unit
from diffpath_jax.networks.pure import purify
from diffpath_jax.training.tasks import losses
from diffpath_jax.training.tasks.classification import classification_task
from diffpath_jax.training.tasks.rand_augment import rand_augment
from diffpath_jax.training.tasks.stain_jitter import jitter_stains
from diffpath_jax.training.tasks.task import NETWORK
from tests.conftest import TINY_DENOISER, TINY_RESNET
from tests.golden import weights


def test_weights_balance_classes_of_other_sizes():
    counts = np.array([30, 10, 0, 80])
    found = losses.balancing_weights(counts)
    np.testing.assert_allclose(found, [120 / (3 * 30), 120 / (3 * 10), 0, 120 / (3 * 80)])
    # Every class that occurs weighs as much as any other, and an image weighs 1 on average.
    np.testing.assert_allclose(found * counts, [40, 40, 0, 40])


class Fixed(nnx.Module):
    """Logits that are a parameter."""

    def __init__(self, rngs):
        self.logits = nnx.Param(jnp.asarray(weights.normal("fixed", (6, 3))))

    def __call__(self, x, *, train):
        return self.logits[...], x.mean(axis=(1, 2))


def test_the_loss_is_the_weighted_mean():
    labels, factors = np.array([0, 0, 0, 1, 2, 2]), np.array([0.5, 3.0, 1.0])
    batch = {"image": jnp.zeros((6, 4, 4, 3), jnp.uint8), "label": jnp.asarray(labels)}

    def loss(**options):
        task = classification_task(purify(Fixed), label_smoothing=0.0, **options)
        params, state = task.init(jax.random.key(0))
        return task.losses[NETWORK](params, state, batch, jax.random.key(1))[0]

    logits = weights.normal("fixed", (6, 3)).astype(np.float64)
    told = -np.log(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))[np.arange(6), labels]
    assert float(loss()) == pytest.approx(told.mean(), rel=1e-5)
    assert float(loss(class_weights=factors)) == pytest.approx((told * factors[labels]).mean(), rel=1e-5)


def tissue(count):
    """Images of some haematoxylin and some eosin, pixel by pixel."""
    rng = np.random.default_rng(0)
    amounts = rng.uniform(0.15, 0.5, (count, 8, 8, 2))
    vectors = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    density = amounts @ (vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    return np.round(256 * 10**-density - 1).astype(np.uint8)


def test_amounts_of_stain_change_alike_at_all_pixels_of_an_image():
    """As the metric of stain drift measures them: ``alpha a + beta`` for each image and stain."""
    images, strength = tissue(64), 0.2
    found = np.asarray(to_pixels(jitter_stains(jnp.asarray(images), jax.random.key(0), strength=strength)))
    factors = []
    for before, after in zip(stain_amounts(images), stain_amounts(found), strict=True):
        for stain in range(2):
            x, y = before[..., stain].ravel(), after[..., stain].ravel()
            alpha, beta = np.polyfit(x, y, 1)
            # Both are of 256 levels, of which one is 0.006 of optical density here.
            assert np.abs(alpha * x + beta - y).max() < 0.02
            factors.append((alpha - 1, beta))
    factors = np.array(factors)
    assert np.abs(factors).max() < strength + 0.03
    # Even draws within +- s have a standard deviation of s / sqrt(3).
    np.testing.assert_allclose(factors.std(axis=0), strength / np.sqrt(3), rtol=0.2)
    assert abs(np.corrcoef(factors.T)[0, 1]) < 0.35


def test_what_is_no_stain_stays():
    """The part of the optical density that neither stain explains, here of something green."""
    image = jnp.full((1, 4, 4, 3), jnp.array([90, 160, 100]), jnp.uint8)
    _, _, rest = np.linalg.svd(np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]]))

    def left(pixels):
        return float(-np.log10((np.asarray(pixels, float)[0, 0, 0] + 1) / 256) @ rest[2])

    moved = (jitter_stains(image, jax.random.key(2), strength=0.1) + 1) * 127.5
    assert not np.allclose(moved, image, atol=2)
    assert left(moved) == pytest.approx(left(image), abs=1e-4)


def test_a_key_decides_and_no_strength_changes_nothing():
    images = jnp.asarray(tissue(2))
    one, again, other = (jitter_stains(images, jax.random.key(k), strength=0.1) for k in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    np.testing.assert_allclose(jitter_stains(images, jax.random.key(0), strength=0.0), to_unit(images), atol=1e-5)


def config(kind, **keys):
    content = {
        "seed": 0,
        "dtype": "float32",
        "data": {"train": "", "batch_size": 8, "augment": "none", "workers": 0},
        "noise": {"schedule": "cosine"},
        "diffusion": {"prediction": "v"},
        "optim": {},
        "train": {"num_steps": 1, "log_every": 1, "checkpoint_every": 1},
        **kind,
        "classifier": keys,
    }
    return checks.run_config(content, where="test")


@pytest.mark.parametrize("keys", [{"balance": "draw"}, {"stain_jitter": 0.1}])
def test_only_classifiers_of_clean_images_have_such_keys(keys):
    with pytest.raises(DiffpathError, match="a run of diffusion has none"):
        config(TINY_DENOISER, **keys)
    assert config(TINY_RESNET, **keys)


def test_a_config_weighs_by_the_images_of_its_data():
    batch = {"image": jnp.asarray(tissue(4)), "label": jnp.array([0, 0, 0, 1])}

    def loss(balance, counts):
        task = make_task(config(TINY_RESNET, balance=balance), num_classes=2, class_counts=np.array(counts))
        params, state = jax.jit(task.init)(jax.random.key(0))
        return float(jax.jit(task.losses[NETWORK])(params, state, batch, jax.random.key(1))[0])

    assert loss("weights", [5, 5]) == pytest.approx(loss("none", [9, 1]), rel=1e-6)
    assert loss("weights", [9, 1]) != pytest.approx(loss("none", [9, 1]), rel=1e-3)


def test_augmentation_has_a_key_of_its_own_and_comes_before_the_jitter():
    """The loss sees what the two give one after the other, from the step's key and one beside it."""
    images, key = tissue(6), jax.random.key(5)
    batch = {"image": jnp.asarray(images), "label": jnp.zeros(6, int)}
    seen = {}

    class Seeing(Fixed):
        def __call__(self, x, *, train):
            seen["x"] = x
            return super().__call__(x, train=train)

    options = {"stain_jitter": 0.2, "randaugment_ops": 2, "randaugment_magnitude": 9.0}
    task = classification_task(purify(Seeing), label_smoothing=0.0, **options)
    params, state = task.init(key)
    task.losses[NETWORK](params, state, batch, key)
    moved = rand_augment(batch["image"], jax.random.fold_in(key, 1), ops=2, magnitude=9.0)
    expected = jitter_stains(moved, key, strength=0.2)
    np.testing.assert_array_equal(seen["x"], expected)
    assert np.asarray(moved).tobytes() != images.tobytes()
