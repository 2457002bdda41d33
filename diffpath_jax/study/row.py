"""A row of a study: the steps that it asks for, and what it shows of their results."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from diffpath_jax.study.results import Results
from diffpath_jax.study.step import Step
from diffpath_jax.study.steps import StudySteps
from diffpath_jax.study.table import Section

# The source of a row that the paper does not have.
NEW = "not in the paper"


@runtime_checkable
class MakeSteps(Protocol):
    """Names the steps whose results a row shows."""

    def __call__(self, study: StudySteps, /) -> Sequence[Step]:
        """Returns them; what they need comes with them."""
        ...


@runtime_checkable
class Show(Protocol):
    """Makes tables and figures of results."""

    def __call__(self, study: StudySteps, results: Results, /) -> Section:
        """Returns them.

        Raises:
            DiffpathError: a result is not there, or damaged.
        """
        ...


@dataclass(frozen=True)
class Row:
    """A row of a study.

    Attributes:
        key: its name on the command line, such as ``T3``.
        title: what it shows.
        source: table or figure of the paper that it repeats, or what it is taken from.
        steps: names its steps.
        show: makes its tables and figures.
    """

    key: str
    title: str
    source: str
    steps: MakeSteps
    show: Show
