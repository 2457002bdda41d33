"""Conditions as a mapping from names to values: dropping them; guidance by null values, a weaker model, a classifier.

Each condition has a null value, which stands for "not given" and is trained by dropping the conditions of single images
(Ho and Salimans 2022, "Classifier-free diffusion guidance").
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from diffpath_jax.diffusion.schedule import NoiseSchedule, at
from diffpath_jax.shapes import Conditions, Denoiser, DenoiserOutput, Images, PRNGKey, Timesteps

# A network's prediction, and its variance if it learns one.
Output = tuple[Images, Images | None]
# The null value of each condition, of the shape and type of one value.
Nulls = Mapping[str, np.ndarray]


@runtime_checkable
class Conditional(Protocol):
    """A network that is told something of each image."""

    def __call__(self, x_t: Images, t: Timesteps, conditions: Conditions, /) -> Output:
        """Returns its output for noisy images under some conditions."""


@runtime_checkable
class Unconditional(Protocol):
    """A network whose conditions are settled."""

    def __call__(self, x_t: Images, t: Timesteps, /) -> Output:
        """Returns its output for noisy images."""


@runtime_checkable
class LogLikelihood(Protocol):
    """A classifier of noisy images, for the wanted classes y."""

    def __call__(self, x_t: Images, t: Timesteps, /) -> Float[Array, "b"]:
        """Returns log p(y | x_t) of each image."""


def drop(
    key: PRNGKey,
    conditions: Conditions,
    nulls: Nulls,
    *,
    rate: float,
    group: int = 1,
    own: Mapping[str, ArrayLike] | None = None,
) -> dict[str, jax.Array]:
    """Returns the conditions with all those of an image replaced by null values with probability ``rate``.

    Single ones are replaced with a probability of their own besides, so that a network knows every subset of them.

    Args:
        key: of the draw.
        conditions: of each image.
        nulls: their null values.
        rate: share of images whose conditions are dropped.
        group: images in a row that are dropped or kept together; 1 draws for each image. The authors' code draws
            once for a batch of 8.
        own: probability of each condition that is dropped by itself too; one for each of its numbers drops these one by
            one.
    """
    if not conditions:
        return {}
    count = next(iter(conditions.values())).shape[0]
    dropped = jax.random.bernoulli(key, rate, (-(-count // group),))[jnp.arange(count) // group]

    def lost(number: int, name: str, ndim: int) -> Bool[Array, "b *_"]:
        whole = dropped
        if own is not None and name in own:
            rates = jnp.asarray(own[name])
            drawn = jax.random.bernoulli(jax.random.fold_in(key, number), rates, (count, *rates.shape))
            whole = dropped.reshape(count, *[1] * rates.ndim) | drawn
        return whole.reshape(*whole.shape, *[1] * (ndim - whole.ndim))

    return {
        name: jnp.where(lost(number, name, value.ndim), jnp.asarray(nulls[name], value.dtype), value)
        for number, (name, value) in enumerate(conditions.items())
    }


def null(nulls: Nulls, count: int) -> dict[str, jax.Array]:
    """Returns conditions of ``count`` images of which nothing is given."""
    return {name: jnp.broadcast_to(jnp.asarray(value), (count, *value.shape)) for name, value in nulls.items()}


def with_conditions(predict: Conditional, conditions: Conditions) -> Unconditional:
    """Fix the conditions."""
    return lambda x_t, t: predict(x_t, t, conditions)


def with_autoguidance(
    predict: Conditional, guide: Conditional, *, weight: float, active: Bool[np.ndarray, "T"] | None = None
) -> Conditional:
    """Autoguidance, ``(1 + w) f(x, c) - w g(x, c)``: away from what a weaker model g of the same data gets wrong.

    Karras et al. 2024, "Guiding a diffusion model with a bad version of itself", equation 4, whose w is 1 + w here;
    so w = 0 is the model itself, as is any w where g is f. Under classifier-free guidance the conditional and the
    unconditional output are both guided so, and the network is f guided towards its class against g guided likewise.
    Both networks predict the same of x_t. A learned variance is that of f.

    Args:
        predict: the network f.
        guide: the network g.
        weight: w.
        active: true for each t at which to guide; none means always. Elsewhere g is not asked.
    """
    if weight < 0:
        raise ValueError(f"the weight of a guide must be 0 or more, not {weight}")
    if weight == 0:
        return predict

    def guided(x_t: Images, t: Timesteps, conditions: Conditions) -> Output:
        out, variance = predict(x_t, t, conditions)

        def away(w: float | Float[Array, "b 1 1 1"]) -> Images:
            return w * (out - guide(x_t, t, conditions)[0])

        if active is None or active.all():
            return out + away(weight), variance
        w = at(weight * active, t, x_t.ndim)
        return out + jax.lax.cond((w > 0).any(), lambda: away(w), lambda: jnp.zeros_like(out)), variance

    return guided


def with_guidance(
    predict: Conditional,
    conditions: Conditions,
    nulls: Nulls,
    *,
    weight: float,
    own: Mapping[str, float] | None = None,
    active: Bool[np.ndarray, "T"] | None = None,
) -> Unconditional:
    """Classifier-free guidance, ``(1 + w) f(x, c) - w f(x, null)``, in one forward pass over a doubled batch.

    Holds for outputs that are affine in eps with the same offset (eps, x_0 and v all are). w = 0 is the
    conditional model itself; latent diffusion's scale is s = 1 + w. A learned variance is the conditional one's.
    A condition k with a weight w_k of its own adds ``w_k (f(x, c) - f(x, c without k))`` and a part of the batch.

    Args:
        predict: the network.
        conditions: the wanted ones, of each image.
        nulls: their null values.
        weight: w.
        own: w_k of single conditions, which must be among the wanted ones.
        active: true for each t at which to guide (Kynkäänniemi et al. 2024, "Applying guidance in a limited
            interval"); none means always. Where no image of the batch is guided, only one forward pass is made.
    """
    # Weight of each part, and the conditions that are not given in it.
    parts = [(weight, tuple(nulls)), *((value, (name,)) for name, value in (own or {}).items())]
    parts = [part for part in parts if part[0]]
    if any(value < 0 for value, _ in parts):
        raise ValueError(f"guidance weight must be 0 or more, not {min(value for value, _ in parts)}")
    if not parts:
        return with_conditions(predict, conditions)

    def multiplied(count: int) -> dict[str, jax.Array]:
        nothing = null(nulls, count)
        return {
            name: jnp.concatenate([value, *(nothing[name] if name in left_out else value for _, left_out in parts)])
            for name, value in conditions.items()
        }

    def guided(x_t: Images, t: Timesteps, on: float | Float[Array, "b 1 1 1"] = 1.0) -> Output:
        count = 1 + len(parts)
        out, variance = predict(jnp.concatenate([x_t] * count), jnp.concatenate([t] * count), multiplied(x_t.shape[0]))
        conditional, *others = jnp.split(out, count)
        result = (1 + sum(value for value, _ in parts) * on) * conditional
        for (value, _), other in zip(parts, others, strict=True):
            result = result - value * on * other
        return result, None if variance is None else jnp.split(variance, count)[0]

    if active is None or active.all():
        return guided

    def guided_at_times(x_t: Images, t: Timesteps) -> Output:
        on = at(active.astype(np.float64), t, x_t.ndim)
        return jax.lax.cond((on > 0).any(), lambda: guided(x_t, t, on), lambda: predict(x_t, t, conditions))

    return guided_at_times


def with_classifier(
    denoiser: Denoiser, log_likelihood: LogLikelihood, schedule: NoiseSchedule, *, scale: float, as_score: bool
) -> Denoiser:
    """Classifier guidance (Dhariwal and Nichol 2021, section 4): towards noisy images that a classifier knows.

    With g = scale * grad log p(y | x_t), ancestral sampling moves the mean of each step by its variance times g
    (algorithm 1); every other sampler takes eps - sqrt(1 - abar_t) g (algorithm 2).

    Args:
        denoiser: guided by conditions or not.
        log_likelihood: of a classifier of noisy images.
        schedule: the schedule that t is an index into.
        scale: of the gradient.
        as_score: hand g on as the score, for the step of the sampler, rather than putting it into eps.
    """
    if scale < 0:
        raise ValueError(f"the scale of a classifier must be 0 or more, not {scale}")
    if scale == 0:
        return denoiser

    def guided(x_t: Images, t: Timesteps) -> DenoiserOutput:
        output = denoiser(x_t, t)
        score = scale * jax.grad(lambda x: log_likelihood(x, t).sum())(x_t)
        if as_score:
            return output._replace(score=score)
        return output._replace(eps=output.eps - at(np.sqrt(1 - schedule.alpha_bar), t, x_t.ndim) * score)

    return guided
