"""Does training learn a distribution that is known exactly?

Each class is a mixture of two Gaussians over 8 px images, so its mean and covariance are known in closed form. A small
network is trained through the real task and step, its samples are drawn through the real sampler, and their moments
are compared with the true ones.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax import build, diffusion, samplers, sections
from diffpath_jax.codecs import PixelCodec
from diffpath_jax.networks.pure import purify
from diffpath_jax.networks.unet_adm import UNet, UNetConfig
from diffpath_jax.optim import OptimConfig
from diffpath_jax.task import NETWORK, diffusion_task
from diffpath_jax.train_step import init_state, make_train_step

SIDE, CLASSES, BATCH, DRAWN = 8, 2, 48, 1024
WHITE = 0.08  # standard deviation of independent noise in each pixel and channel


def patterns():
    """For each class two centres, and a direction along which both modes spread."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1) * 2 - 1
    shapes = {"left": -x, "top": -y, "disc": 1 - (x**2 + y**2), "cross": np.abs(x) - np.abs(y)}
    tints = np.array([[0.5, 0.2, 0.4], [0.2, 0.1, 0.4]])
    centres = [[shapes["left"], -shapes["left"]], [shapes["top"], shapes["disc"]]]
    centres = np.array([[0.8 * s[..., None] * tints[c] for s in pair] for c, pair in enumerate(centres)])
    spread = np.array([0.3 * shapes[name][..., None] * tints[c] for c, name in enumerate(("cross", "left"))])
    return centres, spread


CENTRES, SPREAD = patterns()


def draw_real(rng, count):
    """Images as uint8 with their labels."""
    labels, modes = rng.integers(0, CLASSES, count), rng.integers(0, 2, count)
    along = rng.normal(size=(count, 1, 1, 1)) * SPREAD[labels]
    x = CENTRES[labels, modes] + along + WHITE * rng.normal(size=(count, SIDE, SIDE, 3))
    return np.round((x.clip(-1, 1) + 1) * 127.5).astype(np.uint8), labels.astype(np.int32)


def true_moments(label):
    """Mean and covariance of a class, over pixels and channels."""
    centres = CENTRES[label].reshape(2, -1)
    half = (centres[0] - centres[1]) / 2
    along = SPREAD[label].ravel()
    return centres.mean(axis=0), np.outer(half, half) + np.outer(along, along) + WHITE**2 * np.eye(half.size)


def errors(x, label):
    """Root mean square error of the mean in units of the class's spread, and relative error of the covariance."""
    mean, covariance = true_moments(label)
    flat = np.asarray(x, np.float64).reshape(len(x), -1)
    spread = np.sqrt(np.trace(covariance) / len(mean))
    of_mean = np.sqrt(np.square(flat.mean(axis=0) - mean).mean()) / spread
    of_covariance = np.linalg.norm(np.cov(flat, rowvar=False) - covariance) / np.linalg.norm(covariance)
    return of_mean, of_covariance


@dataclass(frozen=True)
class Effort:
    """Length of training, and the errors that are allowed after it."""

    steps: int
    of_mean: float
    of_covariance: float


QUICK, THOROUGH = Effort(200, 0.25, 0.5), Effort(1200, 0.1, 0.15)


@pytest.fixture(
    scope="module",
    params=[pytest.param(QUICK, id="quick"), pytest.param(THOROUGH, id="thorough", marks=pytest.mark.full)],
)
def trained(request):
    """An effort, and DRAWN samples of each class from a network trained that long on fresh draws."""
    return request.param, train_and_sample(request.param.steps)


def train_and_sample(steps):
    network = purify(
        lambda rngs: UNet(
            UNetConfig(
                num_classes=CLASSES + 1,
                channels=32,
                channel_mult=(1, 2),
                num_res_blocks=1,
                attention_downsamples=(),
                groups=8,
            ),
            dtype=jnp.float32,
            rngs=rngs,
        )
    )
    config = sections.DiffusionConfig(schedule="cosine", prediction="v")
    how = build.denoising(config)
    task = diffusion_task(network, PixelCodec(), how, num_classes=CLASSES)
    optim = OptimConfig(learning_rate=2e-3, decay="cosine", warmup_steps=50, ema_decay=0.99, b2=0.99)
    rng = np.random.default_rng(0)
    batch = dict(zip(("image", "label"), draw_real(rng, BATCH), strict=True))
    state = jax.jit(lambda key: init_state(task, optim, key=key, batch=batch, num_steps=steps))(jax.random.key(0))
    step = jax.jit(make_train_step(task, optim, num_steps=steps, log_every=100), donate_argnums=0)
    for _ in range(steps):
        images, labels = draw_real(rng, BATCH)
        state, _ = step(state, {"image": images, "label": labels}, jax.random.key(1))
    respaced = diffusion.respace(how.schedule, diffusion.even_steps(how.schedule.num_steps, 40))
    rule = samplers.ddpm_rule(respaced, variance=respaced.betas)

    def draw(params, labels):
        original = jnp.asarray(respaced.timesteps)

        def denoiser(x_t, t):
            v, _ = network.apply(params, {}, x_t, original[t], labels)
            return diffusion.to_eps("v", respaced, x_t, t, v), None

        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(2), i))(jnp.arange(len(labels)))
        return samplers.sample(denoiser, respaced, rule, keys=keys, shape=(SIDE, SIDE, 3))[0]

    params, draw = state.ema[NETWORK], jax.jit(draw)
    return [np.asarray(draw(params, jnp.full(DRAWN, label))) for label in range(CLASSES)]


@pytest.mark.parametrize("label", range(CLASSES))
def test_samples_have_the_mean_and_covariance_of_their_class(trained, label):
    effort, samples = trained
    of_mean, of_covariance = errors(samples[label], label)
    print(f"class {label}: mean {of_mean:.3f} of the spread, covariance {of_covariance:.3f}")
    assert of_mean < effort.of_mean
    assert of_covariance < effort.of_covariance
    # Of the wrong class they are far from both.
    wrong_mean, wrong_covariance = errors(samples[label], 1 - label)
    assert wrong_mean > 0.3
    assert wrong_covariance > 0.7


@pytest.mark.parametrize("label", range(CLASSES))
def test_samples_come_from_both_modes(trained, label):
    effort, samples = trained
    centres = CENTRES[label].reshape(2, -1)
    flat = samples[label].reshape(DRAWN, -1)
    nearest = np.argmin(np.square(flat[:, None] - centres).sum(axis=-1), axis=1)
    # Five standard errors of a fair coin, and what the effort leaves.
    assert abs(nearest.mean() - 0.5) < 5 * 0.5 / np.sqrt(DRAWN) + effort.of_mean / 2


def test_the_bounds_are_those_of_real_data_and_a_little_more():
    """What independent real draws of the same number leave: the floor of the bounds above."""
    images, labels = draw_real(np.random.default_rng(1), CLASSES * DRAWN)
    for label in range(CLASSES):
        of_mean, of_covariance = errors(np.asarray(PixelCodec().encode(jnp.asarray(images[labels == label]))), label)
        print(f"real, class {label}: mean {of_mean:.3f}, covariance {of_covariance:.3f}")
        assert of_mean < 0.05
        assert of_covariance < 0.075
