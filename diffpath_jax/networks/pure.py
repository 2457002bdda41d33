"""NNX modules as pure functions of plain dicts: the only bridge between modules and the rest of the project."""

from collections.abc import Callable
from dataclasses import dataclass, field
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
        shapes: of what :meth:`init` returns, known without a second trace of the constructor.
    """

    make: Callable[[nnx.Rngs], nnx.Module]
    graphdef: Any
    shapes: tuple[Tree, Tree] = field(compare=False)

    def init(self, key: PRNGKey) -> tuple[Tree, Tree]:
        """Fresh parameters and model state (BatchNorm statistics; empty for most networks)."""
        return _parts(self.make(_Keys(key)))[1]

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


class _Keys(nnx.Rngs):
    """The keys that ``nnx.Rngs`` hands out, counted on the host: a traced counter takes longer than all layers."""

    def __init__(self, key: PRNGKey) -> None:
        super().__init__(key)
        self._root, self._count = key, 0

    def params(self) -> PRNGKey:
        """The next key."""
        key = jax.random.fold_in(self._root, self._count)
        self._count += 1
        return key


def purify(make: Callable[[nnx.Rngs], nnx.Module]) -> PureNetwork:
    """Wrap the constructor of a module; no array is allocated."""
    return PureNetwork(make, *_parts(nnx.eval_shape(lambda: make(_Keys(jax.random.key(0))))))


def _parts(module: nnx.Module) -> tuple[Any, tuple[Tree, Tree]]:
    """Structure of a module, and its parameters and state as plain dicts."""
    graphdef, params, state = nnx.split(module, nnx.Param, ...)  # type: ignore[misc]
    return graphdef, (nnx.to_pure_dict(params), nnx.to_pure_dict(state))


def count_parameters(network: PureNetwork) -> int:
    """Number of trained parameters, without allocating them."""
    return sum(leaf.size for leaf in jax.tree.leaves(network.shapes[0]))
