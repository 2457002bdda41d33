"""What a reader study shows: images drawn from two sets, and an order of its own for every reader."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from jaxtyping import Int

from diffpath_jax.data.records import known_to_differ
from diffpath_jax.evaluation.compare import TRAINING_SPLIT
from diffpath_jax.evaluation.image_sets import ImageSet
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import sha256_json
from diffpath_jax.reader.key import FORMAT, Case, Key, Trial
from diffpath_jax.reader.question import Question

# Hexadecimal digits of a study's digest in its name.
_DIGITS = 12


@dataclass(frozen=True)
class Settings:
    """Settings of a study.

    Attributes:
        question: what is asked.
        images: real images, and as many generated ones; of pairs, how many.
        readers: how many.
        seed: of the draw.
    """

    question: Question
    images: int
    readers: int
    seed: int


def draw(real: ImageSet, generated: ImageSet, settings: Settings) -> Key:
    """Returns a study: as many images of each class from either set, shown to every reader in a random order.

    Who has the seed and not the images cannot tell the order: it is drawn from the sets' digests too.

    Raises:
        DiffpathError: images that cannot be told apart fairly, such as of two sizes, or too few of a class.
    """
    _check(real, generated, settings)
    rng = np.random.default_rng(int(sha256_json([settings.seed, real.digest, generated.digest])[:16], 16))
    cases = _cases(real, generated, settings, rng)
    key = Key(
        format=FORMAT,
        study="",
        question=settings.question.name,
        classes=_shared_classes(real, generated),
        seed=settings.seed,
        real=real.about(),
        generated=generated.about(),
        cases=cases,
        readers=tuple(_order(len(cases), settings.question, rng) for _ in range(settings.readers)),
        warnings=tuple(_warnings(real, generated)),
    )
    return replace(key, study=f"study-{sha256_json(asdict(key))[:_DIGITS]}")


def _check(real: ImageSet, generated: ImageSet, settings: Settings) -> None:
    """Refuses what would give images away, or what a model was trained on.

    Raises:
        DiffpathError: naming both sets.
    """
    if real.image_px != generated.image_px:
        sizes = " and ".join(f"{width} x {height} px" for height, width in (real.image_px, generated.image_px))
        why, fix = f"real and generated ones have {sizes}, which would tell them apart", "show images of one size"
        raise DiffpathError("images", where=generated.where, why=why, fix=fix)
    if real.split == TRAINING_SPLIT and real.dataset in generated.training_data:
        why, fix = "the model was trained on these images, and may repeat them", "name a split that was held out"
        raise DiffpathError(f"split {real.split!r}", where=real.where, why=why, fix=fix, code=ExitCode.REFUSED)
    if not settings.question.choices and len(_shared_classes(real, generated)) < 2:
        why, fix = "the two sets share fewer than two classes", "ask another question"
        raise DiffpathError(f"question {settings.question.name!r}", where=generated.where, why=why, fix=fix)


def _warnings(real: ImageSet, generated: ImageSet) -> Iterator[str]:
    if real.kind != "real":
        yield "nothing says that the images shown as real ones are real"
    if real.split == TRAINING_SPLIT:
        yield "the real images are of a training split: a model that repeats its training images looks real"
    if real.optimism:
        yield f"the real images are no new patients': {real.optimism}"
    if not generated.training_data:
        yield "nothing says what the generated images' model was trained on, so it may be the real images"
    if known_to_differ(real.mpp, generated.mpp):
        yield f"real images have {real.mpp:g} um/px and generated ones {generated.mpp:g}: size may tell them apart"


def _shared_classes(real: ImageSet, generated: ImageSet) -> tuple[str, ...]:
    return tuple(name for name in real.classes if name in generated.classes)


def _cases(real: ImageSet, generated: ImageSet, settings: Settings, rng: np.random.Generator) -> tuple[Case, ...]:
    """Returns images of one set after those of the other, class by class; or pairs of one class."""
    classes = _shared_classes(real, generated)
    own, other = (_chosen(images, classes, settings.images, rng).tolist() for images in (real, generated))
    labels = [label for label, count in enumerate(_counts(classes, settings.images)) for _ in range(count)]
    patients = {name: number for number, name in enumerate(sorted(set(real.patients) - {""}))}
    units = [f"patient {patients[real.patients[i]]}" if real.patients[i] else f"real {i}" for i in own]
    if settings.question.shown == 2:
        return tuple(map(Case, own, other, labels, units))
    return (
        *(Case(index, None, label, unit) for index, label, unit in zip(own, labels, units, strict=True)),
        *(Case(None, index, label, f"generated {index}") for index, label in zip(other, labels, strict=True)),
    )


def _counts(classes: Sequence[str], number: int) -> list[int]:
    """Returns how many images of each class are shown; of all, where there are no classes."""
    share, rest = divmod(number, max(len(classes), 1))
    return [share + (index < rest) for index in range(max(len(classes), 1))]


def _chosen(images: ImageSet, classes: Sequence[str], number: int, rng: np.random.Generator) -> Int[np.ndarray, "n"]:
    """Returns indices of random images, class by class, from as many patients as possible.

    Raises:
        DiffpathError: there are too few.
    """
    parts = []
    for name, count in zip(classes or ("",), _counts(classes, number), strict=True):
        pool = rng.permutation(images.of_class(name) if name else len(images))
        if len(pool) < count:
            of = f" of class {name!r}" if name else ""
            why, fix = f"there are {len(pool)}{of}, and {count} are to be shown", "lower --images"
            raise DiffpathError("images", where=images.where, why=why, fix=fix)
        parts.append(_spread(pool, images.patients)[:count])
    return np.concatenate(parts)


def _spread(pool: Int[np.ndarray, "n"], patients: Sequence[str]) -> Int[np.ndarray, "n"]:
    """Returns images with the first of every patient before the second of any."""
    seen: dict[str, int] = {}
    ranks = []
    for index in pool:
        ranks.append(seen.get(patients[index], 0))
        seen[patients[index]] = ranks[-1] + 1
    return pool[np.argsort(ranks, kind="stable")]


def _order(count: int, question: Question, rng: np.random.Generator) -> tuple[Trial, ...]:
    """Returns the trials of a reader; of pairs, the generated image is A in half of them."""
    swapped = rng.permutation(np.arange(count) % 2 == 0) & (question.shown == 2)
    return tuple(map(Trial, rng.permutation(count).tolist(), swapped.tolist()))
