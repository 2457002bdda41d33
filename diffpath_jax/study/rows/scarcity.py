"""Rows on the worth of generated images where real ones are few: few patients, or one class that is scarce.

The generator of each part is trained on the patients of that part alone.
"""

from collections.abc import Sequence

from diffpath_jax.study.results import COMPARISON, Results
from diffpath_jax.study.row import NEW, Row
from diffpath_jax.study.rows import arms
from diffpath_jax.study.step import Step
from diffpath_jax.study.steps import StudySteps
from diffpath_jax.study.table import Cell, Section, Table, TableRow

# --- T5d: few patients; their images train the generator too


def few_patients(study: StudySteps, share: float) -> Step:
    """Returns the comparison, with and without generated images, where there is a share of the training patients."""
    part = f"patients_{share:g}"
    return _cut(study, part, ("--patients_share", f"{share:g}"), "", f"T5d_{share:g}")


def _cut(study: StudySteps, part: str, options: Sequence[str], class_name: str, name: str) -> Step:
    """Returns the comparison on a part of the real training images, whose generator saw no other."""
    dataset, model = study.config.first()
    config = study.config.worth
    seed = ("--seed", str(study.config.seed))
    data = study.transformed(f"{dataset}/{part}/dataset", study.dataset(dataset), *options, *seed)
    arms_data = study.transformed(f"{dataset}/{part}/sets/real", arms.real(study), *options, *seed)
    generator = study.model(dataset, model, f"{part}/", data, config.few_options)
    less = ("--less", str(arms_data.out)) if class_name else ()
    counts = ("--counts_of", str((arms.real(study) if class_name else arms_data).out), *less)
    drawn = study.samples(
        generator, "added", study.config.samplers[config.sampler].options, counts, (arms.real(study), arms_data)
    )
    compared = [
        study.arm(dataset, f"{part}_real", (arms_data,)),
        study.arm(dataset, f"{part}_both", (arms_data, drawn)),
    ]
    return arms.compare(study, name, compared)


def _show_few(study: StudySteps, results: Results) -> Section:
    rows, steps = [], []
    for share in study.config.worth.patient_shares:
        step, part = few_patients(study, share), f"patients_{share:g}"
        rows += _pair_of_rows(results, step, part, f"{share:.0%} of the patients")
        steps.append(step)
    notes = ("The generator of each row was trained on the patients of that row alone.",)
    table = Table(
        "T5d", "Few patients, with and without generated images", arms.COLUMNS, tuple(rows), "trained on", notes
    )
    return Section((table,), notes=tuple(results.warnings(*steps)))


def _pair_of_rows(results: Results, step: Step, part: str, title: str) -> list[TableRow]:
    return [
        arms.arm_row(results, step, f"{part}_real", f"{title}, real"),
        arms.arm_row(results, step, f"{part}_both", f"{title}, real and generated"),
    ]


# --- T5e: one scarce class


def scarce(study: StudySteps, share: float) -> Step:
    """Returns the comparison where one class has a share of its patients, with it and topped up again."""
    name = study.config.worth.scarce_class
    return _cut(study, f"scarce_{share:g}", ("--class_share", f"{name}={share:g}"), name, f"T5e_{share:g}")


def _scarce_shares(study: StudySteps) -> tuple[float, ...]:
    return study.config.worth.scarce_shares if study.config.worth.scarce_class else ()


def _show_scarce(study: StudySteps, results: Results) -> Section:
    name, rows, steps = study.config.worth.scarce_class, [], []
    for share in _scarce_shares(study):
        step, part = scarce(study, share), f"scarce_{share:g}"
        pair = _pair_of_rows(results, step, part, f"{share:.0%} of the patients of {name}")
        rows += [
            TableRow(row.name, (*row.entries, _recall(results, step, number, name))) for number, row in enumerate(pair)
        ]
        steps.append(step)
    if not steps:
        return Section(notes=("No class is named to be cut (worth.scarce_class).",))
    columns = (*arms.COLUMNS, f"recall of {name}, %")
    table = Table("T5e", "One class cut, and topped up with generated images", columns, tuple(rows), "trained on")
    return Section((table,), notes=tuple(results.warnings(*steps)))


def _recall(results: Results, step: Step, arm: int, class_name: str) -> Cell | None:
    recall = results.json(step, COMPARISON)["arms"][arm]["recall"][class_name]
    source = results.source(step, COMPARISON, "arms", arm, "recall", class_name)
    return None if recall is None else Cell(recall, source=source, digits=1, percent=True)


ROWS = (
    Row(
        "T5d",
        "Few patients",
        NEW,
        lambda study: [few_patients(study, share) for share in study.config.worth.patient_shares],
        _show_few,
    ),
    Row(
        "T5e",
        "One scarce class",
        NEW,
        lambda study: [scarce(study, share) for share in _scarce_shares(study)],
        _show_scarce,
    ),
)
