"""An evaluation: a set against a reference, beside what real images reach against real images."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from diffpath_jax.data import writer
from diffpath_jax.evaluation import compare, label_agreement
from diffpath_jax.evaluation.compare import Row, Sureness
from diffpath_jax.evaluation.feature_cache import FeatureStore
from diffpath_jax.evaluation.features.extractor import FeatureExtractor
from diffpath_jax.evaluation.image_sets import ImageSet, Statistics, with_counts
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.progress import track
from diffpath_jax.metrics import stain
from diffpath_jax.runs import run as runs

REFERENCE, MEASURED, FLOOR = "reference", "generated", "floor"
MIN_FLOOR = 4


@dataclass(frozen=True)
class Evaluation:
    """What is to be measured.

    Attributes:
        reference: real images, or their statistics.
        other: what is measured against them; none where only the floor or a classifier is asked for.
        floor: real images that are not in ``reference``, as a floor of every distance; none for none.
        extractors: feature spaces.
        classifiers: classifiers that say which classes they see.
        sureness: how intervals are computed.
    """

    reference: ImageSet | Statistics
    other: ImageSet | Statistics | None
    floor: ImageSet | None
    extractors: Sequence[FeatureExtractor]
    classifiers: Sequence[runs.Run]
    sureness: Sureness

    @property
    def compared(self) -> dict[str, ImageSet | Statistics]:
        """What is measured against the reference, by name."""
        found = {MEASURED: self.other, FLOOR: self.floor}
        return {name: images for name, images in found.items() if images is not None}


def real_floor(pool: ImageSet, other: ImageSet | Statistics | None, *, seed: int) -> ImageSet | None:
    """Real images that a distance is to be read beside: as many of each class as the other set has, or as there are.

    Args:
        pool: real images that are not in the reference, such as the training split.
        other: the set whose distance it is; without one, the whole pool is the floor; statistics have no number.
        seed: of the draw.

    Returns:
        The floor; none where there are too few images for one.
    """
    if other is None:
        return pool
    if isinstance(other, Statistics):
        return None
    floor = with_counts(pool, other, seed=seed)
    return floor if len(floor) >= MIN_FLOOR else None


def measure(evaluation: Evaluation, store: FeatureStore) -> dict[str, Any]:
    """Everything that was asked for, as it goes into ``metrics.json``.

    Raises:
        DiffpathError: sets that cannot be compared, or features that are not finite.
    """
    reference, compared = evaluation.reference, evaluation.compared
    spaces = _spaces(evaluation)
    for images in compared.values():
        check_comparable(reference, images, spaces)
    content: dict[str, Any] = {
        "versions": writer.versions("jax", "numpy", "scipy"),
        "seed": evaluation.sureness.seed,
        "resamples": evaluation.sureness.resamples,
        "reference": reference.about(),
        "sets": {name: images.about() for name, images in compared.items()},
    }
    if compared:
        content["distances"] = [
            {"features": _about(extractor), "rows": _as_json(_distances(evaluation, extractor, store))}
            for extractor in spaces
        ]
        content["stain"] = _as_json(_stains(evaluation))
    labelled = {
        name: found
        for name, found in {REFERENCE: reference, **compared}.items()
        if isinstance(found, ImageSet) and found.classes and name != FLOOR
    }
    content["classification"] = [
        entry
        for run in evaluation.classifiers
        for entry in label_agreement.classify(run, labelled, sureness=evaluation.sureness)
    ]
    return content


def _spaces(evaluation: Evaluation) -> Sequence[FeatureExtractor]:
    """Feature spaces with names of their own; where only statistics are known, the one that they share."""
    everything = (evaluation.reference, *evaluation.compared.values())
    if evaluation.compared and all(isinstance(found, Statistics) for found in everything):
        return [STORED]
    names = [extractor.name for extractor in evaluation.extractors]
    return [
        replace(extractor, name=f"{extractor.name}-{extractor.digest[:6]}")
        if names.count(extractor.name) > 1
        else extractor
        for extractor in evaluation.extractors
    ]


def _no_features(images: np.ndarray) -> np.ndarray:
    raise AssertionError("statistics have no images")


# Where both sides are stored statistics, no network is asked.
STORED = FeatureExtractor("stored", "stored statistics; they do not say of which network", "", "unknown", _no_features)


def _distances(evaluation: Evaluation, extractor: FeatureExtractor, store: FeatureStore) -> dict[str, dict[str, Row]]:
    found = {}
    with track(f"metrics in {extractor.name}", total=len(evaluation.compared), unit="set") as progress:
        for name, other in evaluation.compared.items():
            found[name] = _compared(evaluation.reference, other, extractor, store, evaluation.sureness)
            progress.advance(1)
    _note_small_floor(found.get(FLOOR, {}), found.get(MEASURED, {}))
    return found


def _note_small_floor(floor: Mapping[str, Row], measured: Mapping[str, Row]) -> None:
    """A distance grows as images get fewer: a floor of fewer images is no floor."""
    for group, row in floor.items():
        wanted = measured[group].n_other if group in measured else None
        if wanted and row.n_other and row.n_other < wanted:
            row.notes.append(f"the floor has {row.n_other} images and the set {wanted}: it is too high")


def _compared(
    reference: ImageSet | Statistics,
    other: ImageSet | Statistics,
    extractor: FeatureExtractor,
    store: FeatureStore,
    sureness: Sureness,
) -> dict[str, Row]:
    if isinstance(reference, ImageSet) and isinstance(other, ImageSet):
        x, y = (store.features(images, extractor) for images in (reference, other))
        return compare.feature_rows(reference, other, x, y, extractor=extractor, sureness=sureness)
    ours, theirs = (
        compare.gaussian(images if isinstance(images, Statistics) else store.features(images, extractor))
        for images in (reference, other)
    )
    if ours.mean.shape != theirs.mean.shape:
        where = next(images.where for images in (reference, other) if isinstance(images, Statistics))
        why = f"statistics of {len(ours.mean)} and {len(theirs.mean)} features cannot be compared"
        raise DiffpathError("statistics", where=where, why=why, fix="use statistics of the same network's features")
    row = Row(reference.about()["n"], other.about()["n"])
    return compare.statistics_rows(ours, theirs, row, extractor)


def _stains(evaluation: Evaluation) -> dict[str, dict[str, Row]]:
    reference = evaluation.reference
    if not isinstance(reference, ImageSet):
        return {}
    x = _moments(reference)
    return {
        name: compare.stain_rows(reference, other, x, _moments(other), sureness=evaluation.sureness)
        for name, other in evaluation.compared.items()
        if isinstance(other, ImageSet)
    }


def _moments(images: ImageSet) -> Float[np.ndarray, "n 2 2"]:
    return np.concatenate([stain.image_moments(block) for block in images.blocks()])


def check_comparable(
    reference: ImageSet | Statistics, other: ImageSet | Statistics, extractors: Sequence[FeatureExtractor]
) -> None:
    """Refuse a comparison over other classes, or over other sizes in features that do not resize.

    Raises:
        DiffpathError: naming both.
    """
    if isinstance(reference, Statistics) or isinstance(other, Statistics):
        return
    unknown = sorted(set(other.classes) - set(reference.classes))
    if unknown and reference.classes:
        why = f"{unknown} are not among those of {reference.where}: {list(reference.classes)}"
        fix = "compare what has the same classes, or rename the folders"
        raise DiffpathError("classes", where=other.where, why=why, fix=fix)
    for extractor in extractors:
        for images in (reference, other):
            if extractor.image_px:
                fix = "use images of its size, or features that resize, such as Inception's"
                check_size(images, extractor.image_px, f"{extractor.name}, which resizes nothing,", fix)


def check_size(images: ImageSet, image_px: tuple[int, int], network: str, fix: str) -> None:
    """Refuse images of another size than a network was trained with.

    Raises:
        DiffpathError: naming both sizes.
    """
    if images.image_px != image_px:
        ours, theirs = (f"{width} x {height} px" for height, width in (images.image_px, image_px))
        why = f"they have {ours}, and {network} was trained with {theirs}"
        raise DiffpathError("images", where=images.where, why=why, fix=fix)


def _about(extractor: FeatureExtractor) -> dict[str, Any]:
    return {
        "name": extractor.name,
        "description": extractor.description,
        "digest": extractor.digest,
        "resize": extractor.resize,
        "frechet_name": extractor.frechet_name,
        "kernel_name": extractor.kernel_name,
    }


def _as_json(rows: Mapping[str, Mapping[str, Row]]) -> dict[str, Any]:
    return {name: {group: asdict(row) for group, row in found.items()} for name, found in rows.items()}
