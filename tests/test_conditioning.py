import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax import conditioning


def predict(x, t, labels):
    return x * (labels.reshape(-1, 1, 1, 1) + 1.0) + t.reshape(-1, 1, 1, 1)


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


def test_guidance_of_zero_is_the_conditional_model():
    guided = conditioning.with_guidance(predict, LABELS, weight=0.0, num_classes=2)
    np.testing.assert_array_equal(guided(X, TIME), predict(X, TIME, LABELS))


def test_guidance_is_two_forwards_in_one():
    calls = []

    def counted(x, t, labels):
        calls.append(x.shape[0])
        return predict(x, t, labels)

    guided = conditioning.with_guidance(counted, LABELS, weight=1.5, num_classes=2)(X, TIME)
    expected = 2.5 * predict(X, TIME, LABELS) - 1.5 * predict(X, TIME, jnp.full(3, 2))
    np.testing.assert_allclose(guided, expected, rtol=1e-5)
    assert calls == [6]


def test_negative_guidance_is_refused():
    with pytest.raises(ValueError, match="0 or more"):
        conditioning.with_guidance(predict, LABELS, weight=-0.1, num_classes=2)
