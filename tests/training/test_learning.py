"""Does training learn a distribution that is known exactly?

Each class is a mixture of two Gaussians over 8 px images, so its mean and covariance are known in closed form. A small
network is trained through the real task and step, its samples are drawn through the real sampler, and their moments
are compared with the true ones.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax.diffusion import conditioning, timesteps
from diffpath_jax.diffusion.samplers import ddpm, loop, spacing
from diffpath_jax.diffusion.schedule import cosine_schedule, respace, to_eps
from diffpath_jax.networks.classifier_adm import NoisyClassifier, NoisyClassifierConfig
from diffpath_jax.networks.codecs import PixelCodec, to_unit
from diffpath_jax.networks.pure import purify
from diffpath_jax.networks.unet_adm import UNet, UNetConfig
from diffpath_jax.shapes import DenoiserOutput
from diffpath_jax.training.optim import OptimConfig
from diffpath_jax.training.step import init_state, make_train_step
from diffpath_jax.training.tasks.classification import noisy_classification_task
from diffpath_jax.training.tasks.diffusion import DiffusionConfig, diffusion_task
from diffpath_jax.training.tasks.task import NETWORK

SIDE, CLASSES, BATCH, DRAWN, GUIDED = 8, 2, 48, 1024, 128
NULLS = {"label": np.asarray(CLASSES, np.int32)}
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


@dataclass(frozen=True)
class Toy:
    """What was trained.

    Attributes:
        effort: length of training.
        samples: DRAWN of each class, without guidance.
        guided: scale of a classifier's gradient -> GUIDED samples of a network that is not told the class, guided by a
            classifier of noisy images to the classes 0, 1, 0, 1, ...
    """

    effort: Effort
    samples: list[np.ndarray]
    guided: Callable[[float], np.ndarray]


SIZES = {"quick": QUICK, "thorough": THOROUGH}


@pytest.fixture(
    scope="module",
    params=[pytest.param(each, id=name, marks=pytest.mark.full) for name, each in SIZES.items()],
)
def trained(request):
    return train_and_sample(request.param)


ADM = {"channels": 32, "channel_mult": (1, 2), "num_res_blocks": 1, "attention_downsamples": (), "groups": 8}
OPTIM = OptimConfig(learning_rate=2e-3, decay="cosine", warmup_steps=50, ema_decay=0.99, b2=0.99)


def denoiser_network():
    config = UNetConfig(num_classes=CLASSES + 1, **ADM)
    return purify(lambda rngs: UNet(config, dtype=jnp.float32, rngs=rngs))


def classifier_network():
    config = NoisyClassifierConfig(num_classes=CLASSES, head_channels=16, pool_side=4, **ADM)
    return purify(lambda rngs: NoisyClassifier(config, dtype=jnp.float32, rngs=rngs))


def fit(task, steps):
    """Parameters after training on fresh draws."""
    rng = np.random.default_rng(0)
    batch = dict(zip(("image", "label"), draw_real(rng, BATCH), strict=True))
    state = jax.jit(lambda key: init_state(task, OPTIM, key=key, batch=batch, num_steps=steps))(jax.random.key(0))
    step = jax.jit(make_train_step(task, OPTIM, num_steps=steps, log_every=100), donate_argnums=0)
    for _ in range(steps):
        images, labels = draw_real(rng, BATCH)
        state, _ = step(state, {"image": images, "label": labels}, jax.random.key(1))
    return state.ema[NETWORK]


def train_and_sample(effort):
    noise, uniform = cosine_schedule(1000), timesteps.uniform(1000)
    network, critic = denoiser_network(), classifier_network()
    params = fit(
        diffusion_task(network, PixelCodec(), noise, DiffusionConfig("v"), timesteps=uniform, nulls=NULLS),
        effort.steps,
    )
    noisy = noisy_classification_task(critic, PixelCodec(), noise, label_smoothing=0.0)
    critic_params = fit(noisy, effort.steps // 2)
    respaced = respace(noise, spacing.even(noise, 40))
    method, original = ddpm.ddpm(respaced, variance=respaced.betas), jnp.asarray(respaced.timesteps)

    def told(shown):
        def denoiser(x_t, t):
            v, _ = network.apply(params, {}, x_t, original[t], {"label": shown})
            return DenoiserOutput(to_eps("v", respaced, x_t, t, v))

        return denoiser

    def log_likelihood(x_t, t):
        logits, _ = critic.apply(critic_params, {}, x_t, original[t])
        return jax.nn.log_softmax(logits)[jnp.arange(GUIDED), jnp.arange(GUIDED) % CLASSES]

    def draw(denoiser, count):
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(2), i))(jnp.arange(count))
        return loop.sample(denoiser, method, keys=keys, shape=(SIDE, SIDE, 3))[0]

    @jax.jit
    def plain(label):
        return draw(told(jnp.full(DRAWN, label)), DRAWN)

    @jax.jit
    def guided(scale):
        alone = told(jnp.full(GUIDED, CLASSES))
        return draw(
            conditioning.with_classifier(
                alone, lambda x, t: scale * log_likelihood(x, t), respaced, scale=1.0, as_score=True
            ),
            GUIDED,
        )

    return Toy(effort, [np.asarray(plain(label)) for label in range(CLASSES)], lambda scale: np.asarray(guided(scale)))


def true_log_density(x, label):
    """Of a class's mixture, up to a constant: two Gaussians with one covariance."""
    along = SPREAD[label].ravel()
    inverse = np.linalg.inv(np.outer(along, along) + WHITE**2 * np.eye(along.size))
    determinant = np.linalg.slogdet(inverse)[1]
    away = np.asarray(x, np.float64).reshape(len(x), 1, -1) - CENTRES[label].reshape(1, 2, -1)
    return np.logaddexp(*(-0.5 * np.einsum("nki,ij,nkj->kn", away, inverse, away))) + 0.5 * determinant


def test_classifier_guidance_moves_samples_to_the_wanted_class(trained):
    """The share that the true densities (which no network has seen) give to the wanted class rises with the scale."""
    wanted, shares = np.arange(GUIDED) % CLASSES, []
    for scale in (0.0, 0.5, 4.0):
        x = trained.guided(scale)
        found = np.argmax([true_log_density(x, label) for label in range(CLASSES)], axis=0)
        shares.append(float((found == wanted).mean()))
    print(f"wanted class with scale 0, 0.5, 4: {shares}")
    # Unguided it is a coin; each larger scale does better by more than two standard errors of a coin.
    assert abs(shares[0] - 0.5) < 5 * 0.5 / np.sqrt(GUIDED)
    assert (np.diff(shares) > 2 * 0.5 / np.sqrt(GUIDED)).all()
    assert shares[-1] > 0.9


@pytest.mark.parametrize("label", range(CLASSES))
def test_samples_have_the_mean_and_covariance_of_their_class(trained, label):
    effort, samples = trained.effort, trained.samples
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
    effort, samples = trained.effort, trained.samples
    centres = CENTRES[label].reshape(2, -1)
    flat = samples[label].reshape(DRAWN, -1)
    nearest = np.argmin(np.square(flat[:, None] - centres).sum(axis=-1), axis=1)
    # Five standard errors of a fair coin, and what the effort leaves.
    assert abs(nearest.mean() - 0.5) < 5 * 0.5 / np.sqrt(DRAWN) + effort.of_mean / 2


def test_the_bounds_are_those_of_real_data_and_a_little_more():
    """What independent real draws of the same number leave: the floor of the bounds above."""
    images, labels = draw_real(np.random.default_rng(1), CLASSES * DRAWN)
    for label in range(CLASSES):
        of_mean, of_covariance = errors(np.asarray(to_unit(jnp.asarray(images[labels == label]))), label)
        print(f"real, class {label}: mean {of_mean:.3f}, covariance {of_covariance:.3f}")
        assert of_mean < 0.05
        assert of_covariance < 0.075
