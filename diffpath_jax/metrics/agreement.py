"""Agreement of readers beyond chance: the kappa of two (Cohen) and of several (Fleiss).

With ``p_o`` the agreement that is observed and ``p_e`` that of readers who answer independently, each as often as they
do, ``kappa = (p_o - p_e) / (1 - p_e)``: 1 for readers who always agree, 0 for chance.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Int

Answers = Int[np.ndarray, "n"]
# How much two answers on an ordered scale disagree, by their distance on it; "none" for answers without an order.
Weights = Literal["none", "linear", "quadratic"]


def cohen(x: Answers, y: Answers, *, num_choices: int, weights: Weights = "none") -> float:
    """Returns the kappa of two readers (Cohen 1960; weighted: Cohen 1968).

    Args:
        x: answers of the one, from 0.
        y: answers of the other to the same questions.
        num_choices: answers that there are to choose from.
        weights: how much two different answers disagree.

    Returns:
        NaN where both always give the same one answer: chance explains that too.
    """
    joint = np.bincount(x * num_choices + y, minlength=num_choices**2).reshape(num_choices, num_choices) / len(x)
    expected = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    cost = _cost(num_choices, weights)
    by_chance = float((cost * expected).sum())
    return 1 - float((cost * joint).sum()) / by_chance if by_chance else float("nan")


def _cost(num_choices: int, weights: Weights) -> Float[np.ndarray, "k k"]:
    """Returns the disagreement of every two answers."""
    distance = np.abs(np.subtract.outer(np.arange(num_choices), np.arange(num_choices))).astype(np.float64)
    return {"none": np.sign(distance), "linear": distance, "quadratic": distance**2}[weights]


def fleiss(answers: Int[np.ndarray, "readers n"], *, num_choices: int) -> float:
    """Returns the kappa of several readers of the same images (Fleiss 1971), for answers without an order.

    Args:
        answers: of at least two readers, from 0.
        num_choices: answers that there are to choose from.

    Returns:
        NaN where all always give the same one answer.
    """
    readers = len(answers)
    counts = (answers[..., None] == np.arange(num_choices)).sum(axis=0)
    observed = float((counts * (counts - 1)).sum(axis=1).mean() / (readers * (readers - 1)))
    by_chance = float(np.square(counts.sum(axis=0) / counts.sum()).sum())
    return (observed - by_chance) / (1 - by_chance) if by_chance < 1 else float("nan")
