"""The scorecard of a card: seven criteria of synthetic medical data, each with what was measured.

The criteria are those of Zamzmi et al. 2024, "Scorecard for synthetic medical data evaluation" (US FDA): congruence,
coverage, constraint, completeness, compliance, comprehension, consistency.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from diffpath_jax.evaluation.record import MEASURED, OVERALL, EvaluationRecord, Number, SkippedAudit
from diffpath_jax.evaluation.table import words

NOT_MEASURED = "not measured"
_QUESTIONS = {
    "congruence": "are they like real images?",
    "coverage": "do they show all that real images show?",
    "constraint": "do they keep what tissue always keeps (stain, nuclei, class)?",
    "completeness": "does each say what is needed to use it?",
    "compliance": "may they be passed on?",
    "comprehension": "is it known how they were made?",
    "consistency": "do numbers hold from set to set?",
}
# Metrics of how much of the real images is shown; those of the first publication have a suffix.
_COVERAGE = ("recall", "coverage")


@dataclass(frozen=True)
class Facts:
    """What the scorecard is filled from.

    Attributes:
        evaluations: of what is published.
        completeness: what each record, or the file, says.
        compliance: licence, marks, what is left out.
        comprehension: how it was made.
    """

    evaluations: Sequence[EvaluationRecord]
    completeness: tuple[str, ...]
    compliance: tuple[str, ...]
    comprehension: tuple[str, ...]


def lines(facts: Facts) -> list[str]:
    """Returns the scorecard as rows of a Markdown table."""
    found: Mapping[str, Iterable[str]] = {
        "congruence": _numbers(facts.evaluations, covers=False),
        "coverage": _numbers(facts.evaluations, covers=True),
        "constraint": _constraint(facts.evaluations),
        "completeness": facts.completeness,
        "compliance": (*facts.compliance, *verdicts(facts.evaluations)),
        "comprehension": facts.comprehension,
        "consistency": _consistency(facts.evaluations),
    }
    rows = [
        f"| {name} | {question} | {'; '.join(found[name]).replace('|', '/') or NOT_MEASURED} |"
        for name, question in _QUESTIONS.items()
    ]
    return ["| criterion | asks | found |", "| --- | --- | --- |", *rows]


def verdicts(evaluations: Sequence[EvaluationRecord]) -> tuple[str, ...]:
    """Returns what memorisation audits said; that there was none where there was none."""
    audits = [each.audit for each in evaluations]
    said = [f"none ({each.skipped})" if isinstance(each, SkippedAudit) else each.copies.verdict for each in audits]
    return tuple(f"audit: {each}" for each in dict.fromkeys(said)) or (f"audit: {NOT_MEASURED}",)


def alarms(evaluations: Sequence[EvaluationRecord]) -> list[str]:
    """Returns the verdicts of audits that found more copies than false alarms explain."""
    audits = [each.audit for each in evaluations if not isinstance(each.audit, SkippedAudit)]
    return [audit.copies.verdict for audit in audits if audit.copies.copying]


def _overall(evaluation: EvaluationRecord) -> list[tuple[str, Mapping[str, Number]]]:
    """Returns the numbers of all images in each feature space."""
    rows = [(part.features.name, part.rows.get(MEASURED, {}).get(OVERALL)) for part in evaluation.distances or ()]
    return [(name, row.metrics) for name, row in rows if row]


def _numbers(evaluations: Sequence[EvaluationRecord], *, covers: bool) -> list[str]:
    return [
        f"{words(metric, number)} in {space}"
        for each in evaluations
        for space, metrics in _overall(each)
        for metric, number in metrics.items()
        if metric.startswith(_COVERAGE) == covers
    ]


def _constraint(evaluations: Sequence[EvaluationRecord]) -> list[str]:
    said = []
    for each in evaluations:
        for rows in (each.stain, each.nuclei):
            row = (rows or {}).get(MEASURED, {}).get(OVERALL)
            said += [words(metric, number) for metric, number in (row.metrics if row else {}).items()]
        said += [
            f"classifier {entry.classifier.title} agrees with {entry.accuracy:.1%} of the labels"
            for entry in each.classification
            if entry.set == MEASURED
        ]
    return said


def _consistency(evaluations: Sequence[EvaluationRecord]) -> list[str]:
    """Returns the range of each number over several evaluations, such as of sets of several seeds."""
    values: dict[str, list[float]] = {}
    for each in evaluations:
        for space, metrics in _overall(each):
            for metric, number in metrics.items():
                values.setdefault(f"{metric} in {space}", []).append(number.value)
    return [
        f"{name}: {min(many):.4g} to {max(many):.4g} over {len(many)} evaluations"
        for name, many in values.items()
        if len(many) > 1
    ]
