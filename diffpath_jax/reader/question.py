"""Questions that readers are asked: each a row with its words, its choices, and the scores of its answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int

from diffpath_jax.io.registry import Registry
from diffpath_jax.metrics import classification
from diffpath_jax.metrics.agreement import Weights

# Of the scale of `rating`, from 0: above it an image is called generated.
CANNOT_TELL = 2
SCALE = ("surely real", "probably real", "cannot tell", "probably generated", "surely generated")


@dataclass(frozen=True)
class Answered:
    """Answers of one reader.

    Attributes:
        answers: choice of each case, from 0; of a pair, 1 where the generated image was picked.
        generated: whether each case is a generated image; false for pairs, which have one of either.
        labels: class of each case.
    """

    answers: Int[np.ndarray, "n"]
    generated: Bool[np.ndarray, "n"]
    labels: Int[np.ndarray, "n"]


@runtime_checkable
class Measure(Protocol):
    """Scores the answers of one reader."""

    def __call__(self, answered: Answered, /) -> float:
        """Returns the score; NaN where the cases do not allow it."""
        ...


@dataclass(frozen=True)
class ReaderScore:
    """A score of a reader.

    Attributes:
        title: what it is called.
        measure: how it is measured.
        chance: its value for guesses; none where that depends on the reader or the classes.
        lower: least possible value; the greatest is 1.
    """

    title: str
    measure: Measure
    chance: float | None = None
    lower: float = 0.0


@dataclass(frozen=True)
class Question:
    """A question.

    Attributes:
        name: the word that it is chosen by.
        title: what it is, in a few words.
        prompt: as the reader is asked.
        choices: answers to choose from; none where they are the classes.
        shown: images that are shown together.
        scores: of its answers, the main one first.
        weights: how much two of its answers disagree, for Cohen's kappa.
    """

    name: str
    title: str
    prompt: str
    choices: tuple[str, ...]
    shown: Literal[1, 2]
    scores: tuple[ReaderScore, ...]
    weights: Weights = "none"

    def choices_among(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Returns the answers to choose from, of images of some classes."""
        return self.choices or tuple(classes)


def _area(answered: Answered) -> float:
    return classification.auroc(answered.generated, answered.answers.astype(np.float64))


def _share(values: Bool[np.ndarray, "n"]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _called_generated(answered: Answered, *, generated: bool) -> float:
    return _share(answered.answers[answered.generated == generated] > CANNOT_TELL)


def _class_accuracy(answered: Answered, *, generated: bool) -> float:
    return _share((answered.answers == answered.labels)[answered.generated == generated])


RATING = Question(
    name="rating",
    title="real or generated, on a scale of five",
    prompt="Is this image real or generated?",
    choices=SCALE,
    shown=1,
    scores=(
        ReaderScore("AUC of generated against real", _area, chance=0.5),
        ReaderScore("generated images called generated", lambda own: _called_generated(own, generated=True)),
        ReaderScore("real images called generated", lambda own: _called_generated(own, generated=False)),
    ),
    weights="quadratic",
)
PAIRS = Question(
    name="pairs",
    title="which of two images is generated (2AFC)",
    prompt="One of these two images is generated. Which one?",
    choices=("A", "B"),
    shown=2,
    scores=(ReaderScore("pairs told apart", lambda own: _share(own.answers == 1), chance=0.5),),
)
CLASS = Question(
    name="class",
    title="which class an image shows",
    prompt="Which class does this image show?",
    choices=(),
    shown=1,
    scores=(
        ReaderScore("class told, real images", lambda own: _class_accuracy(own, generated=False)),
        ReaderScore("class told, generated images", lambda own: _class_accuracy(own, generated=True)),
        ReaderScore(
            "real less generated",
            lambda own: _class_accuracy(own, generated=False) - _class_accuracy(own, generated=True),
            chance=0.0,
            lower=-1.0,
        ),
    ),
)
QUESTIONS: Registry[Question] = Registry("question", (RATING, PAIRS, CLASS))
