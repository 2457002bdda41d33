"""At most so many fields: of each class of one slide, and of each class of the whole set.

Every field has a number of its own, drawn uniformly by seed, slide and place. A cap keeps the lowest: a simple random
sample, which depends neither on the order of slides and workers, nor on what an interrupted run had done, nor on the
other cap. A lower cap keeps a part of what a higher one keeps. Only fields that pass every limit count: one that is
rejected for its image makes room for the next. Duplicates that are left out later do not: which of two is one is known
only when all are drawn.
"""

import hashlib
import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

from data_prep.fields.tiling import KEPT, Field
from data_prep.slide.slides import Box
from diffpath_jax.io.errors import DiffpathError

OVER_SLIDE = "over the cap of a slide"
OVER_CLASS = "over the cap of a class"
# Not a split: fields that were read, and are over the cap of their class once all slides are known.
CAPPED = "capped"


@dataclass(frozen=True)
class CapSpec:
    """Largest numbers of fields that are kept; None for all.

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


def numbered(fields: Iterable[Field], *, seed: int, slide: str) -> list[Field]:
    """The fields of a slide, with the numbers of those that may be kept."""
    return [
        replace(field, number=number_of(seed, slide, field.box)) if field.outcome == KEPT else field for field in fields
    ]


Judged = tuple[Field, UInt8[np.ndarray, "px px 3"]]


def draw(
    fields: Sequence[Field], caps: CapSpec, read: Callable[[Sequence[Field]], Iterable[Judged]]
) -> Iterator[Judged | tuple[Field, None]]:
    """Read the fields of a slide with the lowest numbers, until as many of each class as the caps allow are kept.

    As many are read at a time as there is room for: what is read is either kept or rejected for what it shows, and the
    kept ones have the lowest numbers of all that would pass. A slide cannot have more of a class than the whole set.

    Args:
        fields: all, with numbers; without a cap they are read in their order.
        caps: how many may be kept.
        read: reads fields, given top to bottom and left to right, and judges them.

    Yields:
        Every field with its final outcome, and its image if it was read.
    """
    limits = [(caps.per_slide, OVER_SLIDE), (caps.per_class, OVER_CLASS)]
    finite = [(cap, reason) for cap, reason in limits if cap is not None]
    cap, reason = min(finite, key=lambda limit: limit[0], default=(len(fields), ""))
    waiting: dict[str, list[Field]] = {}
    for field in sorted(fields, key=lambda field: field.number):
        if field.outcome == KEPT:
            waiting.setdefault(field.label, []).append(field)
        else:
            yield field, None
    kept = Counter[str]()
    while chosen := [field for label, line in waiting.items() for field in line[: cap - kept[label]]]:
        waiting = {label: line[cap - kept[label] :] for label, line in waiting.items()}
        for field, image in read(sorted(chosen, key=lambda field: (field.box.y, field.box.x))):
            kept[field.label] += field.outcome == KEPT
            yield field, image
    for field in itertools.chain.from_iterable(waiting.values()):
        yield replace(field, label="", outcome=reason), None


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
        """Returns whether a field that was seen is among the lowest of its class."""
        return self._cap is None or field.number <= -self._lowest[field.label][0]
