"""The one home of class labels: the null class, label dropout, classifier-free guidance, classifier guidance.

A network with N classes has N + 1 rows of class embedding; the last is the null class, trained by dropping labels
one by one (Ho and Salimans 2022, "Classifier-free diffusion guidance").
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffpath_jax.diffusion.schedule import NoiseSchedule, at
from diffpath_jax.shapes import Denoised, Denoiser, Images, Labels, PRNGKey, Timesteps

# A network's prediction, and its variance if it learns one, as a function of (x_t, t, labels).
Output = tuple[jax.Array, jax.Array | None]
Conditional = Callable[[jax.Array, jax.Array, jax.Array], Output]
Unconditional = Callable[[jax.Array, jax.Array], Output]
# log p(y | x_t) of the wanted labels y, as a function of (x_t, t).
LogLikelihood = Callable[[jax.Array, jax.Array], jax.Array]


def null_label(num_classes: int) -> int:
    """The label that stands for "no class given"."""
    return num_classes


def drop_labels(key: PRNGKey, labels: Labels, *, rate: float, num_classes: int, group: int = 1) -> Labels:
    """Replace labels by the null class with probability ``rate``.

    Args:
        key: of the draw.
        labels: class of each image.
        rate: share of labels that are dropped.
        num_classes: classes without the null class.
        group: images in a row that are dropped or kept together; 1 draws for each image. The authors' code draws
            once for a batch of 8.
    """
    dropped = jax.random.bernoulli(key, rate, (-(-labels.shape[0] // group),))
    return jnp.where(dropped[jnp.arange(labels.shape[0]) // group], null_label(num_classes), labels)


def with_labels(predict: Conditional, labels: Labels) -> Unconditional:
    """Fix the labels."""
    return lambda x_t, t: predict(x_t, t, labels)


def with_guidance(
    predict: Conditional,
    labels: Labels,
    *,
    weight: float,
    num_classes: int,
    active: Bool[np.ndarray, "T"] | None = None,
) -> Unconditional:
    """Classifier-free guidance, ``(1 + w) f(x, c) - w f(x, null)``, in one forward pass over a doubled batch.

    Holds for outputs that are affine in eps with the same offset (eps, x_0 and v all are). w = 0 is the
    conditional model itself; latent diffusion's scale is s = 1 + w. A learned variance is the conditional one's.

    Args:
        predict: the network.
        labels: the wanted classes.
        weight: w.
        num_classes: classes without the null class.
        active: whether to guide at each t (Kynkäänniemi et al. 2024, "Applying guidance in a limited interval"); none
            means always. Where no image of the batch is guided, only one forward pass is made.
    """
    if weight < 0:
        raise ValueError(f"guidance weight must be 0 or more, not {weight}")
    if weight == 0:
        return with_labels(predict, labels)
    both_labels = jnp.concatenate([labels, jnp.full_like(labels, null_label(num_classes))])

    def guided(x_t: Images, t: Timesteps, w: float | Float[Array, "b 1 1 1"] = weight) -> Output:
        out, variance = predict(jnp.concatenate([x_t, x_t]), jnp.concatenate([t, t]), both_labels)
        conditional, unconditional = jnp.split(out, 2)
        kept = None if variance is None else jnp.split(variance, 2)[0]
        return (1 + w) * conditional - w * unconditional, kept

    if active is None or active.all():
        return guided

    def guided_at_times(x_t: Images, t: Timesteps) -> Output:
        w = at(weight * active, t, x_t.ndim)
        return jax.lax.cond((w > 0).any(), lambda: guided(x_t, t, w), lambda: predict(x_t, t, labels))

    return guided_at_times


def with_classifier(
    denoiser: Denoiser, log_likelihood: LogLikelihood, schedule: NoiseSchedule, *, scale: float, moves_mean: bool
) -> Denoiser:
    """Classifier guidance (Dhariwal and Nichol 2021, section 4): towards noisy images that a classifier knows.

    With g = scale * grad log p(y | x_t), ancestral sampling moves the mean of each step by its variance times g
    (algorithm 1); every other method takes eps - sqrt(1 - abar_t) g (algorithm 2).

    Args:
        denoiser: guided by labels or not.
        log_likelihood: of a classifier of noisy images.
        schedule: the schedule that t is an index into.
        scale: of the gradient.
        moves_mean: hand g on as the score of an ancestral step, rather than putting it into eps.
    """
    if scale < 0:
        raise ValueError(f"the scale of a classifier must be 0 or more, not {scale}")
    if scale == 0:
        return denoiser

    def guided(x_t: Images, t: Timesteps) -> Denoised:
        found = denoiser(x_t, t)
        score = scale * jax.grad(lambda x: log_likelihood(x, t).sum())(x_t)
        if moves_mean:
            return found._replace(score=score)
        return found._replace(eps=found.eps - at(np.sqrt(1 - schedule.alpha_bar), t, x_t.ndim) * score)

    return guided
