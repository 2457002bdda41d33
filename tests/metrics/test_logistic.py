"""Logistic regression against closed forms, finite differences and its own condition of optimality."""

import numpy as np
import pytest

from diffpath_jax.metrics import logistic


def test_the_gradient_is_that_of_the_loss():
    rng = np.random.default_rng(0)
    x, labels, values = rng.normal(size=(20, 3)), rng.integers(0, 4, 20), rng.normal(size=(4, 4))
    _, gradient = logistic.loss(values, x, labels, l2=0.3)
    for index in range(values.size):
        step = np.zeros(values.size)
        step[index] = 1e-6
        up, down = (logistic.loss((values.ravel() + s * step).reshape(4, 4), x, labels, l2=0.3)[0] for s in (1, -1))
        assert gradient[index] == pytest.approx((up - down) / 2e-6, abs=1e-7)


def test_a_feature_of_two_values_has_the_known_answer():
    """Without a penalty to speak of, the shares of each value come back: logit = log(share / (1 - share))."""
    x = np.repeat([[0.0], [1.0]], [40, 60], axis=0)
    labels = np.repeat([0, 1, 0, 1], [30, 10, 15, 45])
    fitted = logistic.fit(x, labels, 2, l2=1e-9)
    logits = fitted.logits(np.array([[0.0], [1.0]]))
    assert logits[:, 1] - logits[:, 0] == pytest.approx(np.log([10 / 30, 45 / 15]), abs=1e-4)


def test_the_end_is_the_least_loss():
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(200, 5)) * [1, 10, 0.1, 3, 0], rng.integers(0, 3, 200)
    fitted = logistic.fit(x, labels, 3, l2=0.01)
    standardised = (x - fitted.mean) / fitted.scale
    values = np.concatenate([fitted.weight, fitted.bias[None]])
    best, gradient = logistic.loss(values, standardised, labels, l2=0.01)
    assert np.abs(gradient).max() < 1e-5
    for _ in range(20):
        assert logistic.loss(values + rng.normal(size=values.shape) * 0.01, standardised, labels, l2=0.01)[0] > best


def test_a_strong_penalty_leaves_the_shares_of_the_classes():
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1, 2], [10, 30, 60])
    fitted = logistic.fit(rng.normal(size=(100, 4)), labels, 3, l2=1e6)
    shares = np.exp(fitted.bias) / np.exp(fitted.bias).sum()
    assert shares == pytest.approx([0.1, 0.3, 0.6], abs=1e-4)
