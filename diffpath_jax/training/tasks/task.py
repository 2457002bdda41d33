"""What there is to learn: parameters to start from, and losses.

The training loop knows a :class:`Task` and nothing else of diffusion or classification.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax

from diffpath_jax.shapes import Batch, Tree

# (all parameters by group, model state, batch, key) -> (loss, {"metrics": name -> Weighted, "model_state": ...})
Loss = Callable[[Tree, Tree, Batch, jax.Array], tuple[jax.Array, dict[str, Any]]]
# (parameters, their average, model state) -> the same, revised
Revise = Callable[[Tree, Tree, Tree], tuple[Tree, Tree, Tree]]
# Names in the parameters and in the model state: the network, its codec's, and what the timestep sampler has learnt.
NETWORK = "network"
CODEC = "codec"
TIMESTEPS = "timesteps"


def unrevised(params: Tree, average: Tree, model_state: Tree) -> tuple[Tree, Tree, Tree]:
    """Nothing is done after a step."""
    return params, average, model_state


@dataclass(frozen=True)
class Task:
    """Something to train.

    Attributes:
        init: key -> (parameters by group, model state by name).
        losses: the loss of each parameter group; groups are updated in this order within a step.
        given: parameters by group that the losses read and nobody trains (a first stage, a perceptual network).
        revise: what is done to parameters after each step besides descending a gradient.
    """

    init: Callable[[jax.Array], tuple[Tree, Tree]]
    losses: Mapping[str, Loss]
    given: Tree = field(default_factory=dict)
    revise: Revise = unrevised
