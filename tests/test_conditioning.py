import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax import conditioning


def predict(x, t, labels):
    """A prediction, and a learned variance."""
    return x * (labels.reshape(-1, 1, 1, 1) + 1.0) + t.reshape(-1, 1, 1, 1), 0.1 * x + labels.reshape(-1, 1, 1, 1)


X = jax.random.normal(jax.random.key(0), (3, 2, 2, 3))
TIME = jnp.array([1, 2, 3])
LABELS = jnp.array([0, 1, 0])


def test_labels_are_dropped_one_by_one():
    labels = jnp.zeros(20_000, jnp.int32)
    dropped = conditioning.drop_labels(jax.random.key(0), labels, rate=0.1, num_classes=5)
    assert set(np.unique(dropped).tolist()) == {0, 5}
    share = float((dropped == 5).mean())
    assert abs(share - 0.1) < 5 * np.sqrt(0.1 * 0.9 / 20_000)
    # Independent, not by blocks: neighbours agree as often as independent draws do.
    agree = float((dropped[1:] == dropped[:-1]).mean())
    assert abs(agree - (0.9**2 + 0.1**2)) < 0.02


def test_labels_can_be_dropped_in_groups():
    labels = jnp.arange(20) % 5
    dropped = conditioning.drop_labels(jax.random.key(1), labels, rate=0.5, num_classes=5, group=8)
    lost = np.asarray(dropped == 5)
    groups = [lost[:8], lost[8:16], lost[16:]]
    assert all(group.all() or not group.any() for group in groups)
    assert lost.any() and not lost.all()


def test_guidance_of_zero_is_the_conditional_model():
    guided = conditioning.with_guidance(predict, LABELS, weight=0.0, num_classes=2)
    for found, expected in zip(guided(X, TIME), predict(X, TIME, LABELS), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_guidance_is_two_forwards_in_one():
    calls = []

    def counted(x, t, labels):
        calls.append(x.shape[0])
        return predict(x, t, labels)

    guided, variance = conditioning.with_guidance(counted, LABELS, weight=1.5, num_classes=2)(X, TIME)
    conditional, learned = predict(X, TIME, LABELS)
    expected = 2.5 * conditional - 1.5 * predict(X, TIME, jnp.full(3, 2))[0]
    np.testing.assert_allclose(guided, expected, rtol=1e-5)
    assert calls == [6]
    # Guidance moves the prediction; the variance is that of the conditional model.
    np.testing.assert_array_equal(variance, learned)


def test_negative_guidance_is_refused():
    with pytest.raises(ValueError, match="0 or more"):
        conditioning.with_guidance(predict, LABELS, weight=-0.1, num_classes=2)
