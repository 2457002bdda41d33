"""At most so many fields: of each class of one slide, and of each class of the whole set.

Every field has a number of its own, drawn uniformly by seed, slide and place. A cap keeps the lowest: a simple random
sample, which depends neither on the order of slides and workers, nor on what an interrupted run had done, nor on the
other cap. A lower cap keeps a part of what a higher one keeps.
"""

import hashlib
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from data_prep.slides import Box
from data_prep.tiling import KEPT, Field
from diffpath_jax.errors import DiffpathError

OVER_SLIDE = "over the cap of a slide"
OVER_CLASS = "over the cap of a class"
# Not a split: fields that were read, and are over the cap of their class once all slides are known.
CAPPED = "capped"


@dataclass(frozen=True)
class CapSpec:
    """How many fields may be kept; None for all.

    Attributes:
        per_slide: of each class of one slide.
        per_class: of each class of the whole set.
    """

    per_slide: int | None
    per_class: int | None


def check_caps(caps: CapSpec) -> CapSpec:
    """Return the caps.

    Raises:
        DiffpathError: one of them keeps nothing.
    """
    for name, value in (("--max_per_slide", caps.per_slide), ("--max_per_class", caps.per_class)):
        if value is not None and value < 1:
            raise DiffpathError(name, where="the command line", why=f"{value} keeps nothing", fix="give 1 or more")
    return caps


def number_of(seed: int, slide: str, box: Box) -> float:
    """The number of the field at a place of a slide, uniform from 0 to 1.

    Args:
        seed: the job's.
        slide: digest of the slide's file, so that names and keys change nothing.
        box: place of the field.
    """
    text = f"{seed}:{slide}:{box.x:.3f}:{box.y:.3f}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def within_slide(fields: Sequence[Field], caps: CapSpec, *, seed: int, slide: str) -> tuple[Field, ...]:
    """Number the kept fields of a slide, and reject those over a cap.

    A slide cannot have more of a class than the whole set: those over that cap need not be read.
    """
    numbered = [
        replace(field, number=number_of(seed, slide, field.box)) if field.outcome == KEPT else field for field in fields
    ]
    for cap, reason in ((caps.per_slide, OVER_SLIDE), (caps.per_class, OVER_CLASS)):
        limits = Limits(cap)
        limits.add(numbered)
        numbered = [
            field if field.outcome != KEPT or limits.keep(field) else replace(field, label="", outcome=reason)
            for field in numbered
        ]
    return tuple(numbered)


class Limits:
    """The largest number that a cap keeps of each class, once it has seen all fields.

    Args:
        cap: how many of each class are kept; None for all.
    """

    def __init__(self, cap: int | None) -> None:
        self._cap = cap
        # Of each class the lowest numbers seen, negated: the largest of them comes first.
        self._lowest: dict[str, list[float]] = {}

    def add(self, fields: Iterable[Field]) -> None:
        """See the kept fields among some."""
        if self._cap is None:
            return
        for field in fields:
            if field.outcome == KEPT:
                lowest = self._lowest.setdefault(field.label, [])
                if len(lowest) < self._cap:
                    heapq.heappush(lowest, -field.number)
                else:
                    heapq.heappushpop(lowest, -field.number)

    def keep(self, field: Field) -> bool:
        """Whether a field that was seen is among the lowest of its class."""
        return self._cap is None or field.number <= -self._lowest[field.label][0]
