"""The sets of images that several rows of a study measure and show."""

from collections.abc import Iterator
from dataclasses import dataclass

from diffpath_jax.study.config import SamplerRow
from diffpath_jax.study.step import Step
from diffpath_jax.study.steps import StudySteps


@dataclass(frozen=True)
class MeasuredSet:
    """Images of a model by a sampler.

    Attributes:
        dataset: name of the data set.
        model: name of the model.
        sampler: name of the sampler.
        samples: their drawing.
        evaluation: their measurement.
    """

    dataset: str
    model: str
    sampler: str
    samples: Step
    evaluation: Step


def measured_sets(study: StudySteps) -> Iterator[MeasuredSet]:
    """Yields every model by every sampler; the first set of each data set is measured beside the floor."""
    for dataset in study.config.measured:
        floor: tuple[str, ...] = ()
        for model in study.config.datasets[dataset].models:
            for sampler in study.config.compared:
                row = study.config.samplers[sampler]
                if not row.models or model in row.models:
                    yield measured_set(study, dataset, model, sampler, row, *floor, *study.label_check(dataset))
                    # All sets of a data set are of one size, and so have one floor.
                    floor = ("--floor", "none")


def first_set(study: StudySteps) -> MeasuredSet:
    """Returns the set that is measured wherever one is enough: the first model's, by its first sampler."""
    return next(measured_sets(study))


def solver_sets(study: StudySteps) -> Iterator[MeasuredSet]:
    """Yields the first model by every other solver."""
    dataset, model = study.config.first()
    for sampler in study.config.solvers:
        yield measured_set(study, dataset, model, sampler, study.config.samplers[sampler], "--floor", "none")


def measured_set(
    study: StudySteps, dataset: str, model: str, sampler: str, row: SamplerRow, *options: str
) -> MeasuredSet:
    """Returns a model by a sampler, with more options of its evaluation."""
    samples = study.samples(study.model(dataset, model), sampler, f"{row.options} --grid")
    evaluation = study.evaluation(f"{model}/{sampler}", dataset, samples, *options)
    return MeasuredSet(dataset, model, sampler, samples, evaluation)


def title_of(study: StudySteps, dataset: str) -> str:
    """Returns what a data set is called on the page."""
    return study.config.datasets[dataset].title or dataset
