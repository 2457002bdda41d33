"""``qa/index.html``: one page on which a pathologist sees what became of every slide and field, and why.

Pictures are files beside it that load when they are scrolled to, so that a thousand slides open at once. Slides and
patients stand on it by their keyed hashes. Their names, and the slides that failed with the reasons (which hold paths),
are in ``private/names.js``; where that lies beside the page, a browser shows them on it.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_prep import card, duplicates, qa, quality, repeats, shards, splits, tiling, unit
from data_prep.unit import PRIVATE, Job, Placed, Prepared, Source
from diffpath_jax import pages
from diffpath_jax.data import records
from diffpath_jax.errors import DiffpathError
from diffpath_jax.files import replace_file

PAGE, NAMES = "index.html", "names.js"
SHOWN_PAIRS = 24
_BINS = np.linspace(0, 1, 51)
_QUALITY = (quality.BLURRED, quality.PALE, quality.INK)


@dataclass(frozen=True)
class Content:
    """What the page shows.

    Attributes:
        job: settings.
        staging: where fields and images are.
        done: slides of the data set.
        failed: why the others are missing.
        placed: the slides with the split of each field.
        labels: labels of each split's records.
        details: what goes into the manifest.
        repeated: images that are there twice.
    """

    job: Job
    staging: shards.Staging
    done: Sequence[tuple[Source, Prepared]]
    failed: Sequence[DiffpathError]
    placed: Sequence[Placed]
    labels: Mapping[str, Sequence[int]]
    details: Mapping[str, Any]
    repeated: repeats.Repeats


def write(content: Content) -> None:
    """Write the page and the names that it may show."""
    _write_names(content)
    scores = {name: np.zeros(len(_BINS) - 1, int) for name in _limits(content.job)}
    slides = [_slide(content, number, scores) for number in range(len(content.done))]
    notes = card.duplicate_notes(content.details["duplicates"])
    warnings = [note for note in notes if note.startswith(card.WARNING)]
    pages.write_page(
        content.job.out / qa.FOLDER / PAGE,
        "prep.html",
        name=content.job.name,
        names_file=f"../{PRIVATE}/{NAMES}",
        details=content.details,
        colours=qa.OUTCOME_COLOURS,
        cards=_cards(content),
        warnings=warnings,
        settings=_settings(content.job),
        classes=content.job.class_map.names,
        counts={split: Counter(labels) for split, labels in content.labels.items() if labels},
        outcomes=_outcomes(content),
        scores=_histograms(scores, _limits(content.job)),
        duplicates=content.details["duplicates"],
        duplicate_notes=[note for note in notes if note not in warnings],
        pairs=_pairs(content),
        failed=len(content.failed),
        slides=slides,
    )


def _write_names(content: Content) -> None:
    names = {
        "slides": {prepared.identity.slide: source.slide.name for source, prepared in content.done},
        "patients": {prepared.identity.patient: source.patient for source, prepared in content.done},
        "failed": [str(error) for error in content.failed],
    }
    with replace_file(content.job.out / PRIVATE / NAMES) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(f"window.diffpathNames = {json.dumps(names)};\n", encoding="utf-8")


def _limits(job: Job) -> dict[str, tuple[float, str]]:
    """Score -> its limit, and on which side of it a field is rejected."""
    return {
        "tissue_share": (job.fields.tissue_min, "below"),
        "saturation": (job.quality.saturation_min, "below"),
        "pen_share": (job.quality.pen_max, "above"),
        "blur": (job.quality.blur_max, "above"),
    }


def _cards(content: Content) -> list[dict[str, str]]:
    images = sum(len(labels) for labels in content.labels.values())
    outcomes = Counter(content.details["outcomes"])
    judged = sum(outcomes[name] for name in (tiling.KEPT, tiling.NO_TISSUE, *_QUALITY))
    rejected = sum(outcomes[name] for name in _QUALITY)
    found = content.details["duplicates"]
    repeated = sum(sum(found[kind].values()) for kind in ("exact", "near"))
    return [
        {"name": "slides", "value": f"{len(content.done):,}", "words": f"{len(content.failed)} failed"},
        {"name": "images", "value": f"{images:,}", "words": f"of {judged:,} fields within regions"},
        {"name": "rejected for quality", "value": f"{rejected:,}", "words": "blurred, colourless or inked"},
        {"name": "duplicates", "value": f"{repeated:,}", "words": "left out" if found["dropped"] else "listed"},
    ]


def _settings(job: Job) -> list[tuple[str, str]]:
    fields = job.fields
    return [
        ("field of view", f"{fields.fov_um:g} um, stored as {fields.patch_px} px at {fields.mpp:.4g} um/px"),
        ("step of the grid", f"{fields.stride_um:g} um"),
        ("a field belongs to a class", f"that covers at least {fields.roi_min:.0%} of it"),
        ("overlaps of classes", {"reject": "nobody's", "priority": "the first class's"}[job.class_map.overlap]),
        ("tissue", f"at least {fields.tissue_min:.0%}"),
        ("blur", f"at most {job.quality.blur_max:g} (0 sharp, 1 without detail)"),
        ("saturation", f"at least {job.quality.saturation_min:g}"),
        ("ink", f"at most {job.quality.pen_max:.0%}"),
        ("duplicates", {"report": "listed", "drop": "left out, but for the first"}[job.duplicates]),
        ("shares of train, val and test", ", ".join(f"{share:g}" for share in job.split.fractions)),
        ("seed of the split", str(job.split.seed)),
    ]


def _outcomes(content: Content) -> list[dict[str, Any]]:
    """Every outcome with its colour in the overlays."""
    found = content.details["outcomes"]
    colours = {"dropped in the gap": splits.GAP, "dropped as duplicates": duplicates.DROPPED}
    whole = sum(count for name, count in found.items() if name not in colours)
    return [
        {
            "name": name,
            "count": count,
            "share": count / max(whole, 1),
            "colour": qa.OUTCOME_COLOURS.get(colours.get(name, name)),
        }
        for name, count in sorted(found.items(), key=lambda item: (item[0] in colours, -item[1]))
    ]


def _slide(content: Content, number: int, scores: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What is shown of one slide; its fields are added to the histograms of ``scores``."""
    _, prepared = content.done[number]
    placed = content.placed[number]
    described = content.staging.describe(prepared.name)
    fields = unit.staged_fields(described)
    for name, counts in scores.items():
        values = [getattr(field if name == "tissue_share" else field.scores, name, None) for field in fields]
        counts += np.histogram([value for value in values if value is not None], _BINS)[0]
    outcomes = Counter(field.outcome for field in fields)
    judged = outcomes.total() - outcomes[tiling.OUTSIDE]
    folder = content.job.out / qa.FOLDER
    overlay = f"{prepared.name}.png"
    width, height = described.details["size"]
    return {
        "key": prepared.identity.slide,
        "patient": prepared.identity.patient,
        "size": f"{width:,} x {height:,} px",
        "scale": prepared.scale,
        "kept": outcomes[tiling.KEPT],
        "kept_share": outcomes[tiling.KEPT] / max(judged, 1),
        "by_class": prepared.kept,
        "by_split": Counter(placed.assigned),
        "rejected": {
            name: count for name, count in outcomes.most_common() if name not in (tiling.KEPT, tiling.OUTSIDE)
        },
        "notes": [*prepared.scale.get("doubts", ()), *card.annotation_notes([prepared.annotations])],
        "overlay": overlay if (folder / overlay).exists() else None,
        "examples": [
            {"outcome": outcome, "count": outcomes[outcome], "order": example.order, "file": f"{qa.EXAMPLES}/{file}"}
            for outcome, example in qa.EXAMPLE_OUTCOMES.items()
            if (folder / qa.EXAMPLES / (file := qa.example_file(prepared.name, outcome))).exists()
        ],
    }


def _histograms(scores: Mapping[str, np.ndarray], limits: Mapping[str, tuple[float, str]]) -> bytes:
    """How the scores of all fields lie beside their limits."""
    figure = pages.new_figure(12.0, 2.4)
    for axes, (name, counts) in zip(figure.subplots(1, len(scores)), scores.items(), strict=True):
        limit, side = limits[name]
        axes.stairs(counts, _BINS, fill=True, color="#7a3b78")
        axes.axvline(limit, color="#b40426", linewidth=1.2)
        axes.axvspan(*((0, limit) if side == "below" else (limit, 1)), color="#b40426", alpha=0.12, linewidth=0)
        axes.set(xlim=(0, 1), yscale="symlog")
        axes.set_title(f"{name.replace('_', ' ')}, rejected {side} {limit:g}", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    return pages.png_of(figure)


def _pairs(content: Content) -> list[dict[str, Any]]:
    """Pictures of some duplicates, those across splits first."""
    pairs, job = content.repeated.pairs, content.job
    schema = records.Schema((job.fields.patch_px, job.fields.patch_px), job.class_map.names)
    shown = []
    for number, pair in enumerate(np.lexsort((pairs.second, ~pairs.exact, -pairs.where))[:SHOWN_PAIRS]):
        sides = [_side(content, image, schema) for image in (int(pairs.first[pair]), int(pairs.second[pair]))]
        file = f"{qa.EXAMPLES}/duplicate-{number:02d}.jpg"
        qa.write_strip(job.out / qa.FOLDER / file, [side.pop("image") for side in sides])
        kind = "the same pixels" if pairs.exact[pair] else f"nearly the same ({pairs.bits[pair]} of 143 bits differ)"
        turned = ", turned or mirrored" if pairs.turned[pair] else ""
        shown.append(
            {"file": file, "sides": sides, "kind": kind + turned, "where": duplicates.WHERE[pairs.where[pair]]}
        )
    return shown


def _side(content: Content, image: int, schema: records.Schema) -> dict[str, Any]:
    found = content.repeated
    slide, index = int(found.slide[image]), int(found.index[image])
    _, prepared = content.done[slide]
    (data,) = content.staging.read(content.staging.describe(prepared.name), [index])
    return {
        "slide": prepared.identity.slide,
        "index": index,
        "split": str(found.split[image]),
        "label": str(found.label[image]),
        "image": records.decode(data, schema).image,
    }
