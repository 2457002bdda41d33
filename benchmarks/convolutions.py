"""Every distinct convolution of a network, with both its gradients: does it compile in bfloat16, and how fast is it?"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import cases, ours
from benchmarks.cases import Case, Context, Measurement
from benchmarks.measure import Row
from benchmarks.shapes import ADM_128, ADM_256, LDM, TINY, LatentShape, Shape
from diffpath_jax.networks.conditions import LABEL

# Fill values that are neither zero nor all alike: hardware is faster on such.
_SPREAD = 0.5


@dataclass(frozen=True)
class Convolution:
    """Sizes of a convolution, NHWC and HWIO."""

    image: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dtype: str

    @property
    def out_sides(self) -> tuple[int, ...]:
        """Height and width of the result."""
        sides = zip(self.image[1:3], self.kernel, self.padding, self.strides, strict=False)
        return tuple((side + sum(pad) - width) // stride + 1 for side, width, pad, stride in sides)

    @property
    def flop(self) -> float:
        """FLOP (2 x MAC) of one of the three passes."""
        return 2.0 * self.image[0] * float(np.prod(self.out_sides)) * float(np.prod(self.kernel))

    @property
    def bytes(self) -> float:
        """Bytes that one pass reads or writes at least: image, result and kernel once each."""
        numbers = np.prod(self.image) + self.image[0] * np.prod(self.out_sides) * self.kernel[-1] + np.prod(self.kernel)
        return float(numbers) * jnp.dtype(self.dtype).itemsize

    @property
    def name(self) -> str:
        """For tables."""
        image, kernel = "x".join(map(str, self.image)), "x".join(map(str, self.kernel))
        stride = f" / {self.strides[0]}" if self.strides[0] > 1 else ""
        return f"{image} * {kernel}{stride}" + ("" if self.dtype == "bfloat16" else f", {self.dtype}")

    def passes(self, image: jax.Array, kernel: jax.Array, gradient: jax.Array) -> tuple[jax.Array, ...]:
        """The result and the gradients for the image and for the kernel."""

        def convolve(image: jax.Array, kernel: jax.Array) -> jax.Array:
            numbers = ("NHWC", "HWIO", "NHWC")
            return jax.lax.conv_general_dilated(image, kernel, self.strides, self.padding, dimension_numbers=numbers)

        out, back = jax.vjp(convolve, image, kernel)
        return out, *back(gradient)

    def inputs(self, key: jax.Array) -> tuple[jax.Array, ...]:
        """Random image, kernel and gradient."""
        out = (self.image[0], *self.out_sides, self.kernel[-1])
        shapes = (self.image, self.kernel, out)
        keys = jax.random.split(key, len(shapes))
        return tuple(_SPREAD * jax.random.normal(k, shape, self.dtype) for k, shape in zip(keys, shapes, strict=True))


def of_network(shape: Shape | LatentShape, px: int, batch: int) -> Counter[Convolution]:
    """The convolutions of a network's forward pass in bfloat16, and how often each occurs."""
    network = ours.make_network(shape, jnp.bfloat16)
    params = jax.eval_shape(network.init, jax.random.key(0))[0]
    space = ours.make_codec(shape, jnp.float32).shape((px, px))
    image = jax.ShapeDtypeStruct((batch, *space), jnp.float32)
    number = jax.ShapeDtypeStruct((batch,), jnp.int32)
    traced = jax.make_jaxpr(lambda p, *x: network.apply(p, {}, *x)[0])(params, image, number, {LABEL.name: number})
    return Counter(_found(traced.jaxpr))


def _found(jaxpr: Any) -> Iterator[Convolution]:
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            image, kernel = (variable.aval for variable in equation.invars)
            settings = equation.params
            yield Convolution(
                image.shape, kernel.shape, settings["window_strides"], settings["padding"], image.dtype.name
            )
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _found(inner)


def convolution(context: Context) -> Iterator[Row]:
    """Every distinct convolution with both gradients in bfloat16: what fails is named."""
    networks = [Case("ADM 128 channels", ADM_128, 128, 64), Case("ADM 256 channels", ADM_256, 128, 64)]
    networks += [Case("LDM 192 channels", LDM, 128, 128)]
    if context.tiny:
        networks = [Case("tiny", TINY, 16, 4)]
    counted = {
        replace(network, how=found): number
        for network in networks
        for found, number in of_network(network.shape, network.px, network.batch).items()
    }
    rows = cases.compiled_together(list(counted), _prepare, context)
    for row, number in zip(rows, counted.values(), strict=True):
        yield row | {"times": number}


def _prepare(context: Context, case: Case) -> Measurement:
    """Compile one; its row tells the share of the peak over all three passes."""
    found = case.how
    inputs = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in jax.eval_shape(found.inputs, jax.random.key(0))]
    call, seconds = ours.compiled(found.passes, *inputs)

    def measure() -> Row:
        times = cases.timed(call, *jax.jit(found.inputs)(jax.random.key(0)), seconds=0.1)
        rate = 3 * found.flop / times.median
        return {
            "TFLOP/s": rate / 1e12,
            "share of peak": context.share(rate),
            "GB/s": 3 * found.bytes / times.median / 1e9,
            "ms": 1e3 * times.median,
            "compile s": seconds,
            "n": times.count,
        }

    return measure
