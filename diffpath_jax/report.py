"""One self-contained HTML page of a study: what went in, what came out, how good it is, and every setting."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from diffpath_jax.config.first_stage import FirstStage
from diffpath_jax.data import marking
from diffpath_jax.data.image_files import encode_png
from diffpath_jax.data.manifest import Dataset
from diffpath_jax.evaluation import table
from diffpath_jax.evaluation.record import (
    FLOOR,
    MEASURED,
    OVERALL,
    REFERENCE,
    AuditRecord,
    Classification,
    EvaluationRecord,
    FeatureSpace,
    Row,
    SetRecord,
)
from diffpath_jax.evaluation.table import Cell
from diffpath_jax.latents.reconstruct import SHEET
from diffpath_jax.networks.pure import count_parameters
from diffpath_jax.render import html, image_grid
from diffpath_jax.runs import run as runs
from diffpath_jax.training.metrics_log import read_metrics
from diffpath_jax.training.tasks.losses import NOISE_LEVELS

SHOWN_PER_CLASS = 16


@dataclass(frozen=True)
class AutoencoderStudy:
    """The autoencoder of a latent model.

    Attributes:
        run: its training.
        reconstructions: what it makes of held-out images.
    """

    run: runs.Run
    reconstructions: Dataset


@dataclass(frozen=True)
class Study:
    """The parts of a report.

    Attributes:
        dataset: the real images.
        run: the diffusion model.
        first_stage: its autoencoder; none for a model of pixels.
        samples: name -> generated set.
        classifiers: name -> classifier run.
        evaluations: what ``diffpath eval`` measured.
    """

    dataset: Dataset
    run: runs.Run
    first_stage: AutoencoderStudy | None
    samples: Mapping[str, Dataset]
    classifiers: Mapping[str, runs.Run]
    evaluations: Sequence[EvaluationRecord]


@dataclass(frozen=True)
class AutoencoderSection:
    """Section of the page on an autoencoder.

    Attributes:
        reconstruction: errors of held-out images beside those of as few pixels.
        sheet: PNG of images and their reconstructions.
        curves: PNG of the curves of its training.
    """

    reconstruction: Mapping[str, float | int | str]
    sheet: bytes
    curves: bytes


@dataclass(frozen=True)
class SourceImage:
    """PNG of images of one source.

    Attributes:
        source: name of a generated set, or of the real images.
        picture: the PNG.
    """

    source: str
    picture: bytes


@dataclass(frozen=True)
class Gallery:
    """Images of one class.

    Attributes:
        class_name: the class.
        rows: images of it, a row a source.
    """

    class_name: str
    rows: list[SourceImage]


@dataclass(frozen=True)
class DistanceCell:
    """Metrics of a set in one class.

    Attributes:
        numbers: its metrics; none where one was not measured.
        counts: images of the reference and of the set.
    """

    numbers: list[Cell | None]
    counts: str


@dataclass(frozen=True)
class DistanceRow:
    """A set in the metric table.

    Attributes:
        name: name of the set.
        floor: whether it is of real images.
        cells: a cell a class.
    """

    name: str
    floor: bool
    cells: list[DistanceCell]


@dataclass(frozen=True)
class DistanceTable:
    """Distances of all sets.

    Attributes:
        features: what they were measured in.
        metrics: names of the metrics of a cell.
        split: split of the reference.
        rows: a row a set.
        notes: what a reader must know of them.
        audits: name of a generated set, and the verdict of its memorisation audit.
    """

    features: FeatureSpace
    metrics: list[str]
    split: str
    rows: list[DistanceRow]
    notes: list[str]
    audits: list[tuple[str, str]]


def save(path: Path, study: Study) -> None:
    """Renders and writes the page."""
    html.write_page(
        path,
        "report.html",
        dataset=study.dataset,
        counts=study.dataset.class_counts,
        overlays=[path.read_bytes() for path in sorted((study.dataset.directory / "qa").glob("*.png"))],
        first_stage=_autoencoder_section(study.first_stage) if study.first_stage else None,
        galleries=_galleries(study),
        trajectories=_trajectories(study),
        losses=_loss_figure(study),
        distances=_distances(study),
        classifications=_classifications(study),
        comparison=_comparison(study),
        warnings=sorted({warning for evaluation in study.evaluations for warning in evaluation.warnings}),
        settings=_settings(study),
    )


def _autoencoder_section(study: AutoencoderStudy) -> AutoencoderSection:
    reconstruction = study.reconstructions.details.reconstruction or {}
    sheet = (study.reconstructions.directory / "qa" / SHEET).read_bytes()
    return AutoencoderSection(reconstruction, sheet, _autoencoder_curves(study.run))


def _autoencoder_curves(run: runs.Run) -> bytes:
    """Draws error and use of the codebook over the training."""
    figure = html.new_figure(13.0, 3.0)
    left, right = figure.subplots(1, 2)
    rows = [row for row in read_metrics(run.workdir) if "learning_rate" in row]
    for axes, ending, title in (
        (left, "l1", "autoencoder: mean absolute error"),
        (right, "codebook_perplexity", "codes in even use that a batch is worth"),
    ):
        # With a discriminator there are two groups of numbers.
        curve = [(row["step"], value) for row in rows for name, value in row.items() if name.split("/")[-1] == ending]
        axes.plot(*zip(*curve, strict=True) if curve else ([], []), color=html.COLOURS[0], linewidth=0.8)
        html.tidy(axes, title, x="step")
    left.set_yscale("log")
    return html.png_of(figure)


def _galleries(study: Study) -> list[Gallery]:
    """Returns for each class real training images, then as many of each generated set."""
    sources = {"real (train)": study.dataset, **study.samples}
    return [
        Gallery(name, [SourceImage(source, _row_of_images(dataset, label)) for source, dataset in sources.items()])
        for label, name in enumerate(study.dataset.schema.classes)
    ]


def _row_of_images(dataset: Dataset, label: int) -> bytes:
    """Returns a PNG of training images of a class, evenly spread over the set."""
    images = [record.image for record in dataset.read("train") if record.label == label]
    chosen = np.linspace(0, len(images) - 1, min(SHOWN_PER_CLASS, len(images))).round().astype(int)
    strip = image_grid.tile(np.stack([images[i] for i in chosen]), columns=SHOWN_PER_CLASS)
    return encode_png(strip, marking.about() if marking.is_generated(dataset.details) else None)


def _trajectories(study: Study) -> list[SourceImage]:
    """Returns the picture of each sampler's way, as a set of today or of an earlier version has it."""
    rows = []
    for name, dataset in study.samples.items():
        paths = [dataset.directory / "qa" / file for file in ("trajectory.png", "film.png")]
        rows += [SourceImage(name, path.read_bytes()) for path in paths if path.exists()][:1]
    return rows


def _loss_figure(study: Study) -> bytes:
    """Draws the loss of the diffusion model, overall and per noise level; loss and accuracy of the classifiers."""
    figure = html.new_figure(13.0, 3.6)
    overall, levels, classifier = figure.subplots(1, 3)
    rows = [row for row in read_metrics(study.run.workdir) if "loss" in row]
    steps = [row["step"] for row in rows]
    overall.plot(steps, [row["loss"] for row in rows], color=html.COLOURS[0], linewidth=0.8)
    for level in range(1, NOISE_LEVELS + 1):
        name = f"loss_noise_{level}of{NOISE_LEVELS}"
        curve = [(row["step"], row[name]) for row in rows if name in row]
        levels.plot(*zip(*curve, strict=True), linewidth=0.8, label=f"quarter {level}", color=html.COLOURS[level - 1])
    for number, (name, run) in enumerate(study.classifiers.items()):
        logged = [row for row in read_metrics(run.workdir) if "loss" in row]
        classifier.plot(
            [row["step"] for row in logged], [row["loss"] for row in logged], label=name, color=html.COLOURS[number % 5]
        )
    for axes, title in (
        (overall, "diffusion: training loss"),
        (levels, "diffusion: by noise level (1 = least noise)"),
        (classifier, "classifiers: training loss, by training set"),
    ):
        html.tidy(axes, title, x="step")
        axes.set_yscale("log")
    for axes in (levels, classifier):
        if axes.lines:
            axes.legend(fontsize=7, frameon=False)
    return html.png_of(figure)


def _distances(study: Study) -> DistanceTable | None:
    """Returns the metric table, with the words that its numbers need; none without numbers."""
    measured = [
        (evaluation, evaluation.distances[0])
        for evaluation in study.evaluations
        # A page for each evaluation shows the other feature spaces.
        if evaluation.distances and evaluation.reference.dataset == study.dataset.digest
    ]
    named = [
        (name, set_name == FLOOR, distances.features, by_group)
        for evaluation, distances in measured
        for set_name, by_group in distances.rows.items()
        if (name := _set_name(study, evaluation.sets[set_name], floor=set_name == FLOOR))
    ]
    if not named:
        return None
    evaluation, distances = measured[-1]
    groups = (OVERALL, *study.dataset.schema.classes)
    return DistanceTable(
        features=distances.features,
        metrics=list(table.headlines(distances.features)),
        split=evaluation.reference.split,
        rows=[
            DistanceRow(name, floor, [_cell(by_group[group], space) for group in groups])
            for name, floor, space, by_group in named
        ],
        notes=sorted({note for *_, by_group in named for row in by_group.values() for note in row.notes}),
        audits=list(_audits(study, [evaluation for evaluation, _ in measured])),
    )


def _set_name(study: Study, source: SetRecord, *, floor: bool) -> str | None:
    """Returns what a measured set is called in the study; none where it is no part of it."""
    names = {dataset.digest: name for name, dataset in study.samples.items()}
    return f"real {source.split} (floor)" if floor else names.get(source.dataset)


def _cell(row: Row, space: FeatureSpace) -> DistanceCell:
    numbers = [table.cell(row, name, metric.digits) for name, metric in table.headlines(space).items()]
    return DistanceCell(numbers, f"{row.n_reference} / {row.n_other}")


def _audits(study: Study, evaluations: Sequence[EvaluationRecord]) -> Iterator[tuple[str, str]]:
    """Yields the verdict of the audit of each generated set."""
    for evaluation in evaluations:
        generated = evaluation.sets.get(MEASURED)
        name = _set_name(study, generated, floor=False) if generated else None
        if name and isinstance(evaluation.audit, AuditRecord):
            yield name, evaluation.audit.copies.verdict


def _classifications(study: Study) -> list[tuple[str, Classification]]:
    """Returns scores and confusion matrix of each classifier on the real images, by the name of the classifier."""
    names = {run.digest: name for name, run in study.classifiers.items()}
    return [
        (names[entry.classifier.run], entry)
        for evaluation in study.evaluations
        for entry in evaluation.classification
        if entry.set == REFERENCE and entry.classifier.run in names and entry.data.dataset == study.dataset.digest
    ]


def _comparison(study: Study) -> list[tuple[str, str, str]]:
    """Returns the size of this study beside the paper's: (what, here, there)."""
    config = study.run.config
    real = study.dataset
    slides = real.details.job.get("sources", [])
    total = sum(real.count(split) for split in real.splits)
    sizes = " x ".join(str(side) for side in real.schema.image_px)
    generated = ", ".join(str(samples.count("train")) for samples in study.samples.values())
    unstated = "not stated"
    return [
        ("slides", str(len(slides)), "1,037 of about 60k x 100k px"),
        ("classes", ", ".join(real.schema.classes), "5: normal colon and four kinds of polyp"),
        ("patch", f"{sizes} px", "128 x 128 px"),
        ("field of view", f"{real.details.fov_um:g} um at {real.details.mpp:g} um/px", "FOV 224 and 336"),
        ("real patches", f"{total:,}, overlapping" if len(slides) == 1 else f"{total:,}", unstated),
        ("split", "by place" if len(slides) == 1 else "by patient", unstated),
        ("parameters of the denoiser", f"{count_parameters(study.run.network):,}", "58,663,683 (published code)"),
        *_autoencoder_size(study.run.latents),
        ("images seen in training", f"{config.train.num_steps * config.data.batch_size:,}", unstated),
        ("images a generated set", generated, unstated),
        ("features of the distances", "a small classifier trained here", "Inception (FID, KID)"),
        ("classifier", "a small ResNet", "ResNet-50"),
        ("report made on", f"{jax.device_count()} x {jax.devices()[0].device_kind}", unstated),
    ]


def _autoencoder_size(latents: FirstStage | None) -> list[tuple[str, str, str]]:
    if latents is None:
        return []
    size = count_parameters(latents.codec(dtype="float32").network)
    return [("parameters of the autoencoder", f"{size:,}", "55,322,782")]


def _settings(study: Study) -> list[tuple[str, str]]:
    """Returns every setting and digest, as (title, JSON)."""

    def of_run(run: runs.Run) -> dict[str, object]:
        return {"config": run.config.as_shared_json(), "training data": list(run.data), "run digest": run.digest}

    sections: dict[str, object] = {
        "data set": {"digest": study.dataset.digest, **study.dataset.details.to_json()},
        "diffusion model": of_run(study.run),
    }
    if study.first_stage:
        back = study.first_stage.reconstructions
        sections["autoencoder"] = of_run(study.first_stage.run)
        sections["reconstructions"] = {"digest": back.digest, **back.details.to_json()}
    for name, samples in study.samples.items():
        sections[f"sample set {name}"] = {"digest": samples.digest, **samples.details.to_json()}
    for name, run in study.classifiers.items():
        sections[f"classifier {name}"] = of_run(run)
    return [(title, json.dumps(content, indent=2)) for title, content in sections.items()]
