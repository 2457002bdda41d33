"""Losses against closed forms, numerical integration and the papers' own statements."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from diffpath_jax.diffusion import timesteps
from diffpath_jax.diffusion.schedule import at, eps_from_x0, linear_schedule, posterior_mean, q_sample, v_from_x0_eps
from diffpath_jax.networks.codecs import PixelCodec
from diffpath_jax.networks.pure import PureNetwork
from diffpath_jax.training.tasks import losses
from diffpath_jax.training.tasks.diffusion import DiffusionConfig, Noised, diffusion_task, image_losses
from diffpath_jax.training.tasks.task import NETWORK

LINEAR = linear_schedule(1000, beta_start=1e-4, beta_end=2e-2)


def full(value):
    return jnp.full((1, 1, 1, 1), value, jnp.float32)


def test_kl_is_the_integral_of_its_definition():
    (m1, s1), (m2, s2) = (0.3, 0.7), (-0.2, 1.4)
    x = np.linspace(-12, 12, 200_001)
    p, q = scipy.stats.norm(m1, s1), scipy.stats.norm(m2, s2)
    expected = np.trapezoid(p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), x)
    found = losses.normal_kl(full(m1), full(2 * np.log(s1)), full(m2), full(2 * np.log(s2)))
    np.testing.assert_allclose(float(found.squeeze()), expected, rtol=1e-5)


def test_probabilities_of_the_256_levels_add_up_to_one():
    x = jnp.asarray(np.arange(256) / 127.5 - 1, jnp.float32).reshape(1, 16, 16, 1)
    for mean, scale in ((0.0, 0.3), (-0.9, 0.1), (0.4, 0.02)):
        log_p = losses.discretised_log_likelihood(x, jnp.full_like(x, mean), jnp.full_like(x, np.log(scale)))
        np.testing.assert_allclose(float(jnp.exp(log_p).sum()), 1.0, atol=1e-4)
        # Page's approximation is within 2e-4 of the normal distribution function.
        inner = scipy.stats.norm(mean, scale)
        level = np.asarray(x).ravel()[100]
        exact = inner.cdf(level + 1 / 255) - inner.cdf(level - 1 / 255)
        np.testing.assert_allclose(np.exp(float(log_p.ravel()[100])), exact, atol=4e-4)


def test_the_bound_is_zero_for_the_posterior_itself_and_grows_with_the_distance():
    x_0, x_t = jax.random.normal(jax.random.key(0), (2, 3, 4, 4, 3))
    t = jnp.array([7, 500, 999])
    mean = posterior_mean(LINEAR, x_0, x_t, t)
    log_variance = jnp.broadcast_to(at(LINEAR.posterior_log_variance, t, 4), x_t.shape)
    np.testing.assert_allclose(losses.variational_bound(LINEAR, x_0, x_t, t, mean, log_variance), 0, atol=1e-6)
    shift = 0.1
    moved = losses.variational_bound(LINEAR, x_0, x_t, t, mean + shift, log_variance)
    expected = 0.5 * shift**2 / LINEAR.posterior_variance[np.asarray(t)] / np.log(2)
    np.testing.assert_allclose(moved, expected, rtol=1e-4)


@pytest.mark.parametrize(("prediction", "power"), [("eps", -1), ("x0", 0), ("v", None)])
def test_min_snr_is_one_weight_on_x0_in_three_forms(prediction, power):
    """The squared errors of eps, x_0 and v of the same estimate differ by SNR and SNR + 1."""
    snr = LINEAR.alpha_bar / (1 - LINEAR.alpha_bar)
    weight = losses.min_snr_weight(prediction, LINEAR, gamma=5.0)
    to_x0 = {"eps": snr, "x0": 1.0, "v": snr + 1}[prediction]
    np.testing.assert_allclose(weight * to_x0, np.minimum(snr, 5.0), rtol=1e-12)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_sigmoid_weighting_is_one_weight_on_eps_in_three_forms(prediction):
    snr = LINEAR.alpha_bar / (1 - LINEAR.alpha_bar)
    weight = losses.sigmoid_weight(prediction, LINEAR, bias=2.0)
    to_eps = {"eps": 1.0, "x0": 1 / snr, "v": (snr + 1) / snr}[prediction]
    np.testing.assert_allclose(weight * to_eps, 1 / (1 + np.exp(np.log(snr) - 2.0)), rtol=1e-10)


def test_a_weighted_loss_is_the_weight_times_the_squared_error():
    """Of the objective as a config names it, against the plain one at the same timesteps."""
    key = jax.random.split(jax.random.key(2), 3)
    x_0, eps, output = (jax.random.normal(k, (3, 4, 4, 3)) for k in key)
    t = jnp.array([10, 400, 990])
    noised = Noised(x_0, t, eps, q_sample(LINEAR, x_0, t, eps))
    plain, _ = image_losses(DiffusionConfig("v"), LINEAR, noised, output)
    weighted, _ = image_losses(DiffusionConfig("v", loss="sigmoid", sigmoid_bias=1.0), LINEAR, noised, output)
    weight = losses.sigmoid_weight("v", LINEAR, bias=1.0)[np.asarray(t)]
    np.testing.assert_allclose(weighted, weight * plain, rtol=1e-5)


def test_errors_of_the_three_predictions_agree_with_that():
    key = jax.random.split(jax.random.key(1), 3)
    x_0, eps, guess = (jax.random.normal(k, (1, 4, 4, 3)) for k in key)
    t = jnp.array([300])
    x_t = q_sample(LINEAR, x_0, t, eps)
    snr = (LINEAR.alpha_bar / (1 - LINEAR.alpha_bar))[300]
    guess_eps = eps_from_x0(LINEAR, x_t, t, guess)
    of_x0 = float(losses.squared_error(guess, x_0)[0])
    of_eps = float(losses.squared_error(guess_eps, eps)[0])
    of_v = float(
        losses.squared_error(v_from_x0_eps(LINEAR, guess, t, guess_eps), v_from_x0_eps(LINEAR, x_0, t, eps))[0]
    )
    np.testing.assert_allclose([of_eps, of_v], [snr * of_x0, (snr + 1) * of_x0], rtol=1e-4)


class Probe(PureNetwork):
    """A network that shows what it is given."""

    def __init__(self):
        super().__init__(make=lambda rngs: None, graphdef=None, shapes=({}, {}))
        object.__setattr__(self, "seen", {})

    def init(self, key):
        return {"w": jnp.zeros(())}, {}

    def apply(self, params, state, x_t, t, conditions, key):
        self.seen.update(x_t=x_t, t=t, labels=conditions["label"])
        return x_t + params["w"], state


def run_task(count=4096, **objective):
    probe, schedule = Probe(), linear_schedule(1000, beta_start=1e-4, beta_end=2e-2)
    made = diffusion_task(
        probe,
        PixelCodec(),
        schedule,
        DiffusionConfig("eps", **objective),
        timesteps=timesteps.uniform(1000),
        nulls={"label": np.asarray(3, np.int32)},
    )
    params, state = made.init(jax.random.key(0))
    # Grey images are 0.5 / 127.5 in model space: what is seen is noise.
    batch = {"image": jnp.full((count, 4, 4, 3), 128, jnp.uint8), "label": jnp.zeros(count, jnp.int32)}
    loss, aux = made.losses[NETWORK](params, state, batch, jax.random.key(1))
    return probe.seen, loss, aux


def test_input_perturbation_widens_what_is_seen_but_not_what_is_asked_for():
    """x_t has variance (1 - abar)(1 + gamma^2); the target stays eps: predicting x_t shows both."""
    gamma = 0.5
    seen, loss, _ = run_task(input_perturbation=gamma)
    scale = np.sqrt(1 - LINEAR.alpha_bar)[np.asarray(seen["t"])].reshape(-1, 1, 1, 1)
    noise = (np.asarray(seen["x_t"]) - 0.5 / 127.5 * np.sqrt(1 - scale**2)) / scale
    np.testing.assert_allclose(noise.var(), 1 + gamma**2, rtol=0.02)
    # x_t - eps = (scale - 1) eps + scale gamma xi, with eps and xi independent.
    expected = ((scale - 1) ** 2 + (scale * gamma) ** 2).mean()
    np.testing.assert_allclose(float(loss), expected, rtol=0.05)


def test_uniform_timesteps_cover_the_schedule_evenly():
    seen, _, _ = run_task()
    counts = np.bincount(np.asarray(seen["t"]) // 100, minlength=10)
    assert len(counts) == 10
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_loss_aware_timesteps_stay_unbiased():
    """After warming up, the weighted mean of any function of t is its uniform mean."""
    sampler = timesteps.loss_aware(20, history=2)
    state = sampler.init()
    t = jnp.tile(jnp.arange(20), 2)
    state = sampler.update(state, t, 0.1 + t.astype(jnp.float32))
    drawn, weight = sampler.draw(state, jax.random.key(0), 200_000)
    assert float(drawn.mean()) > 12  # large losses are drawn more often
    np.testing.assert_allclose(float((weight * drawn).mean()), 9.5, rtol=0.02)
    np.testing.assert_allclose(float(weight.mean()), 1.0, rtol=0.02)


def test_quarters_of_the_noise_have_their_own_line():
    seen, _, aux = run_task()
    rows = {name: np.asarray(value) for name, value in aux["metrics"].items() if name.startswith("loss_noise")}
    assert len(rows) == 4
    assert sum(row[1] for row in rows.values()) == len(seen["t"])


def test_labels_of_a_batch_can_be_dropped_together():
    seen, _, _ = run_task(label_dropout=0.5, label_dropout_group=8)
    groups = (np.asarray(seen["labels"]) == 3).reshape(-1, 8)
    assert (groups.all(axis=1) | ~groups.any(axis=1)).all()
    assert 0.4 < groups.mean() < 0.6
