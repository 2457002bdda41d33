"""Scores of a reader study: every reader has seen every case, so readers and images are crossed.

The interval of a mean over readers counts both, as :mod:`diffpath_jax.metrics.paired` has it for seeds and patients:
images (by the patient, where one is known) are resampled, readers enter by their variance with Student's t. Three
readers are few, and their interval says so.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from diffpath_jax.data import writer
from diffpath_jax.evaluation.record import Number
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.metrics import agreement, paired
from diffpath_jax.reader.answers import Answers
from diffpath_jax.reader.key import Case, Key
from diffpath_jax.reader.question import QUESTIONS, Answered, Question, ReaderScore
from diffpath_jax.reader.record import Agreement, ReaderRecord, ScoreRecord, Seconds


@dataclass(frozen=True)
class Settings:
    """Settings of intervals.

    Attributes:
        seed: of replicates.
        resamples: how many.
    """

    seed: int
    resamples: int


@dataclass(frozen=True)
class Crossed:
    """What every reader answered of the same cases.

    Attributes:
        question: that was asked.
        num_choices: answers that there were to choose from.
        cases: those that every reader answered.
        readers: their numbers.
        choices: as :class:`Answers` has them.
        seconds: time of each answer.
    """

    question: Question
    num_choices: int
    cases: tuple[Case, ...]
    readers: tuple[str, ...]
    choices: Int[np.ndarray, "readers n"]
    seconds: Float[np.ndarray, "readers n"]

    @property
    def units(self) -> list[str]:
        """What a replicate draws each case with."""
        return [case.unit for case in self.cases]

    @property
    def kinds(self) -> list[str]:
        """``real``, ``generated`` or ``pair``, of each case."""
        return [
            "real" if case.generated is None else "generated" if case.real is None else "pair" for case in self.cases
        ]


def score(key: Key, answers: Sequence[Answers], settings: Settings) -> ReaderRecord:
    """Returns the scores of all readers on the cases that each of them answered.

    Raises:
        DiffpathError: the readers have too few answers in common.
    """
    crossed = _crossed(key, answers)
    return ReaderRecord(
        study=key.study,
        question=key.question,
        real=key.real,
        generated=key.generated,
        cases=(len(crossed.cases), len(key.cases)),
        units=len(set(crossed.units)),
        scores=tuple(_record(each, crossed, settings) for each in crossed.question.scores),
        agreement=_agreement(crossed),
        seconds=dict(zip(crossed.readers, map(_quartiles, crossed.seconds), strict=True)),
        counts=_counts(crossed, crossed.question.choices_among(key.classes)),
        settings={"seed": settings.seed, "resamples": settings.resamples},
        versions=writer.versions("numpy", "scipy"),
        warnings=(*key.warnings, *_warnings(key, answers, crossed)),
    )


def _crossed(key: Key, answers: Sequence[Answers]) -> Crossed:
    """Returns what every reader answered.

    Raises:
        DiffpathError: that is nothing, or nothing of one kind of images.
    """
    question, choices = QUESTIONS[key.question], np.stack([each.choices for each in answers])
    common = np.flatnonzero((choices >= 0).all(axis=0))
    crossed = Crossed(
        question=question,
        num_choices=len(question.choices_among(key.classes)),
        cases=tuple(key.cases[i] for i in common),
        readers=tuple(str(each.reader) for each in answers),
        choices=choices[:, common],
        seconds=np.stack([each.seconds for each in answers])[:, common],
    )
    if len(set(crossed.kinds)) < (1 if question.shown == 2 else 2):
        what = "pairs" if question.shown == 2 else "both real and generated images"
        why = f"of {len(key.cases)} cases all readers answered {len(common)}, and {what} are needed"
        raise DiffpathError("answers", where=key.study, why=why, fix="let the readers finish")
    return crossed


def _record(score: ReaderScore, crossed: Crossed, settings: Settings) -> ScoreRecord:
    generated = np.array(crossed.kinds) == "generated"
    labels = np.array([case.label for case in crossed.cases])

    def measure(index: np.ndarray, choices: np.ndarray) -> float:
        return score.measure(Answered(choices[:, 0].astype(int), generated[index], labels[index]))

    def number(choices: np.ndarray) -> Number:
        cases = np.arange(len(labels))
        logits, bounds = choices[..., None].astype(np.float64), (score.lower, 1.0)
        own = paired.replicates(
            paired.any_score(measure), cases, logits, crossed.units, bounds=bounds, **vars(settings)
        )
        return _number(own.interval)

    each = {name: number(own[None]) for name, own in zip(crossed.readers, crossed.choices, strict=True)}
    return ScoreRecord(score.title, score.chance, score.lower, number(crossed.choices), each)


def _number(interval: paired.Interval) -> Number:
    """Returns a score with its interval, none where nothing varies: that says nothing of how sure it is."""
    if not interval.standard_error:
        return Number(interval.value)
    return Number(interval.value, interval.low, interval.high, interval.standard_error)


def _agreement(crossed: Crossed) -> Agreement:
    question, choices, num_choices = crossed.question, crossed.choices, crossed.num_choices
    cohen = {
        f"{crossed.readers[i]} and {crossed.readers[j]}": _defined(
            agreement.cohen(choices[i], choices[j], num_choices=num_choices, weights=question.weights)
        )
        for i, j in itertools.combinations(range(len(choices)), 2)
    }
    fleiss = _defined(agreement.fleiss(choices, num_choices=num_choices)) if cohen else None
    return Agreement(fleiss, cohen, question.weights)


def _defined(kappa: float) -> float | None:
    return None if math.isnan(kappa) else kappa


def _quartiles(seconds: Float[np.ndarray, "n"]) -> Seconds:
    return Seconds(*np.quantile(seconds, [0.25, 0.5, 0.75]).tolist())


def _counts(crossed: Crossed, choices: Sequence[str]) -> dict[str, dict[str, int]]:
    """Returns how often each answer was given to each kind of cases."""
    names = ("the real one picked", "the generated one picked") if crossed.question.shown == 2 else choices
    kinds = np.array(crossed.kinds)
    return {
        kind: {name: int((crossed.choices[:, kinds == kind] == index).sum()) for index, name in enumerate(names)}
        for kind in sorted(set(crossed.kinds), reverse=True)
    }


def _warnings(key: Key, answers: Sequence[Answers], crossed: Crossed) -> Iterator[str]:
    for each in answers:
        if missing := int((each.choices < 0).sum()):
            yield f"reader {each.reader} left out {missing} of {len(key.cases)}: only what all answered is scored"
    if len(answers) == 1:
        yield "one reader took part: the interval knows nothing of how much another reader would differ"
    if len(set(crossed.units)) < paired.MIN_PATIENTS:
        yield f"fewer than {paired.MIN_PATIENTS} patients and images: no intervals"
