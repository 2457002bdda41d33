import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax.diffusion import conditioning, eps_scaling
from diffpath_jax.diffusion.schedule import linear_schedule
from diffpath_jax.shapes import DenoiserOutput


def predict(x, t, conditions):
    """A prediction, and a learned variance."""
    labels = conditions["label"]
    return x * (labels.reshape(-1, 1, 1, 1) + 1.0) + t.reshape(-1, 1, 1, 1), 0.1 * x + labels.reshape(-1, 1, 1, 1)


X = jax.random.normal(jax.random.key(0), (3, 2, 2, 3))
TIME = jnp.array([1, 2, 3])
LABELS = {"label": jnp.array([0, 1, 0])}
NULLS = {"label": np.asarray(2, np.int32)}


def test_labels_are_dropped_one_by_one():
    labels = jnp.zeros(20_000, jnp.int32)
    dropped = conditioning.drop(jax.random.key(0), {"label": labels}, {"label": np.asarray(5, np.int32)}, rate=0.1)[
        "label"
    ]
    assert set(np.unique(dropped).tolist()) == {0, 5}
    share = float((dropped == 5).mean())
    assert abs(share - 0.1) < 5 * np.sqrt(0.1 * 0.9 / 20_000)
    # Independent, not by blocks: neighbours agree as often as independent draws do.
    agree = float((dropped[1:] == dropped[:-1]).mean())
    assert abs(agree - (0.9**2 + 0.1**2)) < 0.02


def test_labels_can_be_dropped_in_groups():
    labels = jnp.arange(20) % 5
    dropped = conditioning.drop(
        jax.random.key(1), {"label": labels}, {"label": np.asarray(5, np.int32)}, rate=0.5, group=8
    )["label"]
    lost = np.asarray(dropped == 5)
    groups = [lost[:8], lost[8:16], lost[16:]]
    assert all(group.all() or not group.any() for group in groups)
    assert lost.any() and not lost.all()


def test_all_conditions_of_an_image_are_dropped_together():
    """A vector and a number beside the label, each to its own null value; the label's draw does not depend on them."""
    count = 64
    site, size = jax.random.normal(jax.random.key(2), (count, 3)), jnp.arange(count, dtype=jnp.float32)
    alone = {"label": jnp.zeros(count, jnp.int32)}
    nulls = {"label": np.asarray(5, np.int32), "site": np.zeros(3, np.float32), "size": np.asarray(np.nan, np.float32)}
    dropped = conditioning.drop(jax.random.key(0), {**alone, "site": site, "size": size}, nulls, rate=0.5)
    lost = np.asarray(dropped["label"] == 5)
    assert lost.any() and not lost.all()
    np.testing.assert_array_equal(dropped["site"], np.where(lost[:, None], 0, site))
    np.testing.assert_array_equal(dropped["size"], np.where(lost, np.nan, size))
    np.testing.assert_array_equal(
        dropped["label"], conditioning.drop(jax.random.key(0), alone, nulls, rate=0.5)["label"]
    )
    assert conditioning.drop(jax.random.key(0), {}, {}, rate=0.5) == {}


def test_guidance_of_zero_is_the_conditional_model():
    guided = conditioning.with_guidance(predict, LABELS, NULLS, weight=0.0)
    for found, expected in zip(guided(X, TIME), predict(X, TIME, LABELS), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_guidance_is_two_forwards_in_one():
    calls = []

    def counted(x, t, conditions):
        calls.append(x.shape[0])
        return predict(x, t, conditions)

    guided, variance = conditioning.with_guidance(counted, LABELS, NULLS, weight=1.5)(X, TIME)
    conditional, learned = predict(X, TIME, LABELS)
    expected = 2.5 * conditional - 1.5 * predict(X, TIME, {"label": jnp.full(3, 2)})[0]
    np.testing.assert_allclose(guided, expected, rtol=1e-5)
    assert calls == [6]
    # Guidance moves the prediction; the variance is that of the conditional model.
    np.testing.assert_array_equal(variance, learned)


def test_negative_guidance_is_refused():
    with pytest.raises(ValueError, match="0 or more"):
        conditioning.with_guidance(predict, LABELS, NULLS, weight=-0.1)


def test_guidance_in_an_interval_asks_once_outside_it():
    """At t = 2 alone the weight applies; where no image is guided, the network sees the batch and not its double."""
    active = np.array([False, False, True, False])
    guided = conditioning.with_guidance(predict, LABELS, NULLS, weight=1.5, active=active)
    found, variance = guided(X, TIME)
    conditional, learned = predict(X, TIME, LABELS)
    everywhere, _ = conditioning.with_guidance(predict, LABELS, NULLS, weight=1.5)(X, TIME)
    np.testing.assert_allclose(found[1], everywhere[1], rtol=1e-5)
    np.testing.assert_allclose(found[jnp.array([0, 2])], conditional[jnp.array([0, 2])], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(variance, learned)

    sizes = []

    def counted(x, t, conditions):
        jax.debug.callback(lambda: sizes.append(x.shape[0]))
        return predict(x, t, conditions)

    guided = jax.jit(conditioning.with_guidance(counted, LABELS, NULLS, weight=1.5, active=active))
    for t, expected in ((1, 3), (2, 6), (3, 3)):
        sizes.clear()
        jax.block_until_ready(guided(X, jnp.full(3, t)))
        jax.effects_barrier()
        assert sizes == [expected]


def weaker(x, t, conditions):
    """Another prediction, of a network without a learned variance."""
    return 0.5 * x - conditions["label"].reshape(-1, 1, 1, 1), None


def test_autoguidance_of_zero_or_by_the_model_itself_changes_nothing():
    """Alone and under class guidance."""
    assert conditioning.with_autoguidance(predict, weaker, weight=0.0) is predict
    by_itself = conditioning.with_autoguidance(predict, predict, weight=1.7)
    for weight in (0.0, 1.5):
        found = conditioning.with_guidance(by_itself, LABELS, NULLS, weight=weight)(X, TIME)
        expected = conditioning.with_guidance(predict, LABELS, NULLS, weight=weight)(X, TIME)
        for own, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(own, other)
    with pytest.raises(ValueError, match="0 or more"):
        conditioning.with_autoguidance(predict, weaker, weight=-0.1)


def test_autoguidance_under_class_guidance_is_that_of_both_guided_networks():
    w, c = 0.8, 1.5
    both = conditioning.with_autoguidance(predict, weaker, weight=w)
    found, variance = conditioning.with_guidance(both, LABELS, NULLS, weight=c)(X, TIME)
    own, learned = conditioning.with_guidance(predict, LABELS, NULLS, weight=c)(X, TIME)
    other, _ = conditioning.with_guidance(weaker, LABELS, NULLS, weight=c)(X, TIME)
    np.testing.assert_allclose(found, (1 + w) * own - w * other, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(variance, learned)


def test_a_guide_is_asked_in_its_interval_alone():
    asked, active = [], np.array([False, False, True, False])

    def counted(x, t, conditions):
        jax.debug.callback(lambda: asked.append(x.shape[0]))
        return weaker(x, t, conditions)

    guided = jax.jit(conditioning.with_autoguidance(predict, counted, weight=2.0, active=active))
    for times, calls in ((TIME, [3]), (jnp.full(3, 1), [])):
        asked.clear()
        found, _ = guided(X, times, LABELS)
        jax.effects_barrier()
        assert asked == calls
        w = jnp.where(times == 2, 2.0, 0.0).reshape(-1, 1, 1, 1)
        own, other = predict(X, times, LABELS)[0], weaker(X, times, LABELS)[0]
        np.testing.assert_allclose(found, own + w * (own - other), rtol=1e-5)


SCHEDULE = linear_schedule(1000, beta_start=1e-4, beta_end=2e-2)


def denoise(x, t):
    return DenoiserOutput(0.3 * x, 0.1 * x)


def log_likelihood(x, t):
    """Of a Gaussian around 1: its gradient is 1 - x."""
    return -0.5 * jnp.square(x - 1).sum(axis=(1, 2, 3))


def test_a_classifier_moves_eps_by_its_gradient():
    t = jnp.array([10, 500, 999])
    found = conditioning.with_classifier(denoise, log_likelihood, SCHEDULE, scale=2.0, as_score=False)(X, t)
    noise = np.sqrt(1 - SCHEDULE.alpha_bar[t]).reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(found.eps, 0.3 * X - noise * 2.0 * (1 - X), rtol=1e-4, atol=1e-6)
    assert found.score is None
    np.testing.assert_array_equal(found.variance, 0.1 * X)


def test_for_ancestral_steps_it_is_handed_on_and_eps_is_left_alone():
    found = conditioning.with_classifier(denoise, log_likelihood, SCHEDULE, scale=2.0, as_score=True)(X, TIME)
    np.testing.assert_allclose(found.score, 2.0 * (1 - X), rtol=1e-5)
    np.testing.assert_array_equal(found.eps, 0.3 * X)


def test_eps_is_scaled_once_after_all_guidance():
    """(eps of both guidances) / lambda: neither is scaled twice, nor left out."""
    t, lam = jnp.array([10, 500, 999]), 1.25
    guided = conditioning.with_classifier(denoise, log_likelihood, SCHEDULE, scale=2.0, as_score=False)
    scaled = eps_scaling.scale_eps(guided, offset=lam)(X, t)
    np.testing.assert_allclose(scaled.eps, guided(X, t).eps / lam, rtol=1e-6)


def test_a_classifier_of_scale_zero_changes_nothing():
    assert conditioning.with_classifier(denoise, log_likelihood, SCHEDULE, scale=0.0, as_score=True) is denoise
    with pytest.raises(ValueError, match="0 or more"):
        conditioning.with_classifier(denoise, log_likelihood, SCHEDULE, scale=-1.0, as_score=True)
