"""Results of ``diffpath membership``, as ``membership.json``: the names of the fields are those of the file."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import pydantic

from diffpath_jax.evaluation.record import ImageSetRecord, Number, as_json
from diffpath_jax.io.sealed import write_sealed
from diffpath_jax.metrics.memorization.membership import MembershipConfig, Outcome

MEMBERSHIP = "membership.json"


@dataclass(frozen=True)
class ModelRecord:
    """The model that was looked at.

    Attributes:
        run: digest of its run.
        parameters: digest of its parameters.
        step: training steps.
        averaged: whether they are the moving average.
        training_data: digests of the data sets of images that it was trained on.
    """

    run: str
    parameters: str
    step: int
    averaged: bool
    training_data: tuple[str, ...]


@dataclass(frozen=True)
class NoiseLevel:
    """Membership inference by the denoising loss at one level of noise.

    Attributes:
        timestep: t of the run's schedule.
        noise: share of noise in the variance of a noised image, ``1 - abar``.
        counted: whether the level is part of the score.
        training_loss: mean loss of the members.
        held_out_loss: mean loss of the non-members.
        gap: held-out less training.
        area: area under the curve of this level's loss alone.
    """

    timestep: int
    noise: float
    counted: bool
    training_loss: float
    held_out_loss: float
    gap: Number
    area: Number


@dataclass(frozen=True)
class AttackRecord:
    """Membership inference by one score.

    Attributes:
        area: area under the curve over images.
        true_positives: share of members that are told at the settings' rate of false positives; none where there are
            too few non-members for it.
        area_by_patient: area over patients; none where they are not known.
        p_values: chance of each of these without leakage, over all tests together.
    """

    area: Number
    true_positives: Number | None
    area_by_patient: Number | None
    p_values: dict[str, float]


@dataclass(frozen=True)
class Nearer:
    """The Frechet distance of the generated set from members and from equally many non-members of the same classes.

    Attributes:
        name: what the distance is called.
        digest: SHA-256 of the parameters of its features.
        to_members: distance from members.
        to_non_members: distance from non-members.
        difference: from non-members less from members: above 0 the set lies nearer to what the model was trained on.
    """

    name: str
    digest: str
    to_members: float
    to_non_members: float
    difference: Number

    @property
    def words(self) -> str:
        """Which is nearer, in words."""
        low, high = self.difference.low, self.difference.high
        if low is None or high is None or low <= 0 <= high:
            return "neither is shown to be nearer"
        return f"the generated images lie nearer to the {'training' if low > 0 else 'held-out'} images"


@dataclass(frozen=True, kw_only=True)
class MembershipRecord:
    """All of ``membership.json``.

    Attributes:
        versions: package -> version.
        outcome: the verdict's first words.
        verdict: the result in a sentence.
        warnings: what else could look like leakage, or hide it.
        model: the model.
        sources: members, non-members and, if they were looked at, generated images.
        config: settings of the tests.
        draws: noise draws that a loss is the mean of.
        units: what was drawn whole and permuted.
        units_reason: why these are not patients; empty where they are.
        members: (images, units).
        non_members: (images, units).
        attacks: by the name of the score.
        skipped: scores that could not be had, with the reason.
        levels: by level of noise.
        nearer: whether the generated set lies nearer to training or to held-out images, in each feature space.
    """

    versions: dict[str, str]
    outcome: Outcome
    verdict: str
    warnings: list[str]
    model: ModelRecord
    sources: dict[str, ImageSetRecord]
    config: Annotated[MembershipConfig, pydantic.PlainSerializer(asdict)]
    draws: int
    units: Literal["patients", "images"]
    units_reason: str
    members: tuple[int, int]
    non_members: tuple[int, int]
    attacks: dict[str, AttackRecord]
    skipped: dict[str, str]
    levels: list[NoiseLevel]
    nearer: list[Nearer]


def write(path: Path, record: MembershipRecord) -> None:
    """Writes ``membership.json``."""
    write_sealed(path, as_json(record))
