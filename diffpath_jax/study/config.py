"""The config of a study: its data sets, its models, and how far each of its rows goes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from diffpath_jax.config import files as config_files
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.ranges import Natural, NonNegativeReal, Positive, PositiveFraction, Seed

# Names of data sets, models and samplers become directories.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
# A classifier's class; the schema of a data set checks it.
ClassName = str


@dataclass(frozen=True, kw_only=True)
class RealImages:
    """A data set of real images.

    Attributes:
        title: what it is called on the page.
        directory: a data set that is there already; empty where ``prep`` makes it.
        prep: options of ``diffpath prep`` but for ``--out``, ``--fov_um``, ``--patch_px`` and those that the study's
            ``slides`` stand for.
        fov_um: width of a field of view in um; 0 where ``prep`` says it, or a data set that is there already has it.
        patch_px: side of the images in pixels; 0 as ``fov_um``.
        models: names of the models that are trained on it.
        paper: name of the paper's data set whose numbers stand beside its own; empty for none.
    """

    title: str = ""
    directory: str = ""
    prep: str = ""
    fov_um: NonNegativeReal = 0.0
    patch_px: Natural = 0
    models: tuple[Name, ...] = ()
    paper: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A diffusion model.

    Attributes:
        title: what it is called on the page.
        config: ``--config`` of ``diffpath train``.
        first_stage: ``--config`` of its autoencoder; empty for a model of pixels.
        encode: more words of ``diffpath encode``, as ``--augment hflip`` where ``data.augment`` of ``config`` is that.
        options: more words of ``diffpath train``, such as ``--config.train.num_steps=1000``.
        paper: name of the paper's training method whose numbers stand beside its own; empty for none.
    """

    title: str
    config: str
    first_stage: str = ""
    encode: str = ""
    options: str = ""
    paper: str = ""


@dataclass(frozen=True, kw_only=True)
class SamplerRow:
    """A way to sample that is measured.

    Attributes:
        title: what it is called on the page.
        options: options of ``diffpath sample``.
        paper: name of the paper's sampling method whose numbers stand beside its own; empty for none.
        models: names of the models that are sampled by it; empty for all.
    """

    title: str
    options: str
    paper: str = ""
    models: tuple[Name, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """The classifiers by which images are judged.

    Attributes:
        config: ``--config`` of ``diffpath train``.
        options: more words of ``diffpath train``.
        seeds: trainings of each arm.
    """

    config: str
    options: str = ""
    seeds: Positive = 5


@dataclass(frozen=True, kw_only=True)
class WorthConfig:
    """Rows on the worth of generated images as training data; amounts are in units of the real training images.

    Attributes:
        sampler: name of the sampler that draws them.
        real_per_class: real training images of each class; 0 for all.
        alone: amounts of generated images alone.
        added: amounts that are added to the real ones.
        patient_shares: shares of the training patients.
        scarce_class: class that is cut; empty for no such row.
        scarce_shares: shares of its patients that are left.
        few_options: more words of ``diffpath train`` for models of a part of the patients.
        confidence: least probability of the class asked for, of the images that a filter keeps.
        strong_stain_jitter: of the control by augmentation, in optical density.
        probe: features of a linear probe: a file that ``--features`` takes, or ``classifier`` for the study's own.
        external: name of a data set whose images are tested on.
        external_classes: file that maps its classes; empty for the same names.
    """

    sampler: Name
    real_per_class: Natural = 0
    alone: tuple[NonNegativeReal, ...] = (0.5, 1.0, 2.0, 4.0, 8.0)
    added: tuple[NonNegativeReal, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    patient_shares: tuple[PositiveFraction, ...] = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5)
    scarce_class: ClassName = ""
    scarce_shares: tuple[PositiveFraction, ...] = (0.05, 0.1, 0.25)
    few_options: str = ""
    confidence: PositiveFraction = 0.9
    strong_stain_jitter: NonNegativeReal = 0.2
    probe: str = "classifier"
    external: str = ""
    external_classes: str = ""


@dataclass(frozen=True, kw_only=True)
class ReaderConfig:
    """The row on human readers, who are shown images of the first set that is measured.

    Attributes:
        readers: how many pages are made; 0 for no such row.
        question: ``--question`` of ``diffpath reader make``.
        images: real images, and as many generated ones; of pairs, how many.
        answers: files that readers handed in, separated by commas; empty until then.
    """

    readers: Natural = 0
    question: str = "rating"
    images: Positive = 50
    answers: str = ""


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """A study.

    Attributes:
        title: heading of its page.
        slides: slides that its data sets are prepared from: a file or directory; ``diffpath:demo`` for the public one,
            which is downloaded; empty where ``prep`` of each data set names its source.
        annotations: annotations of the slides.
        seed: of all sampling and statistics.
        datasets: real images, by name.
        models: diffusion models, by name.
        samplers: ways to sample, by name.
        measured: data sets whose models are measured, in the order of the page; the first, with its first model, is
            what most rows are about.
        compared: samplers that every model is measured by; the first is used wherever one is enough.
        solvers: samplers that the first model alone is measured by: few-step solvers, guidance.
        patch_sizes: sides in pixels that the first model is asked for; empty for none.
        num_per_class: images of each class in every set that is measured.
        features: feature spaces of distances: files that ``--features`` takes, or ``classifier`` for the study's own.
        resamples: of intervals.
        held_out: most held-out images that copies are looked for beside.
        classifier: the classifiers.
        worth: rows of what generated images are worth.
        reader: row of what human readers can tell.
        jpeg_qualities: of real images that are measured as a set: a scale for a reader.
        notes: what a reader of its page must know first.
    """

    title: str
    slides: str = ""
    annotations: str = ""
    seed: Seed = 0
    datasets: dict[Name, RealImages]
    models: dict[Name, ModelConfig]
    samplers: dict[Name, SamplerRow]
    measured: Annotated[tuple[Name, ...], Field(min_length=1)]
    compared: Annotated[tuple[Name, ...], Field(min_length=1)]
    solvers: tuple[Name, ...] = ()
    patch_sizes: tuple[Positive, ...] = ()
    num_per_class: Positive
    features: tuple[str, ...]
    resamples: Natural = 100
    held_out: Positive = 2000
    classifier: ClassifierConfig
    worth: WorthConfig
    reader: ReaderConfig = ReaderConfig()
    jpeg_qualities: tuple[Annotated[int, Field(ge=1, le=100)], ...] = (90, 75)
    notes: tuple[str, ...] = ()

    def first(self) -> tuple[str, str]:
        """Returns the names of the first data set and of its first model."""
        name = self.measured[0]
        return name, self.datasets[name].models[0]


def study_config(content: Mapping[str, Any], *, where: str) -> StudyConfig:
    """Returns the config of a study out of what its file says.

    Raises:
        DiffpathError: an unknown key, a value that does not fit, or a name that names nothing.
    """
    config = config_files.convert(StudyConfig, content, where=where)
    for key, wanted, known in _references(config):
        if wanted not in known:
            why, fix = f"{wanted!r} is not among {', '.join(known) or 'none'}", "name one of them"
            raise DiffpathError(f"key {key!r}", where=where, why=why, fix=fix)
    for name, images in config.datasets.items():
        if bool(images.directory) == bool(images.prep or config.slides):
            why, fix = "it needs either a directory, or slides or options of prep", "give one of the two"
            raise DiffpathError(f"key 'datasets.{name}'", where=where, why=why, fix=fix)
        if name in config.measured and not images.models:
            why, fix = "it is measured and has no model", "name one in its models"
            raise DiffpathError(f"key 'datasets.{name}'", where=where, why=why, fix=fix)
    return config


def _references(config: StudyConfig) -> list[tuple[str, str, tuple[str, ...]]]:
    """Returns (key, what it names, what there is)."""
    models, samplers, datasets = (tuple(each) for each in (config.models, config.samplers, config.datasets))
    return [
        *((f"datasets.{name}.models", model, models) for name, own in config.datasets.items() for model in own.models),
        *((f"samplers.{name}.models", model, models) for name, own in config.samplers.items() for model in own.models),
        *(("measured", dataset, datasets) for dataset in config.measured),
        *(("compared", sampler, samplers) for sampler in config.compared),
        *(("solvers", sampler, samplers) for sampler in config.solvers),
        ("worth.sampler", config.worth.sampler, samplers),
        *([("worth.external", config.worth.external, datasets)] if config.worth.external else []),
    ]


def with_defaults(content: dict[str, Any]) -> dict[str, Any]:
    """Returns what a config file says with the keys left at their defaults, so that they can be overridden."""
    completed = {**config_files.defaults_of(StudyConfig), **content}
    for key, kind in _SECTIONS.items():
        # A section that has a default can be left out.
        own = {} if isinstance(completed.get(key), kind) else completed.get(key)
        if isinstance(own, Mapping):
            completed[key] = {**config_files.defaults_of(kind), **own}
    for key, kind in _NAMED.items():
        if isinstance(completed.get(key), Mapping):
            completed[key] = {name: {**config_files.defaults_of(kind), **each} for name, each in completed[key].items()}
    return completed


_SECTIONS: dict[str, type] = {"worth": WorthConfig, "classifier": ClassifierConfig, "reader": ReaderConfig}
# Sections that hold several of a kind by name.
_NAMED: dict[str, type] = {"datasets": RealImages, "models": ModelConfig, "samplers": SamplerRow}
