"""The results of an evaluation on disk, ``metrics.json``: written and read through the classes of this module.

The names of its fields are those of the file; where they differ, for the sake of older files, an alias says so.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from diffpath_jax.io.adapters import adapter
from diffpath_jax.io.sealed import read_sealed, write_sealed
from diffpath_jax.metrics import fid
from diffpath_jax.metrics.bootstrap import Estimate
from diffpath_jax.metrics.memorization.audit import AuditConfig, Pair
from diffpath_jax.metrics.metric import Metric

METRICS = "metrics.json"
OVERALL = "overall"
# What a set is called in the file.
REFERENCE, MEASURED, FLOOR = "reference", "generated", "floor"


@dataclass(frozen=True)
class Number:
    """A metric, its 95 % interval, and numbers that are stored with it.

    Attributes:
        value: the metric.
        low: lower end of the interval; none without one.
        high: upper end.
        standard_error: standard error of the metric.
        details: other numbers by name; they lie beside the value in the file.
    """

    value: float
    low: float | None = None
    high: float | None = None
    standard_error: float | None = None
    details: Mapping[str, int | float] = field(default_factory=dict)

    @classmethod
    def of(cls, estimate: Estimate, details: Mapping[str, int | float]) -> "Number":
        """Returns an estimate with its details."""
        return cls(estimate.value, estimate.low, estimate.high, estimate.standard_error, details)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _gather(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        own = {name: value for name, value in content.items() if name in _NUMBER}
        return own | {"details": {name: value for name, value in content.items() if name not in _NUMBER}}

    @pydantic.model_serializer
    def _spread(self) -> dict[str, int | float]:
        return {name: getattr(self, name) for name in _NUMBER if getattr(self, name) is not None} | {**self.details}


_NUMBER = ("value", "low", "high", "standard_error")


@dataclass(frozen=True)
class Row:
    """Numbers of one group of images.

    Attributes:
        n_reference: images of the reference; none where only its statistics are known.
        n_other: images of the other set.
        metrics: metric name -> number.
        notes: what a reader must know of them, and what could not be measured.
    """

    n_reference: int | None
    n_other: int | None
    metrics: dict[str, Number]
    notes: list[str]


# Name of a set -> class, or ``OVERALL`` -> what was measured.
Rows = dict[str, dict[str, Row]]


@dataclass(frozen=True)
class FeatureSpace:
    """A feature space that distances were measured in.

    Attributes:
        name: name of the feature extractor.
        description: network, training data and size of the features, in words.
        digest: SHA-256 of its parameters.
        resize: how images were brought to the network's size.
        frechet_name: what the Frechet distance is called.
        kernel_name: what the kernel distance is called.
    """

    name: str
    description: str
    digest: str
    resize: str
    frechet_name: str
    kernel_name: str

    @property
    def published(self) -> bool:
        """True if FID is defined by these features."""
        return self.frechet_name == fid.FRECHET.published_name

    def name_of(self, metric: Metric) -> str:
        """Returns what a metric is called in these features."""
        return metric.name_in(self.name, published=self.published)


@dataclass(frozen=True)
class Distances:
    """Numbers in one feature space.

    Attributes:
        features: the feature space.
        rows: numbers by set and class.
    """

    features: FeatureSpace
    rows: Rows


@dataclass(frozen=True)
class SetRecord:
    """A set of images, or statistics of one.

    Attributes:
        where: directory or file.
        split: part of a data set; empty for anything else.
        kind: ``real``, ``generated``, ``folder`` or ``statistics``.
        digest: SHA-256 of what it holds.
        dataset: digest of the data set that it is a part of; empty for anything else.
        n: number of images; none where only statistics are known.
    """

    where: str
    split: str
    kind: str
    digest: str
    dataset: str
    n: int | None


@dataclass(frozen=True)
class ImageSetRecord(SetRecord):
    """A set of images.

    Attributes:
        image_px: (height, width).
        mpp: um per pixel; none where unknown.
        patients: number of known patients.
    """

    n: int
    image_px: tuple[int, int]
    mpp: float | None
    patients: int


@dataclass(frozen=True)
class ClassifierRecord:
    """A trained classifier.

    Attributes:
        parameters: digest of its parameters.
        step: training steps.
        training_data: digests of the data sets that it was trained on.
        run: digest of its run.
        name: what tells its run directory from those beside it; empty in files of earlier versions.
    """

    parameters: str
    step: int
    training_data: tuple[str, ...]
    run: str
    name: str = ""

    @property
    def title(self) -> str:
        """The name with the digest of the run."""
        return f"{self.name} ({self.run[:12]})" if self.name else self.run[:12]


@dataclass(frozen=True)
class Classification:
    """Labels of a set beside the classes that a classifier sees.

    Attributes:
        set: name of the set.
        classifier: the classifier.
        data: the set.
        classes: class names of the confusion matrix.
        confusion: counts of (class that an image is said to have, class seen).
        accuracy: share of agreement.
        balanced_accuracy: its mean over classes.
        interval: 95 % interval of the accuracy; none without replicates.
        trained_on: whether the classifier was trained on these images.
    """

    set: str
    classifier: ClassifierRecord
    data: ImageSetRecord
    classes: tuple[str, ...]
    confusion: list[list[int]]
    accuracy: float
    balanced_accuracy: float
    interval: tuple[float | None, float | None]
    trained_on: bool


@dataclass(frozen=True)
class FalseAlarms:
    """False alarms: real images that are called copies.

    Attributes:
        guaranteed: greatest share that the threshold allows.
        measured: share of held-out images that had no part in setting it.
        interval: 95 % interval of that share.
        n: number of those images.
        by_patient: whether no patient is in both parts.
    """

    guaranteed: float
    measured: float
    interval: tuple[float, float]
    n: int
    by_patient: bool


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Result of a search for copies.

    Attributes:
        flagged: indices of the generated images that are called copies.
        certain: indices of those that no held-out image comes near to.
        share: share of flagged images.
        p_value: chance of as many false alarms.
        copying: whether there are more copies than false alarms explain.
        verdict: the result in words.
        threshold: ratio of distances below which an image is a copy.
        false_alarms: how often real images are called copies.
        closest: closest pairs.
    """

    flagged: list[int]
    certain: list[int]
    share: float
    p_value: float
    copying: bool
    verdict: str
    threshold: float
    false_alarms: FalseAlarms
    closest: list[Pair]


@dataclass(frozen=True, kw_only=True)
class Repeated(Copies):
    """Result of a search for generated images that repeat each other.

    Attributes:
        groups: indices of images that show one scene.
    """

    groups: list[list[int]]


@dataclass(frozen=True)
class OtherTests:
    """Published tests of copying in a feature space.

    Attributes:
        features: name of the feature extractor.
        n_training: training images that were compared.
        auth_percent: AuthPct of the generated images.
        auth_percent_of_held_out: AuthPct of held-out images, which are no copies.
        c_t: C_T of the generated images; none where there are too few images.
        note: why there is no C_T.
    """

    features: str
    n_training: int
    auth_percent: float
    auth_percent_of_held_out: float
    c_t: float | None = None
    note: str | None = None


@dataclass(frozen=True)
class AuditRecord:
    """The memorisation audit of a generated set.

    Attributes:
        warnings: why the audit may have looked in the wrong place.
        sources: what was compared.
        config: its settings.
        seed: its random seed.
        copies: copies of training images.
        repeated: copies of other generated images.
        other_tests: published tests in each feature space.
    """

    warnings: Annotated[list[str], pydantic.Field(alias="doubts")]
    sources: dict[str, ImageSetRecord]
    # Settings are all written, those at their defaults too.
    config: Annotated[AuditConfig, pydantic.PlainSerializer(asdict)]
    seed: int
    copies: Copies
    repeated: Repeated
    other_tests: list[OtherTests]


@dataclass(frozen=True)
class SkippedAudit:
    """No audit.

    Attributes:
        skipped: reason.
    """

    skipped: str


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """All of ``metrics.json``.

    Attributes:
        versions: package -> version.
        seed: random seed.
        resamples: bootstrap replicates of each interval.
        intervals: ``influence`` where those of the Frechet distance come from its derivatives, if images are many
            enough; ``bootstrap`` where all come from replicates.
        reference: what sets were measured against.
        sets: what was measured, by name.
        distances: numbers in each feature space; none where nothing was compared.
        stain: numbers of the stain by set and class; none where nothing was compared.
        nuclei: numbers of the nuclei by set and class; none where nothing was compared.
        classification: labels beside what classifiers see.
        audit: the memorisation audit, or why there is none.
        warnings: what else a reader must know of the images, such as why a split flatters.
    """

    versions: dict[str, str]
    seed: int
    resamples: int
    intervals: Literal["bootstrap", "influence"] = "bootstrap"
    reference: ImageSetRecord | SetRecord
    sets: dict[str, ImageSetRecord | SetRecord]
    distances: list[Distances] | None = None
    stain: Rows | None = None
    nuclei: Rows | None = None
    classification: list[Classification]
    audit: AuditRecord | SkippedAudit
    warnings: tuple[str, ...] = ()


def as_json(record: Any) -> Any:
    """Returns any record of this module as it is in the file; a field at its default is left out."""
    return adapter(type(record)).dump_python(record, mode="json", by_alias=True, exclude_defaults=True)


def write(path: Path, record: EvaluationRecord) -> None:
    """Writes ``metrics.json``."""
    write_sealed(path, as_json(record))


def read(path: Path) -> EvaluationRecord:
    """Reads ``metrics.json``.

    Raises:
        DiffpathError: there is no such file, or it is damaged or holds something else (exit code 5).
    """
    return read_sealed(path, EvaluationRecord, what="metrics", fix="name the --out of `diffpath eval`")
