"""Losses, schedules and the timestep sampler against ADM's own code: numbers in tests/golden, beside what made them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffpath_jax.diffusion import timesteps
from diffpath_jax.diffusion.schedule import (
    cosine_schedule,
    learned_log_variance,
    linear_schedule,
    posterior_mean,
    q_sample,
    split_variance,
    x0_from_eps,
)
from diffpath_jax.networks.codecs import PixelCodec, to_unit
from diffpath_jax.networks.pure import purify
from diffpath_jax.networks.unet_adm import UNet, UNetConfig
from diffpath_jax.training.tasks import losses
from diffpath_jax.training.tasks.diffusion import DiffusionConfig, diffusion_task
from diffpath_jax.training.tasks.task import NETWORK, TIMESTEPS
from diffpath_jax.weights import from_adm
from tests.golden import weights

LOSSES, SCHEDULES = weights.load("losses.npz"), weights.load("schedules.npz")
SHAPE = (6, 4, 4, 3)
ERROR = np.array([0.1, 1.0, 0.5, 1.0, 1.0, 1.0], np.float32).reshape(-1, 1, 1, 1)
CASES = {
    "linear": (linear_schedule(1000, beta_start=1e-4, beta_end=0.02), np.array([0, 0, 1, 250, 700, 999])),
    "cosine": (cosine_schedule(50), np.array([0, 0, 1, 12, 35, 49])),
}
# Nichol and Dhariwal 2021, equation 16.
BOUND_WEIGHT = 1e-3


def check(ours, reference, limit=1e-5):
    assert weights.relative_error(ours, reference) <= limit


def check_each(ours, reference, limit=1e-4):
    np.testing.assert_allclose(ours, reference, rtol=limit)


def pixels(name, shape):
    return (weights.integers(name, 400, shape) - 72).clip(0, 255).astype(np.uint8)


def fixed(case):
    """Schedule, t, x_0, eps and a network output that depends on nothing."""
    schedule, t = CASES[case]
    eps, error, fraction = (jnp.asarray(weights.normal(name, SHAPE)) for name in ("eps", "error", "fraction"))
    output = jnp.concatenate([eps + ERROR * error, fraction], axis=-1)
    return schedule, jnp.asarray(t), to_unit(jnp.asarray(pixels("pixels", SHAPE))), eps, output


class Fixed(nnx.Module):
    """A network whose one parameter is its output."""

    def __init__(self, rngs):
        self.output = nnx.Param(jnp.zeros((1, *SHAPE[1:3], 6)))

    def __call__(self, x, t, labels, key):
        return self.output[...]


OBJECTIVE = DiffusionConfig("eps", loss="hybrid", bound_weight=BOUND_WEIGHT, label_dropout=0.0)


def always(t):
    """Timesteps that are known beforehand."""
    return timesteps.TimestepSampler(dict, lambda state, key, count: (t, jnp.ones(count)), lambda state, *seen: state)


@pytest.fixture
def noise_is(monkeypatch):
    """Makes the next normal numbers known ones."""
    return lambda eps: monkeypatch.setattr(jax.random, "normal", lambda key, shape: jnp.asarray(eps).reshape(shape))


def state(network_state):
    return {NETWORK: network_state, TIMESTEPS: {}}


@pytest.mark.parametrize(("name", "steps"), [("linear", 1000), ("linear", 50), ("cosine", 1000), ("cosine", 50)])
def test_betas(name, steps):
    ends = {"beta_start": 0.1 / steps, "beta_end": 20 / steps}
    ours = linear_schedule(steps, **ends) if name == "linear" else cosine_schedule(steps)
    np.testing.assert_allclose(ours.betas, SCHEDULES[f"{name}_{steps}"], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("case", CASES)
def test_posterior(case):
    schedule, t, x_0, eps, _ = fixed(case)
    x_t = q_sample(schedule, x_0, t, eps)
    check(x_t, LOSSES[f"{case}/x_t"])
    check(posterior_mean(schedule, x_0, x_t, t), LOSSES[f"{case}/posterior_mean"])
    check(schedule.posterior_variance[t], LOSSES[f"{case}/posterior_variance"], 1e-7)
    check(schedule.posterior_log_variance[t], LOSSES[f"{case}/posterior_log_variance"], 1e-7)


@pytest.mark.parametrize("case", CASES)
def test_step_of_a_learned_variance(case):
    schedule, t, _, _, output = fixed(case)
    x_t = jnp.asarray(LOSSES[f"{case}/x_t"])
    eps, fraction = split_variance(output, 3)
    mean = posterior_mean(schedule, x0_from_eps(schedule, x_t, t, eps), x_t, t)
    check(mean, LOSSES[f"{case}/step_mean"])
    check(learned_log_variance(schedule, fraction, t), LOSSES[f"{case}/step_log_variance"])


@pytest.mark.parametrize("case", CASES)
def test_parts_of_the_loss(case):
    schedule, t, x_0, eps, output = fixed(case)
    check_each(losses.squared_error(output[..., :3], eps), LOSSES[f"{case}/mse"], 1e-5)
    x_t, mean, log_variance = (
        jnp.asarray(LOSSES[f"{case}/{name}"]) for name in ("x_t", "step_mean", "step_log_variance")
    )
    bound = losses.variational_bound(schedule, x_0, x_t, t, mean, log_variance)
    check_each(bound, LOSSES[f"{case}/bound"])


@pytest.mark.parametrize("case", CASES)
def test_loss_of_a_fixed_output(case, noise_is):
    """The task's own loss, image by image, and its gradient: the bound moves the variance only."""
    schedule, t, _, eps, output = fixed(case)
    images = jnp.asarray(pixels("pixels", SHAPE))

    def loss(output, t, image, eps):
        noise_is(eps)
        teach = diffusion_task(
            purify(Fixed),
            PixelCodec(),
            schedule,
            OBJECTIVE,
            timesteps=always(t[None]),
            nulls={"label": np.asarray(1, np.int32)},
        )
        batch = {"image": image[None], "label": jnp.zeros(1, int)}
        value, aux = teach.losses[NETWORK]({NETWORK: {"output": output[None]}}, state({}), batch, jax.random.key(0))
        return value, (value, aux["metrics"]["bound_bits"][0])

    gradient, (values, bound) = jax.jit(jax.vmap(jax.grad(loss, has_aux=True)))(output, t, images, eps)
    check_each(values, LOSSES[f"{case}/loss"])
    check_each(bound, LOSSES[f"{case}/bound"])
    check(gradient / len(t), LOSSES[f"{case}/gradient"])


@pytest.mark.full
def test_loss_through_the_unet(noise_is):
    config = UNetConfig(
        num_classes=4,
        channels=32,
        channel_mult=(1, 2, 2),
        num_res_blocks=1,
        attention_downsamples=(2, 4),
        num_heads=4,
        learn_sigma=True,
    )
    pure = purify(lambda rngs: UNet(config, dtype=jnp.float32, rngs=rngs))
    names = weights.load("adm_networks.npz")["film/names"]
    numbers = {name: np.full(value.shape, i) for i, (name, value) in enumerate(weights.state_dict(names).items())}
    like = jax.eval_shape(pure.init, jax.random.key(0))[0]
    params = jax.tree.map(jnp.asarray, from_adm.adm_params(weights.state_dict(names), like))
    where = from_adm.adm_params(numbers, like)
    noise_is(weights.normal("network eps", (2, 16, 16, 3)))
    teach = diffusion_task(
        pure,
        PixelCodec(),
        CASES["linear"][0],
        OBJECTIVE,
        timesteps=always(jnp.array([0, 400])),
        nulls={"label": np.asarray(3, np.int32)},
    )
    batch = {"image": jnp.asarray(pixels("network pixels", (2, 16, 16, 3))), "label": jnp.array([1, 3])}

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        return teach.losses[NETWORK]({NETWORK: params}, state({}), batch, jax.random.key(0))[0]

    value, gradients = loss(params)
    # The likelihood at t = 0 subtracts distribution functions near 0 and 1: single precision costs it four digits.
    np.testing.assert_allclose(value, LOSSES["network/loss"].mean(), rtol=1e-4)
    norms = np.zeros(len(numbers))
    for place, leaf in zip(jax.tree.leaves(where), jax.tree.leaves(gradients), strict=True):
        norms[place.flat[0]] = np.linalg.norm(np.asarray(leaf, np.float64))
    reference = LOSSES["network/norms"]
    np.testing.assert_allclose(norms, reference, rtol=1e-4, atol=1e-6 * reference.max())


def test_loss_aware_timesteps():
    """Before every timestep has its history, at that moment, and after."""
    t = weights.integers("drawn", 20, (60, 8))
    values = np.exp(weights.normal("losses", (60, 8))) / (1 + t)
    sampler = timesteps.loss_aware(20)
    learnt, update = sampler.init(), jax.jit(sampler.update)
    expected = dict(zip(LOSSES["resampler/batches"].tolist(), LOSSES["resampler/p"], strict=True))
    for batch in range(60):
        learnt = update(learnt, jnp.asarray(t[batch]), jnp.asarray(values[batch]))
        if batch + 1 in expected:
            drawn, factor = sampler.draw(learnt, jax.random.key(batch), 5000)
            p = np.zeros(20)
            p[np.asarray(drawn)] = 1 / (20 * np.asarray(factor))
            check(p, expected[batch + 1])
            often = np.bincount(np.asarray(drawn), minlength=20) / 5000
            np.testing.assert_allclose(often, p, atol=5 * np.sqrt(p.max() / 5000))
