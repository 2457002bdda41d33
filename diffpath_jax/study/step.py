"""Steps of a study: each is a public command of this project, what it leaves, and which steps it needs before it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """One command of a study.

    Attributes:
        name: unique in the study; names parts with slashes, as the directories are.
        command: words after ``diffpath``.
        out: directory (or file) that it leaves.
        needs: steps that must be done before it.
    """

    name: str
    command: tuple[str, ...]
    out: Path
    needs: tuple["Step", ...] = ()


def in_order(leaves: Iterable[Step]) -> tuple[Step, ...]:
    """Returns steps and all that they need, each once, and none before what it needs.

    Raises:
        ValueError: two different steps have one name.
    """
    steps: dict[str, Step] = {}
    for leaf in leaves:
        for step in _with_needs(leaf):
            if steps.setdefault(step.name, step) != step:
                raise ValueError(f"two different steps are called {step.name!r}")
    return tuple(steps.values())


def _with_needs(step: Step) -> Iterator[Step]:
    for need in step.needs:
        yield from _with_needs(need)
    yield step
