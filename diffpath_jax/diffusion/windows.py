"""Fields larger than a model's images: overlapping windows, whose predictions are averaged in each step.

Bar-Tal et al. 2023, "MultiDiffusion", equation 5: the step of the whole is the one that is nearest to those of its
windows, which is their weighted mean. All samplers are linear in eps, so its mean is what is taken, by a wrapper of
denoisers. Weights fall off towards the border of a window, where the network sees least around a pixel. Windows go
through the network some at a time, so that memory beside the field itself does not grow with it.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffpath_jax.shapes import Conditions, Denoiser, DenoiserOutput, Images, Timesteps


@dataclass(frozen=True)
class Windows:
    """How a field is covered by windows.

    Attributes:
        size: height and width of the field, in cells (pixels, or pixels of latents).
        side: of a window, at most the shorter side of the field.
        stride: most cells from one window to the next; they are evenly spread from border to border.
        at_once: windows that go through the network together.
    """

    size: tuple[int, int]
    side: int
    stride: int
    at_once: int

    def starts(self, axis: int) -> Int[np.ndarray, "_"]:
        """Returns the first cell of each window along an axis, increasing."""
        room = self.size[axis] - self.side
        return np.round(np.linspace(0, room, -(-room // self.stride) + 1)).astype(np.int32)

    def corners(self) -> Int[np.ndarray, "n 2"]:
        """Returns the first row and column of each window, row by row."""
        return np.stack(np.meshgrid(self.starts(0), self.starts(1), indexing="ij"), axis=-1).reshape(-1, 2)

    def total(self, axis: int, *, factor: int = 1) -> Float[np.ndarray, "_"]:
        """Returns the sum of the weights of all windows along an axis; over the field it is the product of both."""
        weights, total = taper(self.side * factor), np.zeros(self.size[axis] * factor, np.float32)
        for start in self.starts(axis) * factor:
            total[start : start + len(weights)] += weights
        return total


def taper(side: int) -> Float[np.ndarray, "side"]:
    """Returns weights along a side of a window, ``sin^4`` of 0 to pi: next to nothing at its borders.

    With equal weights, as MultiDiffusion has them, differences of neighbours across a border vary half as much again as
    elsewhere, where a quarter of a window is what a pixel depends on; with these it is no more than 1 %.
    """
    return np.sin(np.pi * (np.arange(side, dtype=np.float32) + 0.5) / side) ** 4


@runtime_checkable
class OfWindows(Protocol):
    """What is done to windows."""

    def __call__(self, x: Images, which: Int[Array, "b"], /) -> Float[Array, "b h2 w2 c2"]:
        """Returns something of each window, ``factor`` as large along both sides; ``which`` are their numbers."""


def averaged(
    function: OfWindows, x: Images, windows: Windows, *, channels: int, factor: int = 1
) -> Float[Array, "b h2 w2 c2"]:
    """Returns the weighted mean of what a function makes of the windows of fields.

    Args:
        function: of windows; number k of field i has the number ``i n + k`` with n windows a field.
        x: fields.
        windows: how they are covered.
        channels: of the result.
        factor: cells of the result a cell of x, along both sides.
    """
    corners = np.tile(windows.corners(), (len(x), 1))
    count, side = len(corners), windows.side
    fields = np.repeat(np.arange(len(x), dtype=np.int32), count // len(x))
    # The last batch is filled up with windows of no weight.
    batches = -(-count // windows.at_once)
    numbers = np.resize(np.arange(count, dtype=np.int32), batches * windows.at_once)
    counts = (np.arange(len(numbers)) < count).astype(np.float32)
    profile = jnp.asarray(taper(side * factor))
    weights = (profile[:, None] * profile)[..., None]

    def batch(total: jax.Array, which: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        chosen, valid = which
        field, (top, left) = jnp.asarray(fields)[chosen], jnp.asarray(corners)[chosen].T
        cut = jax.vmap(lambda i, r, c: jax.lax.dynamic_slice(x, (i, r, c, 0), (1, side, side, x.shape[-1]))[0])
        parts = function(cut(field, top, left), chosen) * weights * valid.reshape(-1, 1, 1, 1)

        def add(number: jax.Array, total: jax.Array) -> jax.Array:
            place = (field[number], top[number] * factor, left[number] * factor, jnp.zeros((), jnp.int32))
            there = jax.lax.dynamic_slice(total, place, (1, *parts.shape[1:]))
            return jax.lax.dynamic_update_slice(total, there + parts[number][None], place)

        return jax.lax.fori_loop(0, len(chosen), add, total), None

    start = jnp.zeros((len(x), *(side * factor for side in windows.size), channels))
    in_batches = (jnp.asarray(each.reshape(batches, -1)) for each in (numbers, counts))
    total, _ = jax.lax.scan(batch, start, tuple(in_batches))
    rows, columns = (jnp.asarray(windows.total(axis, factor=factor)) for axis in (0, 1))
    return total / (rows[:, None, None] * columns[:, None])


@runtime_checkable
class DenoiserOf(Protocol):
    """Makes the denoiser of some windows."""

    def __call__(self, conditions: Conditions, /) -> Denoiser:
        """Returns the denoiser of windows with some conditions."""


def with_windows(denoiser_of: DenoiserOf, conditions: Conditions, windows: Windows) -> Denoiser:
    """Returns a denoiser of fields from one of windows; learned variances and scores are averaged as eps is.

    Args:
        denoiser_of: of windows, by their conditions.
        conditions: of each window of each field, by number.
        windows: how fields are covered.
    """
    count = len(windows.corners())

    def denoiser(x_t: Images, t: Timesteps) -> DenoiserOutput:
        channels = x_t.shape[-1]

        def output(x: Images, which: Int[Array, "b"]) -> DenoiserOutput:
            told = {name: value[which] for name, value in conditions.items()}
            return denoiser_of(told)(x, t[which // count])

        def packed(x: Images, which: Int[Array, "b"]) -> Float[Array, "b h w c2"]:
            return jnp.concatenate([part for part in output(x, which) if part is not None], axis=-1)

        one = jax.ShapeDtypeStruct((1, windows.side, windows.side, channels), x_t.dtype)
        there = [part is not None for part in jax.eval_shape(output, one, jax.ShapeDtypeStruct((1,), jnp.int32))]
        mean = averaged(packed, x_t, windows, channels=channels * sum(there))
        eps, *others = jnp.split(mean, sum(there), axis=-1)
        rest = iter(others)
        return DenoiserOutput(eps, *(next(rest) if given else None for given in there[1:]))

    return denoiser
