"""Rows on the worth of generated images as training data (Table 5 of the paper, and how far it goes)."""

from collections.abc import Sequence

from diffpath_jax.study import paper
from diffpath_jax.study.results import Results
from diffpath_jax.study.row import NEW, Row
from diffpath_jax.study.rows import arms, sets
from diffpath_jax.study.step import Step
from diffpath_jax.study.steps import OWN_CLASSIFIER, ArmSteps, StudySteps
from diffpath_jax.study.table import Cell, Section, Table


def _as_in_the_paper(study: StudySteps) -> Step:
    return arms.compare(study, "T5a", arms.paper_arms(study))


def _show_paper_arms(study: StudySteps, results: Results) -> Section:
    step, name = _as_in_the_paper(study), study.config.datasets[study.config.first()[0]].paper
    rows = tuple(
        arms.arm_row(results, step, arm, title, paper.accuracy(name, images))
        for (arm, title), images in zip(arms.TITLES.items(), ("real", "generated", "both"), strict=True)
    )
    columns = (*arms.COLUMNS, "paper: accuracy, %")
    table = Table("T5a", "Real, generated, both", columns, rows, "trained on")
    return Section((table,), notes=tuple(results.warnings(step)))


# --- T5b: generated images alone


def _alone(study: StudySteps) -> Step:
    compared = [arms.alone(study, amount) for amount in study.config.worth.alone]
    return arms.compare(study, "T5b", [arms.baseline(study), *compared])


def _show_alone(study: StudySteps, results: Results) -> Section:
    step = _alone(study)
    reference = results.score(step, arms.REAL, arms.SCORE)
    rows = [arms.arm_row(results, step, arms.REAL, "real", None)]
    for times in study.config.worth.alone:
        arm = f"generated_{times:g}"
        share = results.score(step, arm, arms.SCORE).value / reference.value
        cell = Cell(share, source=results.score(step, arm, arms.SCORE).source, digits=3)
        rows.append(arms.arm_row(results, step, arm, f"{times:g} generated for each real one", cell))
    columns = (*arms.COLUMNS, "share of the real score (CAS)")
    notes = (_exchange_rate(study, results, step),)
    return Section((Table("T5b", "Generated images alone", columns, tuple(rows), "trained on", notes),))


def _exchange_rate(study: StudySteps, results: Results, step: Step) -> str:
    """Returns how many generated images do what one real image does, in words."""
    reference = results.score(step, arms.REAL, arms.SCORE).value
    for times in sorted(study.config.worth.alone):
        if results.score(step, f"generated_{times:g}", arms.SCORE).value >= reference:
            return f"{times:g} generated images a real one reach its score"
    return f"up to {max(study.config.worth.alone):g} generated images a real one do not reach its score"


# --- T5c: generated images added to real ones; how many is chosen on validation images


def _added_arms(study: StudySteps) -> list[ArmSteps]:
    return [arms.baseline(study), *(arms.with_real(study, amount) for amount in study.config.worth.added)]


def added(study: StudySteps, split: str = "test") -> Step:
    """Returns the comparison of real images alone with real and generated ones."""
    name = "T5c" if split == "test" else f"T5c_{split}"
    return arms.compare(study, name, _added_arms(study), "--split", split)


def chosen_amount(study: StudySteps, results: Results) -> float:
    """Returns which amount of generated images is best on validation images; 0 where none is better."""
    step = added(study, "val")
    scores = {0.0: results.score(step, arms.REAL, arms.SCORE).value}
    scores |= {each: results.score(step, f"added_{each:g}", arms.SCORE).value for each in study.config.worth.added}
    return max(scores, key=lambda each: (scores[each], -each))


def _show_added(study: StudySteps, results: Results) -> Section:
    step, watched, best = added(study), added(study, "val"), chosen_amount(study, results)
    rows = []
    for amount in (0.0, *study.config.worth.added):
        arm = f"added_{amount:g}" if amount else arms.REAL
        title = f"real and {amount:g} generated for each" if amount else "real"
        validation = results.score(watched, arm, arms.SCORE)
        rows.append(arms.arm_row(results, step, arm, f"{title}{' (chosen)' if amount == best else ''}", validation))
    columns = (*arms.COLUMNS, "balanced accuracy on validation images, %")
    notes = (f"{best:g} generated images a real one are best on validation images; the test images had no part in it",)
    table = Table("T5c", "Generated images added to real ones", columns, tuple(rows), "trained on", notes)
    return Section((table,), notes=tuple(results.warnings(step)))


# --- T5h: a linear probe; T5i: another data set


_PROBED = {arms.REAL: (1.0, 0.0), arms.GENERATED: (0.0, 1.0), arms.BOTH: (1.0, 1.0)}


def probes(study: StudySteps) -> Step:
    """Returns the comparison of linear probes on features that nothing here was trained for."""
    dataset = study.config.first()[0]
    compared = [
        ArmSteps(
            f"probe_{name}",
            tuple(_probe(study, f"{dataset}/probes/{name}", amounts, seed) for seed in _seeds(study)),
        )
        for name, amounts in _PROBED.items()
    ]
    return arms.compare(study, "T5h", compared)


def _seeds(study: StudySteps) -> range:
    return range(study.config.classifier.seeds)


def _probe(study: StudySteps, name: str, amounts: tuple[float, float], seed: int) -> Step:
    """Returns a probe on so much of the real images, and so much of generated ones."""
    own, features = study.classifier_of_all(study.config.first()[0]), study.config.worth.probe
    real, generated = arms.real(study), arms.pool(study)
    words = ["probe", "--features", str(own.out) if features == OWN_CLASSIFIER else features]
    words += ["--data", f"{real.out},{generated.out}", "--mixture", f"({amounts[0]}, {amounts[1]})"]
    words += ["--seed", str(seed), *study.feature_cache]
    return study.command(f"{name}/seed{seed}", words, (real, generated, own))


def _show_probes(study: StudySteps, results: Results) -> Section:
    compared = [(f"probe_{name}", title) for name, title in arms.TITLES.items()]
    return arms.arms_section(results, "T5h", "Linear probe in place of a network", probes(study), compared)


def external(study: StudySteps) -> Step | None:
    """Returns the comparison of the paper's arms on another data set; none where the study names none."""
    worth = study.config.worth
    if not worth.external:
        return None
    options = ("--classes", worth.external_classes) if worth.external_classes else ()
    return study.comparison("T5i", worth.external, arms.paper_arms(study), *options)


def _show_external(study: StudySteps, results: Results) -> Section:
    step = external(study)
    if step is None:
        return Section(notes=("No other data set is named to test on (worth.external).",))
    name = sets.title_of(study, study.config.worth.external)
    return arms.arms_section(results, "T5i", f"Tested on {name}", step, list(arms.TITLES.items()))


def _external_steps(study: StudySteps) -> Sequence[Step]:
    step = external(study)
    return [step] if step else []


ROWS = (
    Row(
        "T5a",
        "Real, generated, both",
        paper.TABLE_5,
        lambda study: [_as_in_the_paper(study)],
        _show_paper_arms,
    ),
    Row("T5b", "Generated images alone", f"{NEW}; Ravuri and Vinyals 2019", lambda study: [_alone(study)], _show_alone),
    Row("T5c", "Generated added to real", NEW, lambda study: [added(study), added(study, "val")], _show_added),
    Row("T5h", "Linear probe", NEW, lambda study: [probes(study)], _show_probes),
    Row("T5i", "Another data set", NEW, _external_steps, _show_external),
)
