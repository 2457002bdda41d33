"""The arms of a study: classifiers on real images, on generated ones, on mixtures of both, and how they compare.

Arms differ in their training images alone: the same network, the same steps, the same seeds, tested on the same
held-out patients. Differences are paired over patients and seeds (:mod:`diffpath_jax.metrics.paired`).
"""

from collections.abc import Sequence

from diffpath_jax.study.results import COMPARISON, Results
from diffpath_jax.study.step import Step
from diffpath_jax.study.steps import ArmSteps, StudySteps
from diffpath_jax.study.table import Entry, Section, Table, TableRow

SCORE = "balanced_accuracy"
# What the comparison of every arm shows.
SCORES = {"accuracy": "accuracy, %", SCORE: "balanced accuracy, %", "macro_f1": "macro F1, %"}
# The arms of the paper: real images, as many generated ones, and both.
REAL, GENERATED, BOTH = "real", "generated_1", "added_1"
TITLES = {REAL: "real", GENERATED: "generated, as many", BOTH: "both"}


def real(study: StudySteps, dataset: str = "") -> Step:
    """Returns the real training images of the arms, with the splits that they are watched and tested on."""
    name, count = dataset or study.config.first()[0], study.config.worth.real_per_class
    all_images = study.dataset(name)
    if not count:
        return all_images
    options = ("--num_per_class", str(count), "--seed", str(study.config.seed))
    return study.transformed(f"{name}/sets/real", all_images, *options)


def pool(study: StudySteps) -> Step:
    """Returns generated images, as many as the row that takes most of them needs."""
    worth = study.config.worth
    return generated(study, "pool", max(1.0, *worth.alone, *worth.added))


def generated(study: StudySteps, name: str, times: float) -> Step:
    """Returns a set of the first model, so many times as large as the real training images."""
    dataset, model = study.config.first()
    options = study.config.samplers[study.config.worth.sampler].options
    counts = ("--counts_of", str(real(study).out), "--times", f"{times:g}")
    return study.samples(study.model(dataset, model), name, options, counts, (real(study),))


def mixed(study: StudySteps, name: str, amounts: Sequence[float], second: Step | None = None) -> ArmSteps:
    """Returns an arm of the first data set: so much of the real images, and so much of generated ones."""
    return study.arm(study.config.first()[0], name, (real(study), second or pool(study)), amounts)


def alone(study: StudySteps, amount: float) -> ArmSteps:
    """Returns the arm of generated images alone, so many for each real one."""
    return mixed(study, f"generated_{amount:g}", (0.0, amount))


def with_real(study: StudySteps, amount: float) -> ArmSteps:
    """Returns the arm of real images with so many generated ones for each."""
    return mixed(study, f"added_{amount:g}", (1.0, amount))


def baseline(study: StudySteps) -> ArmSteps:
    """Returns the arm of real images alone."""
    return study.arm(study.config.first()[0], REAL, (real(study),))


def compare(study: StudySteps, name: str, arms: Sequence[ArmSteps], *options: str) -> Step:
    """Returns the comparison of arms on the first data set's test patients."""
    return study.comparison(name, study.config.first()[0], arms, *options)


def arm_row(results: Results, step: Step, arm: str, title: str, *others: Entry) -> TableRow:
    """Returns the scores of an arm, and what it gains on the first; nothing for the first itself."""
    first = results.json(step, COMPARISON)["arms"][0]["name"]
    gain = None if arm == first else results.difference(step, arm, SCORE)
    return TableRow(title, (*(results.score(step, arm, score) for score in SCORES), gain, *others))


COLUMNS = (*SCORES.values(), "gain in balanced accuracy, points")


def arms_section(
    results: Results, key: str, title: str, step: Step, arms: Sequence[tuple[str, str]], notes: Sequence[str] = ()
) -> Section:
    """Returns the table of one comparison; ``arms`` are (name, title)."""
    rows = tuple(arm_row(results, step, name, words) for name, words in arms)
    return Section((Table(key, title, COLUMNS, rows, "trained on", tuple(notes)),), notes=tuple(results.warnings(step)))


def paper_arms(study: StudySteps) -> list[ArmSteps]:
    """Returns the arms of real images, of as many generated ones, and of both."""
    return [baseline(study), alone(study, 1.0), with_real(study, 1.0)]
