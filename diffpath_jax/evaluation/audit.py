"""The memorisation audit of a generated set: what is looked up where, what is recorded, and the closest pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from diffpath_jax.evaluation.feature_cache import FeatureStore
from diffpath_jax.evaluation.features.extractor import FeatureExtractor
from diffpath_jax.evaluation.image_sets import ImageSet
from diffpath_jax.io.progress import console
from diffpath_jax.metrics.memorization import audit as memorization
from diffpath_jax.metrics.memorization import authenticity, matching
from diffpath_jax.render import image_grid

# Cells of C_T's clustering, and images that a cell needs (Meehan et al. 2020 leave out sparse cells).
CELLS, MIN_PER_CELL = 10, 20
# Training images whose features the other tests take: more cost a network's pass each.
MAX_TRAINING = 20_000


@dataclass(frozen=True)
class Sources:
    """What an audit compares.

    Attributes:
        generated: images of the model.
        training: what it was trained on.
        held_out: real images of patients that it was not trained on: the measure of honesty.
    """

    generated: ImageSet
    training: ImageSet
    held_out: ImageSet


@dataclass(frozen=True)
class Findings:
    """What an audit found.

    Attributes:
        copies: of training images.
        repeated: of other generated images.
        content: for the record.
        sources: what was compared.
    """

    copies: memorization.Audit
    repeated: memorization.Duplicates
    content: dict[str, Any]
    sources: Sources


def run(sources: Sources, extractors: Sequence[FeatureExtractor], store: FeatureStore, *, seed: int) -> Findings:
    """Look for copies of training images, and for images that repeat each other.

    Args:
        sources: what is compared.
        extractors: AuthPct and C_T, which need features, are given for each.
        store: of those features.
        seed: of the split of held-out patients, and of C_T's clusters.

    Raises:
        ValueError: too few images.
    """
    config = memorization.AuditConfig()
    generated, training, held_out = (_images(found) for found in vars(sources).values())
    console.print(f"audit: {generated.count} images against {training.count} of training", soft_wrap=True)
    found = memorization.audit(generated, training, held_out, config=config, seed=seed)
    repeated = memorization.duplicates(generated, held_out, config=config, seed=seed)
    doubts = _doubts(sources)
    content = {
        "doubts": doubts,
        "sources": {name: images.about() for name, images in vars(sources).items()},
        "config": asdict(config),
        "seed": seed,
        "copies": _as_json(found) | {"verdict": "; ".join([found.verdict, *doubts])},
        "repeated": _as_json(repeated.audit) | {"groups": [list(group) for group in repeated.groups]},
        "other_tests": [_other_tests(sources, extractor, store, seed) for extractor in extractors],
    }
    return Findings(found, repeated, content, sources)


def _doubts(sources: Sources) -> list[str]:
    """Why an audit may look for copies in the wrong place."""
    named = sources.generated.training_data
    if named and sources.training.dataset not in named:
        return ["the samples name other training data than this, so copies would be missed"]
    if len(named) > 1:
        return [f"the model was trained on {len(named)} data sets, and one of them was looked through"]
    return []


def _images(found: ImageSet) -> matching.Images:
    return matching.Images(len(found), found.blocks, found.fetch, np.array(found.patients))


def _as_json(found: memorization.Audit) -> dict[str, Any]:
    calibration = found.calibration
    return {
        "flagged": np.flatnonzero(found.flagged).tolist(),
        "certain": np.flatnonzero(found.certain).tolist(),
        "share": float(found.flagged.mean()),
        "p_value": found.p_value,
        "copying": found.copying,
        "verdict": found.verdict,
        "threshold": calibration.threshold,
        "false_alarms": {
            "guaranteed": calibration.rate,
            "measured": calibration.fresh_rate,
            "interval": list(calibration.fresh_interval),
            "n": calibration.fresh_count,
            "by_patient": calibration.by_patient,
        },
        "closest": [asdict(pair) for pair in found.pairs],
    }


def _other_tests(
    sources: Sources, extractor: FeatureExtractor, store: FeatureStore, seed: int
) -> dict[str, str | float]:
    """AuthPct and C_T in a feature space, and what they are of the held-out images, where nothing was copied."""
    chosen = np.random.default_rng(seed).permutation(len(sources.training))[:MAX_TRAINING]
    parts = (sources.generated, sources.training.subset(np.sort(chosen)), sources.held_out)
    generated, training, held_out = (store.features(images, extractor) for images in parts)
    found: dict[str, str | float] = {
        "features": extractor.name,
        "n_training": len(training),
        "auth_percent": authenticity.auth_percent(training, generated),
        "auth_percent_of_held_out": authenticity.auth_percent(training, held_out),
    }
    try:
        found["c_t"] = _copying_score(training, held_out, generated, seed)
    except ValueError as error:
        found["note"] = f"no C_T: {error}"
    return found


def _copying_score(
    training: Float[np.ndarray, "m d"],
    held_out: Float[np.ndarray, "l d"],
    generated: Float[np.ndarray, "n d"],
    seed: int,
) -> float:
    cells = min(CELLS, len(training))
    return authenticity.copying_score(training, held_out, generated, cells=cells, min_per_cell=MIN_PER_CELL, seed=seed)


def for_page(findings: Findings) -> dict[str, Any]:
    """Words, rows and pictures for the page of an evaluation."""
    found, repeated = findings.copies, findings.repeated
    alarms = found.calibration
    rows = [
        ("images flagged as copies", f"{found.flagged.sum():,} of {len(found.flagged):,} ({found.flagged.mean():.2%})"),
        ("so near that no honest image would be", f"{found.certain.sum():,}"),
        ("of honest images, at most", f"{alarms.rate:.2%} are flagged"),
        ("of fresh held-out images", f"{alarms.fresh_alarms:,} of {alarms.fresh_count:,} ({alarms.fresh_rate:.2%})"),
        ("chance of as many by false alarms", f"{found.p_value:.3g}"),
        ("images that repeat each other", repeated.audit.verdict),
        ("groups of them", f"{len(repeated.groups):,}"),
        *(_shown(tests) for tests in findings.content["other_tests"]),
    ]
    return {
        "sentence": findings.content["copies"]["verdict"],
        "rows": rows,
        "pairs": [_pair(findings, pair) for pair in found.pairs],
    }


def _shown(tests: Mapping[str, Any]) -> tuple[str, str]:
    score = f"C_T {tests['c_t']:.2f} (far below 0: copies)" if "c_t" in tests else tests["note"]
    authentic = f"AuthPct {tests['auth_percent']:.1f}, of held-out images {tests['auth_percent_of_held_out']:.1f}"
    return f"other tests, in {tests['features']}", f"{authentic}; {score}"


def _pair(findings: Findings, pair: memorization.Pair) -> dict[str, Any]:
    """Both images side by side, the generated one turned as the training image lies."""
    (drawn,), (real,) = (
        findings.sources.generated.fetch([pair.generated]),
        findings.sources.training.fetch([pair.reference]),
    )
    sheet = image_grid.tile(np.stack([matching.turn(drawn, pair.symmetry), real]), columns=2)
    words = (
        f"image {pair.generated}, training image {pair.reference}: distance {pair.distance:.3f}, ratio {pair.ratio:.3f}"
    )
    return {"picture": image_grid.encode_png(sheet), "words": words}
