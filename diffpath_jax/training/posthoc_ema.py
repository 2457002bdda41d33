r"""Averages of the parameters over training whose length is chosen afterwards (Karras et al. 2024, EDM2, section 3).

The average of length sigma weights the parameters after step tau of t by a power of time,

    p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1),    0 < tau <= t                                     (1)

whose standard deviation is sigma t, with sigma^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)). Since

    average_t = average_{t-1} + (1 - (1 - 1/t)^(gamma + 1)) (params_t - average_{t-1})                  (2)

weights params_s by the integral of (1) from s - 1 to s, no start value remains. A few traces are kept while a run
trains; those in its checkpoints span a space in which any other profile has a nearest one (3), which is taken with
coefficients that add up to 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from diffpath_jax.shapes import Tree

# Name of the traces in a state.
TRACES = "traces"


@dataclass(frozen=True)
class Profile:
    """The weights of an average.

    Attributes:
        step: steps that it is taken over.
        length: its standard deviation as a share of them.
    """

    step: int
    length: float

    @property
    def exponent(self) -> float:
        """Returns gamma of equation 1: the largest root of (gamma + 2)^2 (gamma + 3) = (gamma + 1) / sigma^2."""
        inverse = self.length**-2
        return float(np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse]).real.max())


@dataclass(frozen=True)
class Combination:
    """An average as a sum of others.

    Attributes:
        coefficients: of the others; they add up to 1.
        error: distance of the profile that they make from the one that was asked for, as a share of its norm.
    """

    coefficients: Float[np.ndarray, "n"]
    error: float


def update(average: Tree, params: Tree, *, length: float, step: jax.Array) -> Tree:
    """Returns the average of one more step (equation 2).

    Args:
        average: before it, float32.
        params: after it.
        length: of the average.
        step: steps taken before this one.
    """
    exponent = Profile(1, length).exponent
    rate = -jnp.expm1((exponent + 1) * jnp.log1p(-1 / (step + 1.0)))
    return jax.tree.map(lambda a, p: a + rate * (p.astype(jnp.float32) - a), average, params)


def combine(kept: Sequence[Profile], wanted: Profile) -> Combination:
    """Returns the sum of kept averages that is nearest to a wanted one, by least squares over profiles (3).

    Args:
        kept: profiles of the averages at hand, none of a later step than the wanted one.
        wanted: any other.
    """
    profiles = [*kept, wanted]
    steps = np.array([profile.step for profile in profiles]) / wanted.step
    products = _products(steps, np.array([profile.exponent for profile in profiles]))
    own, across, norm = products[:-1, :-1], products[:-1, -1], products[-1, -1]
    ones = np.ones((len(kept), 1))
    bordered = np.block([[own, ones], [ones.T, np.zeros((1, 1))]])
    solved = np.linalg.lstsq(bordered, np.append(across, 1.0), rcond=None)[0]
    coefficients = solved[:-1]
    square = norm - 2 * across @ coefficients + coefficients @ own @ coefficients
    return Combination(coefficients, float(np.sqrt(max(square, 0.0) / norm)))


def _products(steps: Float[np.ndarray, "n"], exponents: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n n"]:
    """Returns the integral of the product of each two profiles.

    With s <= t it is ``(a + 1) (b + 1) / (a + b + 1) (s / t)^b / t``, where b is the exponent of the one over t.
    """
    first, second = np.minimum.outer(steps, steps), np.maximum.outer(steps, steps)
    of_second = np.where(np.less_equal.outer(steps, steps), exponents[None, :], exponents[:, None])
    factor = np.multiply.outer(exponents + 1, exponents + 1) / (np.add.outer(exponents, exponents) + 1)
    return factor * (first / second) ** of_second / second
