"""``qa/index.html``: one page on which a pathologist sees what became of every source and field, and why.

Pictures are files beside it that load when they are scrolled to, so that a thousand slides open at once. Slides, images
and patients stand on it by their keyed hashes. Their names, and what failed with the reasons (which hold paths), are in
``private/names.js``; where that lies beside the page, a browser shows them on it.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_prep.fields import caps, quality, tiling
from data_prep.fields.duplicates import WHERE
from data_prep.job import duplicates
from data_prep.job.source_tasks import Prepared, SplitAssignment
from data_prep.qa import pictures
from data_prep.sources.source import PRIVATE, Job, Origin, Source, StagedSource
from diffpath_jax.data import card, records
from diffpath_jax.data.details import Details
from diffpath_jax.data.staging import Staging
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.files import replace_file
from diffpath_jax.render import html

PAGE, NAMES = "index.html", "names.js"
SHOWN_PAIRS = 24
_BINS = np.linspace(0, 1, 51)
_QUALITY = (tiling.FOLDED, quality.BLURRED, quality.PALE, quality.INK)


@dataclass(frozen=True)
class Content:
    """Contents of the page.

    Attributes:
        job: settings.
        staging: where fields and images are.
        done: sources of the data set.
        failed: why the others, or parts of them, are missing.
        assignments: the sources with the split of each field.
        labels: labels of each split's records.
        details: what goes into the manifest.
        repeated: images that are there twice.
    """

    job: Job
    staging: Staging
    done: Sequence[tuple[Source, Prepared]]
    failed: Sequence[DiffpathError]
    assignments: Sequence[SplitAssignment]
    labels: Mapping[str, Sequence[int]]
    details: Details
    repeated: duplicates.JobDuplicates

    @property
    def item_noun(self) -> str:
        """Kind of item that the sources hold: slide or image."""
        return self.done[0][0].item_noun

    @property
    def is_spatial(self) -> bool:
        """True where fields lie on slides, which have regions, tissue and a grid."""
        return all(source.is_spatial for source, _ in self.done)


def write(content: Content) -> None:
    """Write the page and the names that it may show."""
    names: dict[str, dict[str, str]] = {"slides": {}, "patients": {}}
    limits = _limits(content)
    scores = {name: np.zeros(len(_BINS) - 1, int) for name in limits}
    sources = [_source(content, number, scores, names) for number in range(len(content.done))]
    pairs = _pairs(content, names["slides"])
    _write_names(content, names)
    notes = card.duplicate_notes(content.details.duplicates)
    warnings = [note for note in notes if note.startswith(card.WARNING)]
    html.write_page(
        content.job.out / pictures.FOLDER / PAGE,
        "prep.html",
        name=content.job.name,
        names_file=f"../{PRIVATE}/{NAMES}",
        details=content.details,
        colours=pictures.OUTCOME_COLOURS,
        cards=_cards(content),
        warnings=warnings,
        settings=_settings(content),
        classes=content.job.class_map.names,
        counts={split: Counter(labels) for split, labels in content.labels.items() if labels},
        outcomes=_outcomes(content),
        scores=_histograms(scores, limits),
        duplicates=content.details.duplicates,
        duplicate_notes=[note for note in notes if note not in warnings],
        pairs=pairs,
        failed=len(content.failed),
        item_noun=content.item_noun,
        is_spatial=content.is_spatial,
        sources=sources,
    )


def _write_names(content: Content, names: Mapping[str, Mapping[str, str]]) -> None:
    known = {**names, "failed": [str(error) for error in content.failed]}
    with replace_file(content.job.out / PRIVATE / NAMES) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(f"window.diffpathNames = {json.dumps(known)};\n", encoding="utf-8")


def _limits(content: Content) -> dict[str, tuple[float, str]]:
    """Score -> its limit, and on which side of it a field is rejected."""
    limits = content.job.quality
    return {
        **({"tissue_share": (content.job.fields.tissue_min, "below")} if content.is_spatial else {}),
        "saturation": (limits.saturation_min, "below"),
        "pen_share": (limits.pen_max, "above"),
        "blur": (limits.blur_max, "above"),
    }


def _cards(content: Content) -> list[dict[str, str]]:
    images = sum(len(labels) for labels in content.labels.values())
    outcomes = Counter(content.details.outcomes or {})
    within = (tiling.KEPT, tiling.NO_TISSUE, *_QUALITY, caps.OVER_SLIDE, caps.OVER_CLASS)
    judged = sum(outcomes[name] for name in within)
    rejected = sum(outcomes[name] for name in _QUALITY)
    counts = content.details.duplicates
    candidates = "fields within regions" if content.is_spatial else "images of used classes"
    repeated = sum(counts.exact.values()) + sum(counts.near.values()) if counts else 0
    return [
        {
            "name": f"{content.item_noun}s",
            "value": f"{sum(source.size for source, _ in content.done):,}",
            "words": f"{len(content.failed)} failed",
        },
        {"name": "patches", "value": f"{images:,}", "words": f"of {judged:,} {candidates}"},
        {"name": "rejected for quality", "value": f"{rejected:,}", "words": "folded, blurred, colourless or inked"},
        {
            "name": "duplicates",
            "value": f"{repeated:,}",
            "words": "left out" if counts and counts.dropped else "listed",
        },
    ]


def _settings(content: Content) -> list[tuple[str, str]]:
    job, fields = content.job, content.job.fields
    of_slides = [
        ("step of the grid", f"{fields.stride_um:g} um"),
        ("a field belongs to a class", f"that covers at least {fields.roi_min:.0%} of it"),
        ("overlaps of classes", {"reject": "excluded", "priority": "the first class's"}[job.class_map.overlap]),
        ("tissue", f"at least {fields.tissue_min:.0%}"),
        ("folds of the tissue", f"at most {job.fold_max:.0%}" if job.fold_max < 1 else "no limit"),
        ("most of a class in one slide", "all" if job.caps.per_slide is None else f"{job.caps.per_slide:,}"),
    ]
    return [
        ("field of view", f"{fields.fov_um:g} um, stored as {fields.patch_px} px at {fields.mpp:.4g} um/px"),
        *(of_slides if content.is_spatial else [("tissue", "not measured: it is a share of a slide's own picture")]),
        ("blur", f"at most {job.quality.blur_max:g} (0 sharp, 1 without detail)"),
        ("saturation", f"at least {job.quality.saturation_min:g}"),
        ("ink", f"at most {job.quality.pen_max:.0%}"),
        ("most of a class", "all" if job.caps.per_class is None else f"{job.caps.per_class:,}"),
        ("duplicates", {"report": "listed", "drop": "left out, but for the first"}[job.duplicates]),
        ("wanted shares", ", ".join(f"{name} {share:.3g}" for name, share in job.split.wanted.items())),
        ("seed of the split", str(job.split.seed)),
    ]


def _outcomes(content: Content) -> list[dict[str, Any]]:
    """Every outcome with its colour in the overlays."""
    counts = content.details.outcomes or {}
    colours = {words: split for split, words in pictures.DROPPED.items()}
    total = sum(count for name, count in counts.items() if name not in colours)
    return [
        {
            "name": name,
            "count": count,
            "share": count / max(total, 1),
            "colour": pictures.OUTCOME_COLOURS.get(colours.get(name, name)),
        }
        for name, count in sorted(counts.items(), key=lambda item: (item[0] in colours, -item[1]))
    ]


def _source(
    content: Content, number: int, scores: Mapping[str, np.ndarray], names: Mapping[str, dict[str, str]]
) -> dict[str, Any]:
    """Returns one source's part; adds its fields to the histograms of ``scores``, and its names to ``names``."""
    source, prepared = content.done[number]
    staged = StagedSource.of_unit(content.staging.describe(prepared.name))
    fields = staged.fields
    for name, counts in scores.items():
        values = [getattr(field if name == "tissue_share" else field.scores, name, None) for field in fields]
        counts += np.histogram([value for value in values if value is not None], _BINS)[0]
    outcomes, assigned = Counter(field.outcome for field in fields), Counter(content.assignments[number].assigned)
    judged = outcomes.total() - outcomes[tiling.OUTSIDE]
    called = source.names(content.job, prepared.identity, source.origins(content.job, prepared.identity, staged))
    names["slides"][prepared.identity.slide] = called.source
    names["patients"].update(called.patients)
    return {
        "key": prepared.identity.slide,
        "patients": list(called.patients),
        "size": staged.summary.size,
        "scale": prepared.scale,
        "kept": outcomes[tiling.KEPT],
        "kept_share": outcomes[tiling.KEPT] / max(judged, 1),
        "by_class": sum((Counter(classes) for classes in prepared.kept.values()), Counter[str]()),
        "by_split": {split: count for split in pictures.OUTCOME_COLOURS if (count := assigned[split])},
        "rejected": {
            name: count for name, count in outcomes.most_common() if name not in (tiling.KEPT, tiling.OUTSIDE)
        },
        "notes": [
            *filter(None, [prepared.why_empty if source.is_spatial else ""]),
            *prepared.scale.doubts,
            *card.annotation_notes([prepared.annotations]),
        ],
        **_pictures(content, prepared.name, outcomes),
    }


def _pictures(content: Content, name: str, outcomes: Mapping[str, int]) -> dict[str, Any]:
    folder, overview = content.job.out / pictures.FOLDER, pictures.picture_file(name)
    further = [pictures.fields_file(name), *(pictures.zoom_file(name, i) for i in range(pictures.MAX_ZOOMS))]
    return {
        "picture": overview if (folder / overview).exists() else None,
        "further": [file for file in further if (folder / file).exists()],
        "examples": [
            {"outcome": outcome, "count": outcomes[outcome], "order": example.order, "file": file}
            for outcome, example in pictures.EXAMPLE_OUTCOMES.items()
            if (folder / (file := pictures.example_file(name, outcome))).exists()
        ],
    }


def _histograms(scores: Mapping[str, np.ndarray], limits: Mapping[str, tuple[float, str]]) -> bytes:
    """Returns histograms of the scores of all fields with their limits, as PNG."""
    figure = html.new_figure(12.0, 2.4)
    for axes, (name, counts) in zip(figure.subplots(1, len(scores)), scores.items(), strict=True):
        limit, side = limits[name]
        axes.stairs(counts, _BINS, fill=True, color="#7a3b78")
        axes.axvline(limit, color="#b40426", linewidth=1.2)
        axes.axvspan(*((0, limit) if side == "below" else (limit, 1)), color="#b40426", alpha=0.12, linewidth=0)
        axes.set(xlim=(0, 1), yscale="symlog")
        axes.set_title(f"{name.replace('_', ' ')}, rejected {side} {limit:g}", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    return html.png_of(figure)


def _pairs(content: Content, names: dict[str, str]) -> list[dict[str, Any]]:
    """Pictures of some duplicates, those across splits first; the names of their files are added to ``names``."""
    pairs, job = content.repeated.pairs, content.job
    schema = records.Schema((job.fields.patch_px, job.fields.patch_px), job.class_map.names)
    chosen = np.lexsort((pairs.second, ~pairs.exact, -pairs.where))[:SHOWN_PAIRS]
    images = np.stack([pairs.first[chosen], pairs.second[chosen]], axis=1)
    origins = duplicates.origins_of(job, content.staging, content.done, content.repeated, images.ravel())
    names |= {origin.slide: origin.file for origin in origins}
    rows = []
    for number, (pair, both) in enumerate(zip(chosen.tolist(), images.tolist(), strict=True)):
        sides = [_side(content, image, origins[2 * number + i]) for i, image in enumerate(both)]
        file = f"{pictures.EXAMPLES}/duplicate-{number:02d}.jpg"
        pictures_of_pair = [records.decode(side.pop("data"), schema).image for side in sides]
        pictures.write_strip(job.out / pictures.FOLDER / file, pictures_of_pair)
        kind = "the same pixels" if pairs.exact[pair] else f"nearly the same ({pairs.bits[pair]} of 143 bits differ)"
        turned = ", turned or mirrored" if pairs.turned[pair] else ""
        rows.append({"file": file, "sides": sides, "kind": kind + turned, "where": WHERE[pairs.where[pair]]})
    return rows


def _side(content: Content, image: int, origin: Origin) -> dict[str, Any]:
    repeated = content.repeated
    _, prepared = content.done[repeated.source[image]]
    (data,) = content.staging.read(content.staging.describe(prepared.name), [int(repeated.index[image])])
    return {
        "slide": origin.slide,
        "source": prepared.identity.slide,
        "place": "" if origin.is_whole_file else f" image {repeated.index[image]}",
        "split": str(repeated.split[image]),
        "label": str(repeated.label[image]),
        "data": data,
    }
