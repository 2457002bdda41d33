"""A sampler as one row, which stands beside its code: command line, help, checks and tests derive from it."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from diffpath_jax.diffusion.samplers.loop import Sampler
from diffpath_jax.diffusion.samplers.spacing import SpacingKind
from diffpath_jax.diffusion.schedule import NoiseSchedule

# Options that not every sampler takes.
OPTIONS = ("spacing", "variance", "eta", "repeats")


@dataclass(frozen=True, eq=False)
class SamplerSettings:
    """The numbers that a sampler may depend on besides the schedule that it moves over.

    Attributes:
        trained: the schedule that the model was trained with, before it was respaced.
        variance: name of the variance of an ancestral step, one of ``ddpm.VARIANCES``.
        eta: share of DDPM's noise, 0 to 1.
    """

    trained: NoiseSchedule
    variance: str = "small"
    eta: float = 0.0


@runtime_checkable
class MakeFn(Protocol):
    """Makes a sampler."""

    def __call__(self, schedule: NoiseSchedule, settings: SamplerSettings, /) -> Sampler:
        """Returns the sampler on a (respaced) schedule."""


@dataclass(frozen=True, eq=False)
class SamplerKind:
    """A sampler that users can choose.

    Attributes:
        name: the word that they choose it by.
        summary: a few words, for help.
        reference: its publication.
        order: of convergence: the error of N steps falls as N^-order.
        make: makes it.
        spacing: the spacing of steps that belongs to it.
        stochastic: it draws noise on the way, besides the noise that it starts from.
        options: those of ``OPTIONS`` that it takes.
        takes_score: the gradient of a classifier is left to its step, as ``StepInput.score``; otherwise it is put into
            eps.
    """

    name: str
    summary: str
    reference: str
    order: int
    make: MakeFn
    spacing: SpacingKind
    stochastic: bool = False
    options: tuple[str, ...] = ("spacing",)
    takes_score: bool = False

    def __post_init__(self) -> None:
        """Refuse an option that no command has.

        Raises:
            ValueError: naming it.
        """
        if unknown := sorted({*self.options} - {*OPTIONS}):
            raise ValueError(
                f"sampler {self.name!r} has an unknown option {unknown[0]!r}; known are {', '.join(OPTIONS)}"
            )
