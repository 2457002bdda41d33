"""NNX modules as pure functions of plain dicts: the only bridge between modules and the rest of the project."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx

from diffpath_jax.shapes import PRNGKey, Tree


@dataclass(frozen=True)
class PureNetwork:
    """A network without state of its own.

    Attributes:
        make: builds the module.
        graphdef: the module's structure, without arrays.
    """

    make: Callable[[nnx.Rngs], nnx.Module]
    graphdef: Any

    def init(self, key: PRNGKey) -> tuple[Tree, Tree]:
        """Fresh parameters and model state (BatchNorm statistics; empty for most networks)."""
        _, params, state = nnx.split(self.make(nnx.Rngs(key)), nnx.Param, ...)  # type: ignore[misc]
        return nnx.to_pure_dict(params), nnx.to_pure_dict(state)

    def apply(
        self, params: Tree, model_state: Tree, *args: Any, method: str = "__call__", **kwargs: Any
    ) -> tuple[Any, Tree]:
        """Call the module, or the ``method`` of it that is named.

        Returns:
            Its output and the model state after the call.
        """
        module = nnx.merge(self.graphdef, params, model_state)
        out = getattr(module, method)(*args, **kwargs)
        _, _, state = nnx.split(module, nnx.Param, ...)  # type: ignore[misc]
        return out, nnx.to_pure_dict(state)


def purify(make: Callable[[nnx.Rngs], nnx.Module]) -> PureNetwork:
    """Wrap the constructor of a module; no array is allocated."""
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    return PureNetwork(make, graphdef)


def count_parameters(network: PureNetwork) -> int:
    """Number of trained parameters, without allocating them."""
    params, _ = jax.eval_shape(network.init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(params))
