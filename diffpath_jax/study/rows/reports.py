"""A page of its own for each model: what went in, how it learnt, what came out (``diffpath report``)."""

from collections.abc import Iterator, Sequence

from diffpath_jax.study.results import Results
from diffpath_jax.study.row import NEW, Row
from diffpath_jax.study.rows import sets
from diffpath_jax.study.rows.sets import MeasuredSet
from diffpath_jax.study.step import Step
from diffpath_jax.study.steps import StudySteps
from diffpath_jax.study.table import Section


def reports(study: StudySteps) -> Iterator[Step]:
    """Yields the report of every model."""
    for dataset in study.config.measured:
        for model in study.config.datasets[dataset].models:
            yield _report(study, dataset, model)


def _report(study: StudySteps, dataset: str, model: str) -> Step:
    data, trained = study.dataset(dataset), study.model(dataset, model)
    measured = [each for each in sets.measured_sets(study) if (each.dataset, each.model) == (dataset, model)]
    classifiers = _classifiers(study, measured[0])
    tested = [_tested(study, dataset, run) for run in classifiers]
    words = ["report", "--dataset", str(data.out), "--workdir", str(trained.out)]
    needs = [data, trained, *classifiers, *tested]
    if study.config.models[model].first_stage:
        stage, back = study.autoencoder(dataset, model), study.reconstructions(dataset, model)
        words += ["--autoencoder", str(stage.out), "--reconstructions", str(back.out)]
        needs += [stage, back]
    inputs = {
        "samples": [each.samples for each in measured],
        "classifiers": classifiers,
        "evals": [*(each.evaluation for each in measured), *tested],
    }
    for option, steps in inputs.items():
        words += [f"--{option}", *(str(step.out) for step in steps)]
        needs += [step for step in steps if step not in needs]
    return study.command(f"reports/{dataset}_{model}.html", words, needs)


def _classifiers(study: StudySteps, measured: MeasuredSet) -> list[Step]:
    """Returns classifiers of real images, of a generated set, and of both: one training each, so a first look only."""
    data, samples, place = study.dataset(measured.dataset), measured.samples, f"{measured.dataset}/classifiers"
    return [
        study.classifier_of_all(measured.dataset),
        study.classifier(f"{place}/{measured.model}_generated", [samples]),
        study.classifier(f"{place}/{measured.model}_both", [data, samples]),
    ]


def _tested(study: StudySteps, dataset: str, run: Step) -> Step:
    """Returns what a classifier makes of the real test images."""
    data, name = study.dataset(dataset), run.name.rpartition("/")[2]
    words = ["eval", "--real", str(data.out), "--classifier", str(run.out), *study.feature_cache]
    return study.command(f"{dataset}/evals/classifier_{name}", words, [data, run])


def _show(study: StudySteps, results: Results) -> Section:
    names = [str(step.out.relative_to(study.workdir)) for step in reports(study)]
    return Section(notes=tuple(f"A page of its own for a model is in {name}." for name in names))


def _steps(study: StudySteps) -> Sequence[Step]:
    return list(reports(study))


ROWS = (Row("R", "A page for each model", NEW, _steps, _show),)
