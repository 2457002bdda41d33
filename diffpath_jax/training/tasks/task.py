"""What there is to learn: parameters to start from, and losses.

The training loop knows a :class:`Task` and nothing else of diffusion or classification.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from diffpath_jax.shapes import Batch, PRNGKey, Scalar, Tree

# Names in the parameters and in the model state: the network, its codec's, and what the timestep sampler has learnt.
NETWORK = "network"
CODEC = "codec"
TIMESTEPS = "timesteps"


@runtime_checkable
class Init(Protocol):
    """Fresh parameters."""

    def __call__(self, key: PRNGKey, /) -> tuple[Tree, Tree]:
        """Parameters by group, and the model state by name."""


@runtime_checkable
class Loss(Protocol):
    """What a group of parameters is to lower."""

    def __call__(self, params: Tree, model_state: Tree, batch: Batch, key: PRNGKey, /) -> tuple[Scalar, dict[str, Any]]:
        """The loss of a batch.

        Args:
            params: all parameters by group, those that nobody trains too.
            model_state: by name.
            batch: images or latents, and labels.
            key: of all that is drawn.

        Returns:
            The loss, and ``metrics`` (name -> Weighted) and the ``model_state`` after it.
        """


@runtime_checkable
class Revise(Protocol):
    """What is done after each step besides descending a gradient."""

    def __call__(self, params: Tree, average: Tree, model_state: Tree, /) -> tuple[Tree, Tree, Tree]:
        """Parameters, their average and the model state, revised."""


def unrevised(params: Tree, average: Tree, model_state: Tree) -> tuple[Tree, Tree, Tree]:
    """Nothing is done after a step."""
    return params, average, model_state


@dataclass(frozen=True)
class Task:
    """Something to train.

    Attributes:
        init: fresh parameters.
        losses: the loss of each parameter group; groups are updated in this order within a step.
        given: parameters by group that the losses read and nobody trains (a first stage, a perceptual network).
        revise: what is done to parameters after each step besides descending a gradient.
    """

    init: Init
    losses: Mapping[str, Loss]
    given: Tree = field(default_factory=dict)
    revise: Revise = unrevised
