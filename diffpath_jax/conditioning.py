"""The one home of class labels: the null class, label dropout, classifier-free guidance.

A network with N classes has N + 1 rows of class embedding; the last is the null class, trained by dropping labels
one by one (Ho and Salimans 2022, "Classifier-free diffusion guidance").
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffpath_jax.shapes import Images, Labels, PRNGKey, Timesteps

# A network's output as a function of (x_t, t, labels).
Conditional = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
Unconditional = Callable[[jax.Array, jax.Array], jax.Array]


def null_label(num_classes: int) -> int:
    """The label that stands for "no class given"."""
    return num_classes


def drop_labels(key: PRNGKey, labels: Labels, *, rate: float, num_classes: int) -> Labels:
    """Replace each label by the null class with probability ``rate``, independently of the others."""
    dropped = jax.random.bernoulli(key, rate, labels.shape)
    return jnp.where(dropped, null_label(num_classes), labels)


def with_labels(predict: Conditional, labels: Labels) -> Unconditional:
    """Fix the labels."""
    return lambda x_t, t: predict(x_t, t, labels)


def with_guidance(predict: Conditional, labels: Labels, *, weight: float, num_classes: int) -> Unconditional:
    """Classifier-free guidance, ``(1 + w) f(x, c) - w f(x, null)``, in one forward pass over a doubled batch.

    Holds for outputs that are affine in eps with the same offset (eps, x_0 and v all are). w = 0 is the
    conditional model itself; latent diffusion's scale is s = 1 + w.
    """
    if weight < 0:
        raise ValueError(f"guidance weight must be 0 or more, not {weight}")
    if weight == 0:
        return with_labels(predict, labels)
    both_labels = jnp.concatenate([labels, jnp.full_like(labels, null_label(num_classes))])

    def guided(x_t: Images, t: Timesteps) -> Images:
        out = predict(jnp.concatenate([x_t, x_t]), jnp.concatenate([t, t]), both_labels)
        conditional, unconditional = jnp.split(out, 2)
        return (1 + weight) * conditional - weight * unconditional

    return guided
