"""Rows on distances to real images: models, samplers, solvers, patch sizes (Tables 2 to 4 of the paper)."""

from collections.abc import Iterator, Sequence

from diffpath_jax.study import paper
from diffpath_jax.study.results import Results
from diffpath_jax.study.row import NEW, Row
from diffpath_jax.study.rows import sets
from diffpath_jax.study.rows.sets import MeasuredSet
from diffpath_jax.study.step import Step
from diffpath_jax.study.steps import StudySteps
from diffpath_jax.study.table import Cell, Entry, Section, Table, TableRow

# The Frechet distance and its kin are called FID and KID in one network's features alone.
OTHER_FEATURES = "Distances in other features than FID's cannot be set beside the paper's."


def _steps_of_sets(study: StudySteps) -> Sequence[Step]:
    return [each.evaluation for each in sets.measured_sets(study)]


def _show_models(study: StudySteps, results: Results) -> Section:
    measured = list(sets.measured_sets(study))
    return Section(tables=tuple(_distance_tables(study, results, "T3", "Models and samplers", measured)))


def _distance_tables(
    study: StudySteps, results: Results, key: str, title: str, measured: Sequence[MeasuredSet]
) -> Iterator[Table]:
    """Yields a table for each feature space, of sets beside their floors and the paper's numbers."""
    for space, distances in enumerate(results.spaces(measured[0].evaluation)):
        features = distances.features
        rows = [row for each in measured for row in _distance_rows(study, results, each, space)]
        yield Table(
            f"{key}_{features.name}",
            f"{title}, in {features.name}",
            (features.frechet_name, features.kernel_name, "network calls an image", "paper: FID", "paper: KID"),
            tuple(rows),
            first="set",
            notes=() if features.published else (OTHER_FEATURES,),
        )


def _distance_rows(study: StudySteps, results: Results, each: MeasuredSet, space: int) -> Iterator[TableRow]:
    images, row = study.config.datasets[each.dataset], study.config.samplers[each.sampler]
    names = sets.title_of(study, each.dataset), study.config.models[each.model].title, row.title
    spoken = images.paper, study.config.models[each.model].paper, row.paper
    paper_numbers = (paper.fid(*spoken), paper.kid(*spoken))
    calls = _network_calls(results, each)
    yield TableRow(", ".join(names), (*_distances(results, each.evaluation, space), calls, *paper_numbers))
    floor = _floor(results, each.evaluation, space)
    if any(floor):
        yield TableRow(f"{names[0]}, real images (floor)", (*floor, None, None, None), floor=True)


def _distances(results: Results, evaluation: Step, space: int) -> tuple[Entry, Entry]:
    features = results.spaces(evaluation)[space].features
    return (
        results.metric(evaluation, features.frechet_name, space=space),
        results.metric(evaluation, features.kernel_name, space=space, digits=4),
    )


def _floor(results: Results, evaluation: Step, space: int) -> tuple[Entry, Entry]:
    features = results.spaces(evaluation)[space].features
    return (
        results.floor(evaluation, features.frechet_name, space=space),
        results.floor(evaluation, features.kernel_name, space=space, digits=4),
    )


def _network_calls(results: Results, each: MeasuredSet) -> Cell | None:
    sampling = results.dataset(each.samples).details.sampling or {}
    calls = sampling.get("evaluations")
    source = results.source(each.samples, "manifest.json", "details", "sampling", "evaluations")
    return None if calls is None else Cell(calls, source=source, digits=0)


def _show_studies(study: StudySteps, results: Results) -> Section:
    """Returns Table 2: the paper's FID, those that it cites, and ours by the first sampler."""
    rows = []
    for dataset in study.config.measured:
        for model in study.config.datasets[dataset].models:
            each = next(each for each in sets.measured_sets(study) if (each.dataset, each.model) == (dataset, model))
            classes = results.dataset(study.dataset(dataset)).schema.classes
            name = f"this study, {sets.title_of(study, dataset)}, {study.config.models[model].title}"
            source = results.source(study.dataset(dataset), "manifest.json", "classes")
            rows.append(
                TableRow(
                    name,
                    (Cell(len(classes), source=source, digits=0), *_distances(results, each.evaluation, 0)[:1], None),
                )
            )
    rows += [
        TableRow(
            f"the paper, {name}", (Cell(classes, source=paper.TABLE_2, digits=0), None, Cell(fid, source=paper.TABLE_2))
        )
        for (name, classes), fid in paper.FIDS.items()
    ]
    features = results.spaces(sets.first_set(study).evaluation)[0].features
    notes = () if features.published else (OTHER_FEATURES,)
    columns = ("classes", features.frechet_name, "FID as published")
    return Section((Table("T2", "This study beside published ones", columns, tuple(rows), "study", notes),))


def _steps_of_solvers(study: StudySteps) -> Sequence[Step]:
    return [each.evaluation for each in (sets.first_set(study), *sets.solver_sets(study))]


def _show_solvers(study: StudySteps, results: Results) -> Section:
    measured = [sets.first_set(study), *sets.solver_sets(study)]
    return Section(tables=tuple(_distance_tables(study, results, "T3b", "Solvers, guidance, scaling", measured)))


def sizes(study: StudySteps) -> Iterator[tuple[int, Step, Step]]:
    """Yields (side in pixels, set of that size, its measurement) for each patch size of the first model."""
    dataset, model = study.config.first()
    row = study.config.samplers[sets.first_set(study).sampler]
    for side in study.config.patch_sizes:
        samples = study.samples(
            study.model(dataset, model), f"patch_{side}px", f"{row.options} --patch_px {side} --grid"
        )
        yield side, samples, study.evaluation(f"patch_{side}px", dataset, samples, patch_px=side)


def _show_sizes(study: StudySteps, results: Results) -> Section:
    dataset, _ = study.config.first()
    images = study.config.datasets[dataset]
    rows = []
    for side, samples, evaluation in sizes(study):
        features = results.spaces(evaluation)[0].features
        details = results.dataset(samples).details
        field = Cell(side * details.mpp, source=results.source(samples, "manifest.json", "details", "mpp"), digits=0)
        fid = paper.FID_BY_SIDE.get(side / images.patch_px)
        numbers = (
            results.metric(evaluation, features.frechet_name),
            results.floor(evaluation, features.frechet_name),
            None if fid is None else Cell(fid, source=paper.TABLE_4),
        )
        trained = " (trained)" if side == images.patch_px else ""
        rows.append(TableRow(f"{side} x {side} px{trained}", (field, *numbers)))
    columns = ("field, um", "Frechet distance", "real images (floor)", "paper: FID at this share of the side")
    notes = (
        "Each size is measured against real fields of the same size and um/px. Where the features are those of a "
        "classifier, each size has one of its own, so that rows compare with their floor and not with each other.",
    )
    return Section((Table("T4", "Patch sizes", columns, tuple(rows), "images", notes),))


ROWS = (
    Row("T2", "Beside published studies", paper.TABLE_2, _steps_of_sets, _show_studies),
    Row("T3", "Models and samplers", paper.TABLE_3, _steps_of_sets, _show_models),
    Row("T3b", "Few-step solvers, guidance, the authors' sampler", NEW, _steps_of_solvers, _show_solvers),
    Row(
        "T4",
        "Patch sizes",
        paper.TABLE_4,
        lambda study: [evaluation for *_, evaluation in sizes(study)],
        _show_sizes,
    ),
)
