"""Ranges of numbers in configs, named once."""

from typing import Annotated

from pydantic import Field

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
