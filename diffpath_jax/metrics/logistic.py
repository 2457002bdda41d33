"""Multinomial logistic regression on standardised features: the linear probe by which features are judged.

Least of ``mean_i -log softmax(W x_i + b)[y_i] + l2 / 2 ||W||^2`` over W and b; the loss is convex, so that any solver
that ends finds the same one. Bishop 2006, section 4.3.4.
"""

from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.special
from jaxtyping import Float, Int

MAX_ITERATIONS = 2000
# Largest entry of the gradient at the end.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Linear:
    """A linear classifier of features.

    Attributes:
        weight: (d, classes), for standardised features.
        bias: (classes,).
        mean: (d,), taken off the features.
        scale: (d,), that they are divided by.
    """

    weight: Float[np.ndarray, "d classes"]
    bias: Float[np.ndarray, "classes"]
    mean: Float[np.ndarray, "d"]
    scale: Float[np.ndarray, "d"]

    def logits(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n classes"]:
        """Returns the logits of features."""
        return (np.asarray(features, np.float64) - self.mean) / self.scale @ self.weight + self.bias


def fit(features: Float[np.ndarray, "n d"], labels: Int[np.ndarray, "n"], num_classes: int, *, l2: float) -> Linear:
    """Returns the classifier with the least loss.

    Args:
        features: of the training images; they are standardised, and those that never differ are left as they are.
        labels: their classes.
        num_classes: number of classes, some of which may have no image.
        l2: weight of the penalty.
    """
    x = np.asarray(features, np.float64)
    mean, spread = x.mean(axis=0), x.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    x = (x - mean) / scale
    shape = x.shape[1] + 1, num_classes
    end = scipy.optimize.minimize(
        lambda values: loss(values.reshape(shape), x, labels, l2=l2),
        np.zeros(shape[0] * shape[1]),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": MAX_ITERATIONS, "maxfun": 2 * MAX_ITERATIONS, "gtol": TOLERANCE, "ftol": 0.0},
    )
    values = end.x.reshape(shape)
    return Linear(values[:-1], values[-1], mean, scale)


def loss(
    values: Float[np.ndarray, "d_and_1 classes"],
    x: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, "n"],
    *,
    l2: float,
) -> tuple[float, Float[np.ndarray, "all"]]:
    """Returns the loss of weights and (last row) biases, and its gradient, flat."""
    logits = x @ values[:-1] + values[-1]
    log_shares = logits - scipy.special.logsumexp(logits, axis=1, keepdims=True)
    wrong = np.exp(log_shares)
    wrong[np.arange(len(x)), labels] -= 1
    gradient = np.concatenate([x.T @ wrong / len(x) + l2 * values[:-1], wrong.mean(axis=0, keepdims=True)])
    value = -log_shares[np.arange(len(x)), labels].mean() + l2 / 2 * np.sum(values[:-1] ** 2)
    return float(value), gradient.ravel()
