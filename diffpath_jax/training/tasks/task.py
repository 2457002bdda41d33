"""The interface of a task: parameters to start from, and losses.

The training loop knows a :class:`Task` and nothing else of diffusion or classification.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypedDict, runtime_checkable

from diffpath_jax.shapes import Batch, PRNGKey, Scalar, Tree, Weighted

# Names in the parameters and in the model state: the network, its codec's, and what the timestep sampler has learnt.
NETWORK = "network"
CODEC = "codec"
TIMESTEPS = "timesteps"


class LossAux(TypedDict):
    """The second output of a loss.

    Attributes:
        metrics: numbers for the log, by name.
        model_state: the model state after the forward pass, by name.
    """

    metrics: Mapping[str, Weighted]
    model_state: Tree


@runtime_checkable
class InitFn(Protocol):
    """Makes fresh parameters."""

    def __call__(self, key: PRNGKey, /) -> tuple[Tree, Tree]:
        """Returns parameters by group, and the model state by name."""
        ...


@runtime_checkable
class LossFn(Protocol):
    """The loss of one parameter group."""

    def __call__(self, params: Tree, model_state: Tree, batch: Batch, key: PRNGKey, /) -> tuple[Scalar, LossAux]:
        """Returns the loss and what comes with it.

        Args:
            params: all parameters by group, the frozen ones too.
            model_state: by name.
            batch: images or latents, and labels.
            key: random key of the loss.
        """
        ...


@runtime_checkable
class AfterStepFn(Protocol):
    """A change of parameters after each step, besides the descent of a gradient."""

    def __call__(self, params: Tree, ema: Tree, model_state: Tree, /) -> tuple[Tree, Tree, Tree]:
        """Returns the three as they are to be.

        Args:
            params: by group.
            ema: moving average of the parameters; empty when none is kept.
            model_state: by name.
        """
        ...


def keep_all(params: Tree, ema: Tree, model_state: Tree) -> tuple[Tree, Tree, Tree]:
    """Returns what it is given: an ``after_step`` that does nothing."""
    return params, ema, model_state


@dataclass(frozen=True)
class Task:
    """Something to train.

    Attributes:
        init: makes the parameters to start from.
        losses: the loss of each parameter group; groups are updated in this order within a step.
        frozen_params: parameters by group that the losses read and nobody trains (a first stage, a perceptual network).
        after_step: change of parameters after each step, besides the descent of a gradient.
    """

    init: InitFn
    losses: Mapping[str, LossFn]
    frozen_params: Tree = field(default_factory=dict)
    after_step: AfterStepFn = keep_all
