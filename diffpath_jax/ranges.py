"""Ranges of numbers in configs, named once. None lets NaN or infinity pass."""

from typing import Annotated

from pydantic import Field

# Steps, images and bytes are counted in 32 bits.
_MOST = 2**31 - 1

# Whole numbers.
Positive = Annotated[int, Field(ge=1, le=_MOST)]
Natural = Annotated[int, Field(ge=0, le=_MOST)]
AtLeastTwo = Annotated[int, Field(ge=2, le=_MOST)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
# Replicates of an interval; each is as long as the set.
Resamples = Annotated[int, Field(ge=0, le=100_000)]
# Side of an image in pixels.
Side = Annotated[int, Field(ge=1, le=2**15)]
# Of JPEG.
Quality = Annotated[int, Field(ge=1, le=100)]
Workers = Annotated[int, Field(ge=0, le=1024)]
# Channels of a layer (or of a head, or groups of them), and layers or blocks one after the other.
Width = Annotated[int, Field(ge=1, le=2**16)]
Depth = Annotated[int, Field(ge=1, le=256)]
# Changes of an image one after the other, and their magnitude on RandAugment's published scale.
Operations = Annotated[int, Field(ge=0, le=16)]
Magnitude = Annotated[float, Field(ge=0, le=30, allow_inf_nan=False)]
# Something for each resolution level: as many as image sides can be halved.
Levels = Annotated[tuple[Depth, ...], Field(min_length=1, max_length=12)]
# A level's width in multiples of the base width, for each level: whole, or a fraction of it.
Multiples = Annotated[
    tuple[Depth | Annotated[float, Field(gt=0, le=256, allow_inf_nan=False)], ...], Field(min_length=1, max_length=12)
]

# Real numbers.
PositiveReal = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
NonNegativeReal = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
# From 0 to 1: with both ends, without 1, without 0, with neither.
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
PositiveFraction = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Probability = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
# Standard deviation of an average over training, as a share of it; a few of them.
AverageLength = Annotated[float, Field(ge=0.01, le=0.25, allow_inf_nan=False)]
AverageLengths = Annotated[tuple[AverageLength, ...], Field(max_length=4)]
# Of a noise schedule: log(alpha_bar / (1 - alpha_bar)), and a factor of the square root inside.
LogSnrWidth = Annotated[float, Field(ge=1e-2, le=20, allow_inf_nan=False)]
LogSnrCentre = Annotated[float, Field(ge=-20, le=20, allow_inf_nan=False)]
SnrFactor = Annotated[float, Field(ge=1e-2, le=1e2, allow_inf_nan=False)]
