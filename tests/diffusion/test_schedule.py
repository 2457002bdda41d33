import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax.diffusion.schedule import (
    cosine_schedule,
    linear_schedule,
    posterior_mean,
    q_sample,
    respace,
    scaled_linear_schedule,
    to_eps,
    training_target,
    x0_from_eps,
)
from diffpath_jax.networks.layers import fourier_features

T = 1000
LINEAR = linear_schedule(T, beta_start=1e-4, beta_end=2e-2)


# Float64 values computed independently of this project.
@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (LINEAR, (0.9999, 0.9997800921, 0.07779665837, 4.035829765e-5)),
        (
            linear_schedule(T, beta_start=1e-4, beta_end=1e-2),
            (0.9999, 0.9997901011, 0.2743088881, 6.301749772e-3),
        ),
        (
            scaled_linear_schedule(T, beta_start=0.0015, beta_end=0.0195),
            (0.9985, 0.9969944271, 0.1149220009, 1.423039752e-4),
        ),
    ],
)
def test_alpha_bar(schedule, expected):
    np.testing.assert_allclose(schedule.alpha_bar[[0, 1, 500, 999]], expected, rtol=1e-9)


def test_cosine_schedule():
    schedule = cosine_schedule(T)
    np.testing.assert_allclose(schedule.alpha_bar[500], 0.492285172, rtol=1e-8)
    np.testing.assert_allclose(schedule.betas[[0, 999]], (4.12842248e-5, 0.999), rtol=1e-8)


def test_posterior_variance():
    np.testing.assert_allclose(LINEAR.posterior_variance[1], 5.45318766e-5, rtol=1e-8)
    assert LINEAR.posterior_variance[0] == 0
    np.testing.assert_allclose(LINEAR.posterior_log_variance[:2], [-9.816725, -9.816725], atol=1e-6)


@pytest.mark.parametrize("count", [1, 10, 250, 1000])
def test_respacing_keeps_alpha_bar(count):
    kept = np.linspace(0, T - 1, count).astype(int)
    respaced = respace(LINEAR, kept)
    np.testing.assert_allclose(respaced.alpha_bar, LINEAR.alpha_bar[kept], rtol=1e-10)
    assert respaced.timesteps.tolist() == kept.tolist()


@pytest.mark.parametrize("kept", [[], [3, 2], [0, 0], [0, 1000], [-1, 5]])
def test_respacing_refuses(kept):
    with pytest.raises(ValueError, match="kept steps"):
        respace(LINEAR, np.array(kept, int))


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_every_prediction_gives_eps_and_x0_back(prediction):
    keys = jax.random.split(jax.random.key(0), 3)
    x_0, eps = (jax.random.normal(key, (4, 8, 8, 3)) for key in keys[:2])
    t = jnp.array([1, 100, 500, 900])
    x_t = q_sample(LINEAR, x_0, t, eps)
    target = training_target(prediction, LINEAR, x_0, t, eps)
    found = to_eps(prediction, LINEAR, x_t, t, target)
    np.testing.assert_allclose(found, eps, atol=1e-3 if prediction == "x0" else 1e-5)
    # x_0 from eps divides by sqrt(alpha_bar), 0.017 at t = 900: float32 loses two digits there.
    np.testing.assert_allclose(x0_from_eps(LINEAR, x_t, t, eps), x_0, atol=1e-4)


def test_q_sample_moments():
    """Equation 2 against its closed form: mean sqrt(abar) x_0, variance 1 - abar."""
    x_0 = jnp.full((1, 200, 200, 3), 0.5)
    x_t = q_sample(LINEAR, x_0, jnp.array([300]), jax.random.normal(jax.random.key(1), x_0.shape))
    abar = LINEAR.alpha_bar[300]
    error = 5 / np.sqrt(x_0.size)
    assert abs(float(x_t.mean()) - 0.5 * np.sqrt(abar)) < error
    assert abs(float(x_t.var()) - (1 - abar)) < 2 * error


def test_posterior_mean_is_bayes_rule():
    """Equation 3 against the product of the two Gaussians it comes from, in float64."""
    t = 400
    beta, before = LINEAR.betas[t], LINEAR.alpha_bar_prev[t]
    x_0, x_t = 0.3, -0.8
    precision = (1 - beta) / beta + 1 / (1 - before)
    mean = (np.sqrt(1 - beta) * x_t / beta + np.sqrt(before) * x_0 / (1 - before)) / precision
    found = posterior_mean(LINEAR, jnp.full((1, 1, 1, 1), x_0), jnp.full((1, 1, 1, 1), x_t), jnp.array([t]))
    np.testing.assert_allclose(float(found.ravel()[0]), mean, rtol=1e-5)
    np.testing.assert_allclose(LINEAR.posterior_variance[t], 1 / precision, rtol=1e-10)


def test_bad_betas_are_refused():
    with pytest.raises(ValueError, match="beta"):
        linear_schedule(10, beta_start=0.0, beta_end=0.5)


def test_fourier_features():
    features = np.asarray(fourier_features(jnp.arange(128), 64))[23:26, 47:50]
    expected = [[0.3019, 0.2280, 0.1716], [0.3146, 0.2377, 0.1790], [0.3272, 0.2474, 0.1864]]
    np.testing.assert_allclose(features, expected, atol=5e-5)
