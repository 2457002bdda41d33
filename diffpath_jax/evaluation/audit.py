"""The memorisation audit of a generated set: its sources, its record, and pictures of the closest pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from diffpath_jax.data import marking
from diffpath_jax.data.image_files import encode_png
from diffpath_jax.data.manifest import MANIFEST, Dataset, open_dataset
from diffpath_jax.evaluation import image_sets
from diffpath_jax.evaluation.compare import TRAINING_SPLIT
from diffpath_jax.evaluation.feature_cache import FeatureStore
from diffpath_jax.evaluation.features.extractor import FeatureExtractor
from diffpath_jax.evaluation.image_sets import ImageSet, Statistics
from diffpath_jax.evaluation.record import AuditRecord, Copies, FalseAlarms, OtherTests, Repeated, SkippedAudit
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.progress import console
from diffpath_jax.metrics.memorization import audit as memorization
from diffpath_jax.metrics.memorization import authenticity, matching
from diffpath_jax.render import image_grid

# Cells of C_T's clustering, and images that a cell needs (Meehan et al. 2020 leave out sparse cells).
CELLS, MIN_PER_CELL = 10, 20
# Training images whose features the other tests take: more cost a network's pass each.
MAX_TRAINING = 20_000
UNKNOWN = "which images the model was trained on is not known"
NO_IMAGES = "there are no generated images at hand"


@dataclass(frozen=True)
class Sources:
    """Sets of images that an audit compares.

    Attributes:
        generated: images of the model.
        training: images that it was trained on.
        held_out: real images of patients that it was not trained on; they set the rate of false alarms.
    """

    generated: ImageSet
    training: ImageSet
    held_out: ImageSet

    def by_name(self) -> dict[str, ImageSet]:
        """Returns the sets by their names in the record."""
        return {"generated": self.generated, "training": self.training, "held_out": self.held_out}


@dataclass(frozen=True)
class HeldOut:
    """Choice of held-out images.

    Attributes:
        limit: most images.
        seed: random seed of the choice.
    """

    limit: int
    seed: int


@dataclass(frozen=True)
class PairPicture:
    """A generated image beside the training image that it is closest to.

    Attributes:
        picture: PNG bytes.
        words: caption.
    """

    picture: bytes
    words: str


def named_sources(generated: ImageSet | Statistics | None, path: Path, held_out: HeldOut) -> Sources | SkippedAudit:
    """Returns the sources of an audit against a data set that the user named.

    Raises:
        DiffpathError: the data set is missing, damaged, of another size, or has no held-out split.
    """
    if not isinstance(generated, ImageSet):
        return SkippedAudit(NO_IMAGES)
    dataset = open_dataset(path)
    why = _size_difference(generated, dataset)
    if why:
        raise DiffpathError("audit", where=path, why=why, fix="audit a set of the training size")
    return _sources(generated, dataset, held_out)


def automatic_sources(generated: ImageSet | Statistics | None, real: Path, held_out: HeldOut) -> Sources | SkippedAudit:
    """Returns the sources of an audit where the samples name the reference as their training data.

    Args:
        generated: images of the model.
        real: data set of the reference, whose files were checked when it was opened.
        held_out: choice of held-out images.

    Raises:
        DiffpathError: the data set has no held-out split.
    """
    if not isinstance(generated, ImageSet):
        return SkippedAudit(NO_IMAGES)
    if not (real / MANIFEST).exists():
        return SkippedAudit(UNKNOWN)
    dataset = open_dataset(real, verify=False)
    if dataset.digest not in generated.training_data:
        return SkippedAudit(UNKNOWN)
    why = _size_difference(generated, dataset)
    return SkippedAudit(why) if why else _sources(generated, dataset, held_out)


def _size_difference(generated: ImageSet, dataset: Dataset) -> str:
    """Returns in words by how much the sizes of the images differ; empty where they do not."""
    if dataset.schema.image_px == generated.image_px:
        return ""
    return f"its images have {dataset.schema.image_px[::-1]} px, the generated ones {generated.image_px[::-1]}"


def _sources(generated: ImageSet, dataset: Dataset, held_out: HeldOut) -> Sources:
    splits = [split for split in dataset.splits if split != TRAINING_SPLIT and dataset.count(split)]
    if not splits:
        why = "it has no split but the training split, so nothing says how near images of other patients come"
        fix = "name a data set with held-out images, or ask for no audit"
        raise DiffpathError("audit", where=dataset.directory, why=why, fix=fix)
    pool = image_sets.joined([image_sets.from_dataset(dataset, split) for split in splits])
    chosen = np.random.default_rng(held_out.seed).permutation(len(pool))[: held_out.limit]
    return Sources(generated, image_sets.from_dataset(dataset, TRAINING_SPLIT), pool.subset(np.sort(chosen)))


def run(
    sources: Sources, extractors: Sequence[FeatureExtractor], store: FeatureStore, *, seed: int
) -> AuditRecord | SkippedAudit:
    """Looks for copies of training images, and for images that repeat each other.

    Args:
        sources: sets to compare; too few images give no audit.
        extractors: feature spaces of AuthPct and C_T.
        store: their features.
        seed: random seed of the split of held-out patients, and of C_T's clusters.
    """
    console.print(f"audit: {len(sources.generated)} images against {len(sources.training)} of training", soft_wrap=True)
    try:
        return _audited(sources, extractors, store, seed)
    except ValueError as error:
        return SkippedAudit(str(error))


def _audited(sources: Sources, extractors: Sequence[FeatureExtractor], store: FeatureStore, seed: int) -> AuditRecord:
    config = memorization.AuditConfig()
    generated, training, held_out = (as_matching_images(images) for images in sources.by_name().values())
    copies = memorization.audit(generated, training, held_out, config=config, seed=seed)
    repeated = memorization.duplicates(generated, held_out, config=config, seed=seed)
    warnings = _warnings(sources)
    return AuditRecord(
        warnings=warnings,
        sources={name: images.about() for name, images in sources.by_name().items()},
        config=config,
        seed=seed,
        copies=_copies(copies, "; ".join([copies.verdict, *warnings])),
        repeated=Repeated(
            **vars(_copies(repeated.audit, repeated.audit.verdict)), groups=[list(group) for group in repeated.groups]
        ),
        other_tests=[_other_tests(sources, extractor, store, seed) for extractor in extractors],
    )


def _warnings(sources: Sources) -> list[str]:
    """Returns why an audit may look for copies in the wrong place."""
    named = sources.generated.training_data
    if named and sources.training.dataset not in named:
        return ["the samples name other training data than this, so copies would be missed"]
    if len(named) > 1:
        return [f"the model was trained on {len(named)} data sets, and one of them was looked through"]
    return []


def as_matching_images(images: ImageSet) -> matching.Images:
    """Returns a set as matching takes it: not in memory whole."""
    return matching.Images(len(images), images.blocks, images.fetch, np.array(images.patients))


def _copies(audit: memorization.Audit, verdict: str) -> Copies:
    calibration = audit.calibration
    return Copies(
        flagged=np.flatnonzero(audit.flagged).tolist(),
        certain=np.flatnonzero(audit.certain).tolist(),
        share=float(audit.flagged.mean()),
        p_value=audit.p_value,
        copying=audit.copying,
        verdict=verdict,
        threshold=calibration.threshold,
        false_alarms=FalseAlarms(
            guaranteed=calibration.rate,
            measured=calibration.fresh_rate,
            interval=calibration.fresh_interval,
            n=calibration.fresh_count,
            by_patient=calibration.by_patient,
        ),
        closest=list(audit.pairs),
    )


def _other_tests(sources: Sources, extractor: FeatureExtractor, store: FeatureStore, seed: int) -> OtherTests:
    """Returns AuthPct and C_T in a feature space, and AuthPct of the held-out images, where nothing was copied."""
    chosen = np.random.default_rng(seed).permutation(len(sources.training))[:MAX_TRAINING]
    parts = (sources.generated, sources.training.subset(np.sort(chosen)), sources.held_out)
    generated, training, held_out = (store.features(images, extractor) for images in parts)
    score, note = None, None
    try:
        score = _copying_score(training, held_out, generated, seed)
    except ValueError as error:
        note = f"no C_T: {error}"
    return OtherTests(
        features=extractor.name,
        n_training=len(training),
        auth_percent=authenticity.auth_percent(training, generated),
        auth_percent_of_held_out=authenticity.auth_percent(training, held_out),
        c_t=score,
        note=note,
    )


def _copying_score(
    training: Float[np.ndarray, "m d"],
    held_out: Float[np.ndarray, "l d"],
    generated: Float[np.ndarray, "n d"],
    seed: int,
) -> float:
    cells = min(CELLS, len(training))
    return authenticity.copying_score(training, held_out, generated, cells=cells, min_per_cell=MIN_PER_CELL, seed=seed)


def pair_pictures(sources: Sources, record: AuditRecord) -> list[PairPicture]:
    """Returns the closest pairs side by side, the generated image turned as the training image lies."""
    return [
        PairPicture(
            picture=_side_by_side(
                sources.generated.fetch([pair.generated])[0],
                sources.training.fetch([pair.reference])[0],
                symmetry=pair.symmetry,
            ),
            words=f"image {pair.generated}, training image {pair.reference}: "
            f"distance {pair.distance:.3f}, ratio {pair.ratio:.3f}",
        )
        for pair in record.copies.closest
    ]


def _side_by_side(
    generated: UInt8[np.ndarray, "h w 3"], training: UInt8[np.ndarray, "h w 3"], *, symmetry: int
) -> bytes:
    sheet = image_grid.tile(np.stack([matching.turn(generated, symmetry), training]), columns=2)
    return encode_png(sheet, marking.about())
