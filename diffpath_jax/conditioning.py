"""The one home of class labels: the null class, label dropout, classifier-free guidance.

A network with N classes has N + 1 rows of class embedding; the last is the null class, trained by dropping labels
one by one (Ho and Salimans 2022, "Classifier-free diffusion guidance").
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffpath_jax.shapes import Images, Labels, PRNGKey, Timesteps

# A network's prediction, and its variance if it learns one, as a function of (x_t, t, labels).
Output = tuple[jax.Array, jax.Array | None]
Conditional = Callable[[jax.Array, jax.Array, jax.Array], Output]
Unconditional = Callable[[jax.Array, jax.Array], Output]


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
    return jnp.where(dropped.repeat(group)[: labels.shape[0]], null_label(num_classes), labels)


def with_labels(predict: Conditional, labels: Labels) -> Unconditional:
    """Fix the labels."""
    return lambda x_t, t: predict(x_t, t, labels)


def with_guidance(predict: Conditional, labels: Labels, *, weight: float, num_classes: int) -> Unconditional:
    """Classifier-free guidance, ``(1 + w) f(x, c) - w f(x, null)``, in one forward pass over a doubled batch.

    Holds for outputs that are affine in eps with the same offset (eps, x_0 and v all are). w = 0 is the
    conditional model itself; latent diffusion's scale is s = 1 + w. A learned variance is the conditional one's.
    """
    if weight < 0:
        raise ValueError(f"guidance weight must be 0 or more, not {weight}")
    if weight == 0:
        return with_labels(predict, labels)
    both_labels = jnp.concatenate([labels, jnp.full_like(labels, null_label(num_classes))])

    def guided(x_t: Images, t: Timesteps) -> Output:
        out, variance = predict(jnp.concatenate([x_t, x_t]), jnp.concatenate([t, t]), both_labels)
        conditional, unconditional = jnp.split(out, 2)
        kept = None if variance is None else jnp.split(variance, 2)[0]
        return (1 + weight) * conditional - weight * unconditional, kept

    return guided
