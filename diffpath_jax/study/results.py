"""Results of the steps of a study: numbers, each with its place in the file it stands in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffpath_jax.data.manifest import Dataset, open_dataset
from diffpath_jax.evaluation import record
from diffpath_jax.evaluation.record import FLOOR, MEASURED, OVERALL, Distances, EvaluationRecord
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.sealed import read_sealed
from diffpath_jax.study.step import Step
from diffpath_jax.study.table import Cell

COMPARISON = "comparison.json"


@dataclass(frozen=True)
class Results:
    """Reads what steps left.

    Attributes:
        workdir: directory of the study.
    """

    workdir: Path

    def dataset(self, step: Step) -> Dataset:
        """Returns the data set that a step left.

        Raises:
            DiffpathError: it is not there, or damaged.
        """
        return open_dataset(step.out, verify=False)

    def evaluation(self, step: Step) -> EvaluationRecord:
        """Returns what an evaluation measured.

        Raises:
            DiffpathError: it is not there, or damaged.
        """
        return record.read(step.out / record.METRICS)

    def json(self, step: Step, file: str) -> Any:
        """Returns a JSON file of a step.

        Raises:
            DiffpathError: it is not there, or damaged.
        """
        return read_sealed(step.out / file, dict, what=file, fix="run the study again")

    def source(self, step: Step, file: str, *pointer: str | int) -> str:
        """Returns file and JSON pointer of a number."""
        parts = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in pointer)
        return f"{step.name}/{file}#{parts}"

    def metric(
        self, step: Step, name: str, *, space: int = 0, of: str = MEASURED, group: str = OVERALL, digits: int = 2
    ) -> Cell | None:
        """Returns a metric of an evaluation; none where it was not measured.

        Args:
            step: the evaluation.
            name: of the metric, in its feature space.
            space: number of the feature space.
            of: the set, ``generated`` or ``floor``.
            group: class, or ``overall``.
            digits: decimal places that are shown.
        """
        measured = self.evaluation(step)
        row = self.spaces(step)[space].rows.get(of, {}).get(group)
        number = row.metrics.get(name) if row else None
        if row is None or number is None:
            return None
        pointer = ("distances", space, "rows", of, group, "metrics", name, "value")
        patients = getattr(measured.reference, "patients", None)
        source = self.source(step, record.METRICS, *pointer)
        return Cell(number.value, number.low, number.high, row.n_other, patients, source, digits)

    def spaces(self, step: Step) -> Sequence[Distances]:
        """Returns the distances of an evaluation, by feature space."""
        return self.evaluation(step).distances or ()

    def floor(self, step: Step, name: str, **options: Any) -> Cell | None:
        """Returns what real images reach in a metric; none where it was not measured."""
        return self.metric(step, name, of=FLOOR, **options)

    def score(self, step: Step, arm: str, score: str) -> Cell:
        """Returns a score of an arm of a comparison.

        Raises:
            DiffpathError: the comparison has no such arm.
        """
        number, arms = self._arm(step, "arms", "name", arm)
        return self._interval(step, arms["scores"][score], "arms", number, "scores", score)

    def difference(self, step: Step, arm: str, score: str) -> Cell:
        """Returns by how much an arm of a comparison is better than its first.

        Raises:
            DiffpathError: the comparison has no such arm.
        """
        number, arms = self._arm(step, "differences", "arm", arm)
        return self._interval(step, arms["scores"][score], "differences", number, "scores", score, signed=True)

    def warnings(self, *steps: Step) -> Iterator[str]:
        """Yields what is to be doubted of comparisons, each once."""
        told: set[str] = set()
        for step in steps:
            new = [text for text in self.json(step, COMPARISON)["warnings"] if text not in told]
            told |= set(new)
            yield from new

    def _arm(self, step: Step, part: str, key: str, arm: str) -> tuple[int, Any]:
        arms = self.json(step, COMPARISON)[part]
        for number, each in enumerate(arms):
            if each[key] == arm:
                return number, each
        names = [each[key] for each in arms]
        where, fix = step.out / COMPARISON, "run the study again in a directory of its own"
        raise DiffpathError(f"arm {arm!r}", where=where, why=f"it holds {names}", fix=fix)

    def _interval(self, step: Step, content: Any, *pointer: str | int, signed: bool = False) -> Cell:
        n = self.json(step, COMPARISON)["test"]["n"]
        source = self.source(step, COMPARISON, *pointer, "value")
        ends = content["low"], content["high"]
        return Cell(content["value"], *ends, n, content["patients"], source, digits=1, percent=True, signed=signed)
