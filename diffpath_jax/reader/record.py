"""Results of ``diffpath reader score``, as ``reader.json``: the names of the fields are those of the file."""

from dataclasses import dataclass
from pathlib import Path

from diffpath_jax.evaluation.record import ImageSetRecord, Number, as_json
from diffpath_jax.io.sealed import write_sealed

READER = "reader.json"


@dataclass(frozen=True)
class ScoreRecord:
    """A score of the readers.

    Attributes:
        title: what it is called.
        chance: its value for guesses; none where that depends on the reader or the classes.
        lower: least possible value; the greatest is 1.
        mean: mean over the readers; its interval is over readers and images.
        readers: of each reader, by number; the intervals are over images alone.
    """

    title: str
    chance: float | None
    lower: float
    mean: Number
    readers: dict[str, Number]


@dataclass(frozen=True)
class Agreement:
    """How far readers agree beyond chance; none where it is undefined, as for one reader.

    Attributes:
        fleiss: kappa of all readers, answers taken as having no order.
        cohen: kappa of every two, by their numbers.
        weights: how much two answers disagree in Cohen's kappa.
    """

    fleiss: float | None
    cohen: dict[str, float | None]
    weights: str


@dataclass(frozen=True)
class Seconds:
    """Time of an answer: quartiles in seconds.

    Attributes:
        lower: a quarter of the answers took less.
        median: half of them.
        upper: three quarters.
    """

    lower: float
    median: float
    upper: float


@dataclass(frozen=True)
class ReaderRecord:
    """Scores of a reader study.

    Attributes:
        study: its name, by digest.
        question: what was asked.
        real: the real images.
        generated: the generated images.
        cases: images, or pairs, that every reader answered, of those that were shown.
        units: what replicates draw: ``patients and images``.
        scores: by title, the main one first.
        agreement: between readers.
        seconds: of each reader, by number.
        counts: of each kind of case, how often each answer was given.
        settings: seed and replicates.
        versions: of the software.
        warnings: what is to be doubted.
    """

    study: str
    question: str
    real: ImageSetRecord
    generated: ImageSetRecord
    cases: tuple[int, int]
    units: int
    scores: tuple[ScoreRecord, ...]
    agreement: Agreement
    seconds: dict[str, Seconds]
    counts: dict[str, dict[str, int]]
    settings: dict[str, int]
    versions: dict[str, str]
    warnings: tuple[str, ...]


def write(path: Path, record: ReaderRecord) -> None:
    """Writes ``reader.json``."""
    write_sealed(path, as_json(record))
