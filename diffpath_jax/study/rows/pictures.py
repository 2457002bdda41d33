"""Real and generated images side by side, as the paper's figures draw them."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from diffpath_jax.data import marking
from diffpath_jax.data.image_files import encode_png
from diffpath_jax.data.manifest import Dataset
from diffpath_jax.data.pipeline import TRAIN
from diffpath_jax.render import image_grid
from diffpath_jax.study.results import Results
from diffpath_jax.study.row import Row
from diffpath_jax.study.rows import quality, sets
from diffpath_jax.study.step import Step
from diffpath_jax.study.steps import StudySteps
from diffpath_jax.study.table import Figure, Section

SHOWN = 12
TEST = "test"


def spread(dataset: Dataset, split: str, label: int, count: int) -> list[np.ndarray]:
    """Returns images of a class, evenly spread over a split."""
    images = [record.image for record in dataset.read(split) if record.label == label]
    chosen = np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int)
    return [images[i] for i in chosen]


def sheet(rows: Mapping[str, Sequence[np.ndarray]], columns: int, *, generated: bool = True) -> bytes:
    """Returns named rows of images of one size as a PNG file; short rows end in white, empty ones are left out.

    Args:
        rows: images by the name of their row.
        columns: images of a row.
        generated: some of them are, and the file says so.
    """
    there = {name: list(images) for name, images in rows.items() if len(images)}
    blank = np.full_like(next(iter(there.values()))[0], 255)
    padded = {name: np.stack([*images, *[blank] * (columns - len(images))]) for name, images in there.items()}
    return encode_png(image_grid.sheet(padded, headings=[]), marking.about() if generated else None)


def _show_slides(study: StudySteps, results: Results) -> Section:
    figures: list[Figure] = []
    for name in study.config.measured:
        dataset = results.dataset(study.dataset(name))
        for path in sorted((dataset.directory / "qa").glob("*.png"))[:2]:
            title = f"{sets.title_of(study, name)}: a slide, its regions, and what was taken from them"
            figures.append(Figure(title, path.read_bytes()))
        field = f"{dataset.details.fov_um:g} um, {dataset.schema.image_px[1]} px"
        title = f"{sets.title_of(study, name)}: fields of {field}, training images"
        figures.append(Figure(title, sheet(_of_classes(dataset, SHOWN), SHOWN, generated=False), pixels=True))
    return Section(figures=tuple(figures))


def _of_classes(dataset: Dataset, count: int) -> dict[str, list[np.ndarray]]:
    """Returns training images of every class."""
    return {name: spread(dataset, TRAIN, label, count) for label, name in enumerate(dataset.schema.classes)}


def _show_models(study: StudySteps, results: Results) -> Section:
    """Returns for each data set and class held-out images above those of each model, by its first sampler."""
    figures: list[Figure] = []
    for name in study.config.measured:
        first = {each.model: each for each in reversed(list(sets.measured_sets(study))) if each.dataset == name}
        real = results.dataset(study.dataset(name))
        by_model = {study.config.models[model].title: results.dataset(each.samples) for model, each in first.items()}
        figures += _by_class(f"{sets.title_of(study, name)}", real, dict(reversed(by_model.items())))
    return Section(figures=tuple(figures))


def _by_class(title: str, real: Dataset, drawn: dict[str, Dataset]) -> Iterator[Figure]:
    for label, class_name in enumerate(real.schema.classes):
        sources = {"real (test)": spread(real, TEST, label, SHOWN)}
        sources |= {name: spread(each, TRAIN, label, SHOWN) for name, each in drawn.items()}
        if any(sources.values()):
            yield Figure(f"{title}: {class_name}", sheet(sources, SHOWN), pixels=True)


def _show_samplers(study: StudySteps, results: Results) -> Section:
    """Returns the first model's images by each sampler, from the same noise."""
    dataset, model = study.config.first()
    chosen = [each for each in sets.measured_sets(study) if (each.dataset, each.model) == (dataset, model)]
    drawn = {study.config.samplers[each.sampler].title: results.dataset(each.samples) for each in chosen}
    figures: list[Figure] = []
    for label, class_name in enumerate(next(iter(drawn.values())).schema.classes):
        rows = {name: spread(each, TRAIN, label, SHOWN) for name, each in drawn.items()}
        figures.append(Figure(f"{class_name}, each column from the same noise", sheet(rows, SHOWN), pixels=True))
    return Section(figures=tuple(figures))


def _show_sizes(study: StudySteps, results: Results) -> Section:
    figures: list[Figure] = []
    for side, samples, _ in quality.sizes(study):
        dataset = results.dataset(samples)
        title = f"{side} x {side} px, {side * dataset.details.mpp:.4g} um"
        figures.append(Figure(title, sheet(_of_classes(dataset, SHOWN // 2), SHOWN // 2), pixels=True))
    return Section(figures=tuple(figures))


def _steps_of_datasets(study: StudySteps) -> Sequence[Step]:
    return [study.dataset(name) for name in study.config.measured]


def _steps_of_models(study: StudySteps) -> Sequence[Step]:
    return [*_steps_of_datasets(study), *(each.samples for each in sets.measured_sets(study))]


ROWS = (
    Row("F1", "From slide to field", "the paper, Figure 1", _steps_of_datasets, _show_slides),
    Row("F4", "Real beside generated", "the paper, Figures 4 and 5", _steps_of_models, _show_models),
    Row("F6", "Samplers from the same noise", "the paper, Figure 6", _steps_of_models, _show_samplers),
    Row(
        "F7",
        "Patch sizes",
        "the paper, Figures 7 to 9",
        lambda study: [samples for _, samples, _ in quality.sizes(study)],
        _show_sizes,
    ),
)
