"""Configs of networks, and the row that describes a kind of network."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

from flax import nnx
from jax.typing import DTypeLike
from pydantic import Field

from diffpath_jax.ranges import Natural, Width

# A key whose value does not go with others, and why.
Conflict = tuple[str, str]
# Downsampling factors at which something is done; those that a network does not reach change nothing.
Downsamples = Annotated[tuple[Width, ...], Field(max_length=16)]
# Side of the pixel squares that are moved into channels.
StemBlock = Annotated[int, Field(ge=1, le=64)]
# Name of the condition that every data set has.
CLASS_LABEL = "label"
# What networks are trained for.
TaskName = Literal["diffusion", "autoencoding", "classification", "noisy_classification"]


@dataclass(frozen=True)
class NetworkConfig:
    """Base of the configs of all kinds of network: one frozen dataclass a kind, every key with its range and default.

    The properties are what the rest of the project asks of a network without knowing its kind.
    """

    # Fields that the data decide and no config names.
    FROM_DATA: ClassVar[tuple[str, ...]] = ()

    @property
    def stride(self) -> int:
        """Sides of images (or latents) must be multiples of this."""
        return 1

    @property
    def image_channels(self) -> int:
        """Channels of images (or latents) that the network is given."""
        return 3

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of what a denoiser is told of an image; see :mod:`diffpath_jax.networks.conditions`."""
        return ()

    @property
    def feature_width(self) -> int:
        """Numbers of the features of an image that a denoiser is told; 0 where it is not told any."""
        return 0

    @property
    def columns(self) -> tuple[int, ...]:
        """How many values each column of the records has that a denoiser is told, 0 for a number; empty for none."""
        return ()

    @property
    def learn_sigma(self) -> bool:
        """True if a denoiser predicts the variance of a step beside the noise."""
        return False

    @property
    def remat(self) -> bool:
        """True if the backward pass computes blocks again instead of keeping them."""
        return False

    @property
    def title(self) -> str:
        """Name of the network on pages."""
        return type(self).__name__.removesuffix("Config")

    def for_classes(self, num_classes: int) -> "NetworkConfig":
        """The config for data of so many classes (the null class included, where there is one)."""
        return self

    def conflict(self) -> Conflict | None:
        """The first key whose value does not go with others, and why; none where all fit."""
        return None

    def as_json(self) -> dict[str, Any]:
        """Every key that a config names, lists for tuples."""
        return {
            field.name: list(value) if isinstance(value := getattr(self, field.name), tuple) else value
            for field in dataclasses.fields(self)
            if field.name not in self.FROM_DATA
        }


@dataclass(frozen=True)
class ClassNetworkConfig(NetworkConfig):
    """Base of the configs of networks that know classes.

    Attributes:
        num_classes: rows of the class embedding, the null class included (denoiser; 0 for an unconditional one), or
            number of logits (classifier). The data decide it.
    """

    FROM_DATA: ClassVar[tuple[str, ...]] = ("num_classes",)

    num_classes: Natural = 0

    @property
    def conditions(self) -> tuple[str, ...]:
        """The class."""
        return (CLASS_LABEL,)

    def for_classes(self, num_classes: int) -> "NetworkConfig":
        """The config with ``num_classes`` rows or logits."""
        return dataclasses.replace(self, num_classes=num_classes)


@runtime_checkable
class MakeNetwork(Protocol):
    """Constructor of a network's module."""

    def __call__(self, config: Any, *, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.Module:
        """A fresh module; ``dtype`` is that of activations."""


@dataclass(frozen=True)
class NetworkKind:
    """A kind of network: what a config calls it, its numbers, its code, and what it can be trained for.

    Attributes:
        name: value of ``network.kind``.
        config: dataclass of its numbers, of this kind alone.
        make: module for such a dataclass.
        task: what it is trained for.
    """

    name: str
    config: type[NetworkConfig]
    make: MakeNetwork
    task: TaskName


def odd(channels: int) -> Conflict | None:
    """A conflict of ``channels`` where they must come in pairs, half of them sines and half cosines."""
    return ("channels", f"{channels} is odd, but the time embedding needs pairs") if channels % 2 else None


def indivisible(key: str, widths: Mapping[str, int], divisor: int) -> Conflict | None:
    """A conflict of ``key`` with the first of some widths that it does not divide.

    Args:
        key: name of the divisor: what the channels are divided into.
        widths: what each width is -> channels.
        divisor: value of ``key``.
    """
    for what, width in widths.items():
        if width % divisor:
            return key, f"the {width} channels of {what} do not divide into {divisor} {key.removeprefix('num_')}"
    return None


def indivisible_heads(widths: Mapping[str, int], *, num_heads: int, head_channels: int = 0) -> Conflict | None:
    """A conflict of heads of attention with the first of some widths that they do not divide.

    Args:
        widths: what each width at which there is attention is -> channels.
        num_heads: heads of each attention.
        head_channels: channels of a head; other than 0 it counts instead of ``num_heads``.
    """
    key, divisor = ("head_channels", head_channels) if head_channels else ("num_heads", num_heads)
    for what, width in widths.items():
        if divisor < 1 or width % divisor:
            return key, f"{divisor} does not divide the {width} channels of {what}"
    return None
