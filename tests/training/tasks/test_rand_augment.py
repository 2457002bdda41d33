"""RandAugment: each operation against Pillow or SciPy, and which image draws what."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image, ImageEnhance

from diffpath_jax.config import checks
from diffpath_jax.devices import sharding
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.training.tasks import rand_augment
from diffpath_jax.training.tasks.rand_augment import OPERATIONS
from tests.conftest import TINY_DENOISER, TINY_RESNET

NAMES = [operation.name for operation in OPERATIONS]
HEIGHT, WIDTH = 18, 24
apply = jax.jit(rand_augment.apply)


@pytest.fixture(scope="module")
def image():
    """A smooth image with some noise; taller than wide it is not."""
    rng = np.random.default_rng(0)
    smooth = scipy.ndimage.gaussian_filter(rng.normal(0, 300, (HEIGHT, WIDTH, 3)), (2, 2, 0))
    return np.clip(128 + smooth + rng.normal(0, 8, smooth.shape), 0, 255).round().astype(np.uint8)


def after(image, name, strength):
    return np.asarray(apply(jnp.asarray(image, jnp.float32), jnp.asarray(NAMES.index(name)), jnp.float32(strength)))


@pytest.mark.parametrize("name", NAMES)
def test_strength_0_is_the_identity(image, name):
    np.testing.assert_array_equal(after(image, name, 0.0).round(), image)


@pytest.mark.parametrize("strength", [-1.0, -0.3, 0.5, 1.0])
@pytest.mark.parametrize(
    ("name", "enhancer"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("colour", ImageEnhance.Color),
        ("contrast", ImageEnhance.Contrast),
        ("sharpness", ImageEnhance.Sharpness),
    ],
)
def test_photometric_operations_are_those_of_pillow(image, name, enhancer, strength):
    """Pillow rounds what it blends with, and its result down: one level from each, the first up to 1.9 times."""
    expected = np.asarray(enhancer(Image.fromarray(image)).enhance(1 + 0.9 * strength), float)
    found = after(image, name, strength)
    assert np.abs(found - expected).max() < 2
    if name in ("brightness", "colour", "contrast"):
        assert np.abs(found - image).max() > 10


def matrix_of(name, strength):
    """Output (y, x) about the centre to input, and the shift in pixels, written from the definitions."""
    angle = np.deg2rad(30 * strength)
    matrices = {
        "rotate": [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]],
        "shear_x": [[1, 0], [0.3 * strength, 1]],
        "shear_y": [[1, 0.3 * strength], [0, 1]],
    }
    shifts = {
        "translate_x": (0, 150 / 331 * WIDTH * strength),
        "translate_y": (150 / 331 * HEIGHT * strength, 0),
    }
    return np.array(matrices.get(name, np.eye(2))), np.array(shifts.get(name, (0, 0)))


@pytest.mark.parametrize("strength", [-1.0, 0.4, 1.0])
@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
def test_geometric_operations_are_affine_maps_of_the_mirrored_image(image, name, strength):
    matrix, shift = matrix_of(name, strength)
    centre = (np.array([HEIGHT, WIDTH]) - 1) / 2
    offset = centre + shift - matrix @ centre
    channels = [
        scipy.ndimage.affine_transform(channel, matrix, offset, order=1, mode="mirror")
        for channel in np.moveaxis(image.astype(float), -1, 0)
    ]
    np.testing.assert_allclose(after(image, name, strength), np.stack(channels, axis=-1), atol=0.02)


def test_a_shift_by_whole_pixels_is_a_copy(image):
    """By 3 of 24 columns, to the left; what comes in is the mirror of what stood there."""
    found = after(image, "translate_x", 3 / 24 / (150 / 331)).round()
    np.testing.assert_array_equal(found[:, :-3], image[:, 3:])
    np.testing.assert_array_equal(found[:, -3:], image[:, -4:-1][:, ::-1])


def augmented(images, key, **options):
    augment = functools.partial(rand_augment.rand_augment, **{"ops": 2, "magnitude": 9.0, **options})
    return np.asarray(jax.jit(augment)(jnp.asarray(images), key))


def test_magnitude_0_changes_no_image(image):
    images = np.stack([image] * 4)
    np.testing.assert_array_equal(augmented(images, jax.random.key(0), magnitude=0.0), images)


def test_pixels_stay_pixels_at_the_greatest_magnitude():
    """Nothing wraps around: black stays black, and white is white, or a tenth of it where it is made darker."""
    black = np.zeros((64, 8, 8, 3), np.uint8)
    found = augmented(np.concatenate([black, 255 - black]), jax.random.key(0), ops=1, magnitude=30.0)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[:64], 0)
    assert {25, 26, 255} >= {*np.unique(found[64:]).tolist()} > {255}


def test_an_image_draws_from_the_key_of_its_place_alone(image):
    images, key = np.stack([image] * 8), jax.random.key(3)
    found = augmented(images, key)
    np.testing.assert_array_equal(augmented(images[:5], key), found[:5])
    np.testing.assert_array_equal(augmented(images, key), found)
    assert len({one.tobytes() for one in found}) > 4
    assert augmented(images, jax.random.key(4)).tobytes() != found.tobytes()


def test_devices_share_a_batch_and_need_nothing_of_each_other(image):
    images, mesh = np.stack([image] * 8), sharding.make_mesh(jax.devices()[:2])
    split = sharding.batch_sharding(mesh)
    augment = functools.partial(rand_augment.rand_augment, ops=2, magnitude=9.0)
    program = (
        jax.jit(augment, in_shardings=(split, None), out_shardings=split).lower(images, jax.random.key(3)).compile()
    )
    assert "all-gather" not in program.as_text()
    found = np.asarray(program(jax.device_put(images, split), jax.random.key(3)))
    np.testing.assert_array_equal(found, augmented(images, jax.random.key(3)))


def test_every_operation_is_drawn_about_equally_often_in_both_directions():
    """Told apart by a ramp that only shifts change: an even draw of 10 has a shift in either direction once in 10."""
    ramp = np.broadcast_to(np.arange(60, 180, 5, dtype=np.uint8)[None, :, None], (8, 24, 3))
    count = 2000
    images = np.broadcast_to(ramp, (count, *ramp.shape))
    found = augmented(images, jax.random.key(0), ops=1, magnitude=9.0).astype(int)
    # 0.3 of 150 / 331 of 24 columns, of 5 levels each.
    moved = np.round((found[:, 4, 11, 0] - int(ramp[4, 11, 0])) / (5 * 24 * 0.3 * 150 / 331), 1)
    for direction in (-1.0, 1.0):
        share = (moved == direction).mean()
        assert share == pytest.approx(1 / 20, abs=4 * np.sqrt(1 / 20 * 19 / 20 / count))


def run(kind, **classifier):
    section = {"num_steps": 1, "log_every": 1, "checkpoint_every": 1}
    content = {
        **{"seed": 0, "dtype": "float32", "optim": {"learning_rate": 1e-3}, "train": section},
        "data": {"train": "", "batch_size": 8, "augment": "none", "workers": 0},
        **{"noise": {"schedule": "cosine"}, "diffusion": {"prediction": "v"}},
        "classifier": classifier,
    }
    return checks.run_config({**content, **kind}, where="test")


@pytest.mark.parametrize(
    ("kind", "options", "why"),
    [
        (TINY_RESNET, {"randaugment_ops": 2}, "2 operations of magnitude 0 change nothing"),
        (TINY_RESNET, {"randaugment_magnitude": 9.0}, "0 operations of magnitude 9 change nothing"),
        (TINY_DENOISER, {"randaugment_ops": 2, "randaugment_magnitude": 9.0}, "a run of diffusion has none"),
        (TINY_RESNET, {"randaugment_ops": 2, "randaugment_magnitude": 31.0}, "less than or equal to 30"),
    ],
)
def test_what_would_change_nothing_is_refused(kind, options, why):
    with pytest.raises(DiffpathError, match=why):
        run(kind, **options)
