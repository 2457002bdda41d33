"""The compiled programs of a run: one step for each shape of batch, as crops are of several sides."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax

from diffpath_jax.shapes import PRNGKey, Tree
from diffpath_jax.training.step import Step, TrainState


@runtime_checkable
class LowerFn(Protocol):
    """Traces the step."""

    def __call__(self, state: TrainState, batch: Tree, key: PRNGKey, frozen_params: Tree, /) -> jax.stages.Lowered:
        """Returns the traced step for such arrays, or shapes with shardings."""
        ...


@dataclass(frozen=True)
class Program:
    """A compiled step.

    Attributes:
        step: takes batches of one shape.
        flops: FLOP of it over all devices; 0 where unknown.
    """

    step: Step
    flops: float


class StepPrograms:
    """Compiles the step when a batch of a new shape comes.

    Args:
        lower: traces the step.
        turns: of the loop over the parts of a batch, of which XLA counts the work of one.
    """

    def __init__(self, lower: LowerFn, *, turns: int) -> None:
        self._lower, self._turns = lower, turns
        self._programs: dict[tuple[tuple[str, tuple[int, ...]], ...], Program] = {}

    def of(self, state: TrainState, batch: Tree, key: PRNGKey, frozen_params: Tree) -> Program:
        """Returns the program for a batch, or for one of such shapes."""
        shapes = tuple((name, batch[name].shape) for name in sorted(batch))
        if shapes not in self._programs:
            lowered = self._lower(state, batch, key, frozen_params)
            flops = float((lowered.cost_analysis() or {}).get("flops", 0.0))
            self._programs[shapes] = Program(lowered.compile(), flops * self._turns)
        return self._programs[shapes]
