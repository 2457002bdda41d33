"""Training losses, one value an image, and their sums for the logs."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from diffpath_jax.diffusion.schedule import NoiseSchedule, Prediction, Table, at, posterior_mean
from diffpath_jax.shapes import Images, Labels, Timesteps, Weighted

NOISE_LEVELS = 4
# A level's probability is taken to be at least this; beyond so many standard deviations nothing changes any more.
_LEAST_PROBABILITY, _FAR = 1e-12, 50.0


def squared_error(output: Images, target: Images) -> Float[Array, "b"]:
    """Returns the mean squared error of each image."""
    return jnp.square(output - target).mean(axis=tuple(range(1, output.ndim)))


def min_snr_weight(prediction: Prediction, schedule: NoiseSchedule, *, gamma: float) -> Table:
    """Returns the weight of the squared error at each t (Hang et al. 2023, "Min-SNR weighting", section 3.4).

    With SNR = abar / (1 - abar): ``min(SNR, gamma)`` on x_0, which is ``min(SNR, gamma) / SNR`` on eps and
    ``min(SNR, gamma) / (SNR + 1)`` on v.
    """
    snr = schedule.alpha_bar / (1 - schedule.alpha_bar)
    return _from_x0(np.minimum(snr, gamma), prediction, snr)


def sigmoid_weight(prediction: Prediction, schedule: NoiseSchedule, *, bias: float) -> Table:
    """Returns the weight of the squared error at each t (Kingma and Gao 2023, "Understanding diffusion objectives").

    ``sigmoid(bias - log SNR)`` on eps, which is ``SNR gamma / (SNR + gamma)`` on x_0 with ``gamma = exp(bias)``:
    min-SNR without its corner.
    """
    snr = schedule.alpha_bar / (1 - schedule.alpha_bar)
    return _from_x0(snr / (1 + snr * math.exp(-bias)), prediction, snr)


def _from_x0(weight: Table, prediction: Prediction, snr: Table) -> Table:
    """Returns a weight of the squared error of x_0 as that of what is predicted."""
    forms: dict[str, Callable[[], Table]] = {
        "eps": lambda: np.ones_like(snr) / snr,
        "x0": lambda: np.ones_like(snr),
        "v": lambda: 1 / (snr + 1),
    }
    return weight * forms[prediction]()


def normal_kl(mean_1: Images, log_variance_1: Images, mean_2: Images, log_variance_2: Images) -> Images:
    """Returns the KL divergence between normal distributions, in nats, element by element."""
    return 0.5 * (
        log_variance_2
        - log_variance_1
        - 1.0
        + jnp.exp(log_variance_1 - log_variance_2)
        + jnp.square(mean_1 - mean_2) * jnp.exp(-log_variance_2)
    )


def discretised_log_likelihood(x: Images, mean: Images, log_scale: Images) -> Images:
    """Returns the log probability (nats) that a normal distribution gives to the 8-bit level of each pixel.

    The level at x in [-1, 1] is the interval ``x +- 1/255``; the outermost two are open (Ho et al. 2020,
    equation 13). The normal distribution function is Page's (1977), ``(1 + tanh u(z)) / 2`` with
    ``u = sqrt(2 / pi) (z + 0.044715 z^3)``, as in the published models. Differences are taken of u, not of
    probabilities close to 0 or 1: ``tanh u - tanh v = sinh(u - v) / (cosh u cosh v)``.
    """
    inverse, factor, cubic = jnp.exp(-log_scale), math.sqrt(2 / math.pi), 0.044715
    above, below = (jnp.clip(inverse * (x - mean + side), -_FAR, _FAR) for side in (1 / 255, -1 / 255))
    u, v = (factor * (z + cubic * z**3) for z in (above, below))
    width = factor * (above - below) * (1 + cubic * (above**2 + above * below + below**2))
    width = jnp.maximum(width, 1e-20)  # none where both ends are far out; its logarithm must stay finite
    # log((tanh u - tanh v) / 2) with log sinh w = w + log(1 - e^-2w) - log 2 for w = u - v, and log cosh u
    # = |u| + log(1 + e^-2|u|) - log 2 twice: the logarithms of 2 cancel.
    inner = (
        width
        + jnp.log(-jnp.expm1(-2 * width))
        - (jnp.abs(u) + jnp.log1p(jnp.exp(-2 * jnp.abs(u))))
        - (jnp.abs(v) + jnp.log1p(jnp.exp(-2 * jnp.abs(v))))
    )
    lowest, highest = jax.nn.log_sigmoid(2 * u), jax.nn.log_sigmoid(-2 * v)
    log_p = jnp.where(x < -0.999, lowest, jnp.where(x > 0.999, highest, inner))
    return jnp.maximum(log_p, math.log(_LEAST_PROBABILITY))


def variational_bound(
    schedule: NoiseSchedule, x_0: Images, x_t: Images, t: Timesteps, mean: Images, log_variance: Images
) -> Float[Array, "b"]:
    """Returns L_t of the variational bound of each image, in bits a dimension.

    ``KL(q(x_{t-1} | x_t, x_0) || N(mean, exp(log_variance)))`` for t > 0 and ``-log p(x_0 | x_1)`` for t = 0
    (Ho et al. 2020, equation 5; Nichol and Dhariwal 2021, section 2.1).
    """
    true_mean = posterior_mean(schedule, x_0, x_t, t)
    true_log_variance = at(schedule.posterior_log_variance, t, x_t.ndim)
    kl = normal_kl(true_mean, jnp.broadcast_to(true_log_variance, x_t.shape), mean, log_variance)
    nll = -discretised_log_likelihood(x_0, mean, 0.5 * log_variance)
    axes = tuple(range(1, x_0.ndim))
    return jnp.where(t == 0, nll.mean(axis=axes), kl.mean(axis=axes)) / math.log(2.0)


def by_noise_level(values: Float[Array, "b"], t: Int[Array, "b"], num_steps: int) -> dict[str, Weighted]:
    """Returns sum and number of ``values`` in each quarter of the noise schedule, for the logs."""
    member = jax.nn.one_hot(t * NOISE_LEVELS // num_steps, NOISE_LEVELS)
    sums, counts = values @ member, member.sum(axis=0)
    return {f"loss_noise_{i + 1}of{NOISE_LEVELS}": jnp.stack([sums[i], counts[i]]) for i in range(NOISE_LEVELS)}


def weighted(values: Float[Array, "b"]) -> Weighted:
    """Returns sum and number of ``values``."""
    return jnp.stack([values.sum(), jnp.asarray(values.size, values.dtype)])


def cross_entropy(logits: Float[Array, "b n"], labels: Labels, *, smoothing: float = 0.0) -> Float[Array, "b"]:
    """Returns the softmax cross-entropy of each image, with optional label smoothing."""
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)


def balancing_weights(class_counts: Int[np.ndarray, "classes"]) -> Float[np.ndarray, "classes"]:
    """Weights in inverse proportion to the sizes of the classes, 1 on average over all images.

    ``n / (K n_c)`` for n_c of n images in class c of the K that have any; 0 for the others.
    """
    there = class_counts > 0
    return np.where(there, class_counts.sum() / (there.sum() * np.maximum(class_counts, 1)), 0.0)
