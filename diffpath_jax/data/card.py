"""The dataset card: what a data set holds, in words and tables, for the person who is about to use it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from diffpath_jax.data import manifest, records
from diffpath_jax.data.details import AnnotationUse, Details, DuplicateCounts, SlideScale

WARNING = "WARNING"
_KINDS = {"real": "Real", "generated": "Generated", "latents": "Latents of"}


def summary(dataset: manifest.Dataset) -> str:
    """Images per split and class, and the proof of the split, for the terminal."""
    lines = [f"{dataset.directory}: {sum(dataset.count(split) for split in dataset.splits)} images"]
    for split, counts in dataset.class_counts.items():
        lines.append(f"  {split:5s} " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    details = dataset.details
    if details.split_proof is not None:
        lines.append(f"  {details.split_proof}")
    if details.outcomes is not None:
        lines.append("  fields: " + ", ".join(f"{name} {count}" for name, count in details.outcomes.items()))
    notes = [*scale_notes(details.scales or ()), *(details.annotations or ()), *duplicate_notes(details.duplicates)]
    lines += [f"  {note}" for note in notes]
    return "\n".join(lines)


def scale_notes(scales: Sequence[SlideScale]) -> list[str]:
    """Returns um/px of the slides or images, its source, what of them is read for a field, and what is to be said."""
    if not scales:
        return []
    whose, things = ("the images", "batches of images") if _are_of_images(scales) else ("level 0", "slides")
    sources = ", ".join(f"{name} {count}" for name, count in Counter(scale.source for scale in scales).most_common())
    notes = [
        f"um/px of {whose}: {_span(mpp for scale in scales for mpp in (scale.x, scale.y))}, from: {sources}",
        f"read for each field: {_span(px for scale in scales for px in scale.read_px)} px a side, "
        f"of {_span(mpp for scale in scales for mpp in scale.read_mpp)} um/px",
    ]
    doubts = Counter(doubt for scale in scales for doubt in scale.doubts)
    return notes + [f"{count} of {len(scales)} {things}: {doubt}" for doubt, count in doubts.most_common(20)]


def _are_of_images(scales: Sequence[SlideScale]) -> bool:
    return all(scale.is_of_images for scale in scales)


def _span(numbers: Iterable[float | int]) -> str:
    """A number, or the smallest and the largest of several."""
    texts = [f"{number:.5g}" for number in sorted(numbers)]
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def annotation_notes(uses: Sequence[AnnotationUse]) -> list[str]:
    """Returns what of the annotations was not used as it is: ignored classes, parts off the slide, overlaps."""
    notes = []
    for words, counts in (
        ("regions of ignored classes", [use.ignored for use in uses]),
        ("regions cut out of all others", [use.cut_out for use in uses]),
        ("annotations that are no regions", [use.left_out for use in uses]),
    ):
        total = sum((Counter(each) for each in counts), Counter[str]())
        if total:
            named = ", ".join(f"{name} {count}" for name, count in total.most_common(20))
            notes.append(f"{words}: {total.total()} ({named})")
    # Rounding in the export reaches a pixel over the edge.
    outside = [use.outside_share for use in uses if use.outside_share > 1e-3]
    if outside:
        notes.append(f"regions reach outside {len(outside)} slides, with up to {max(outside):.1%} of a slide's area")
    overlapped, kept = sum(use.overlapped for use in uses), sum(use.overlapped_kept for use in uses)
    if overlapped:
        notes.append(f"fields on overlaps of classes: {overlapped}, of which {kept} are kept")
    return notes


def duplicate_notes(counts: DuplicateCounts | None) -> list[str]:
    """Returns what was seen of images that are there twice; one across splits is shouted.

    Args:
        counts: None where they were not looked for.
    """
    if counts is None:
        return []
    kinds = {"with the same pixels as": counts.exact, "nearly the same as": counts.near}
    notes = [
        f"images {words} an earlier one: " + ", ".join(f"{count} {where}" for where, count in by_place.items())
        for words, by_place in kinds.items()
        if any(by_place.values())
    ]
    if not notes:
        return ["no duplicates, exact or near, within or across slides, files and splits"]
    if counts.other_class:
        notes.append(f"{WARNING}: {counts.other_class} images have another class than the one that they repeat")
    leaked = sum(by_place["across splits"] for by_place in kinds.values())
    if counts.dropped:
        notes.append(f"{counts.dropped} duplicates are left out: the first stays, train before val before test")
    elif leaked:
        notes.append(
            f"{WARNING}: {leaked} images stand in two splits, the same or nearly, so that numbers measured on them are "
            "too good; --duplicates drop leaves them out"
        )
    return notes


def dataset_card(name: str, schema: records.Schema, labels: Mapping[str, Sequence[int]], details: Details) -> str:
    """Markdown card of a real or generated data set.

    Args:
        name: dataset name.
        schema: image size and classes.
        labels: labels of each split's records.
        details: what goes into the manifest.
    """
    height, width = schema.image_px
    filled = [split for split, of_split in labels.items() if of_split]
    text = [
        f"# {name}",
        "",
        f"{_KINDS[details.kind]} histopathology patches: {width} x {height} px, "
        f"{details.mpp:.4g} um/px, field of view {details.fov_um:.4g} um.",
        "",
        f"| split | {' | '.join(schema.classes)} | total |",
        "| --- |" + " --- |" * (len(schema.classes) + 1),
        *(_row(split, labels[split], len(schema.classes)) for split in filled),
        "",
    ]
    text += _notes(schema, details)
    text += [
        "Read it with TFDS (TensorFlow is not needed):",
        "",
        "```python",
        "import tensorflow_datasets as tfds",
        f"source = tfds.builder_from_directory(DIRECTORY).as_data_source({next(iter(filled), 'train')!r})",
        "```",
        "",
    ]
    if details.kind == "real":
        text += [
            "`private/` and `qa/` show slides and patients and are not meant to be passed on. Everything else "
            "names them by keyed hash only.",
            "",
        ]
    return "\n".join(text)


def _row(split: str, labels: Sequence[int], num_classes: int) -> str:
    return f"| {split} | {' | '.join(str(list(labels).count(i)) for i in range(num_classes))} | {len(labels)} |"


def _notes(schema: records.Schema, details: Details) -> list[str]:
    """Returns what there is to say of how the images were made and chosen."""
    first_stage = (details.first_stage or "")[:16]
    listed = {
        "Fields of view that touch a region, or images:": _pairs(details.outcomes),
        "Images:" if _are_of_images(details.scales or ()) else "Slides:": scale_notes(details.scales or ()),
        "Annotations:": details.annotations or (),
        "Duplicates:": duplicate_notes(details.duplicates),
        f"What the autoencoder {first_stage} makes of real images:": _pairs(details.reconstruction),
        "Generated images, not tissue. Sampled with:": _pairs(details.sampling),
    }
    text = [f"Split: {details.split_proof}.", ""] if details.split_proof is not None else []
    if why := details.references:
        text += [f'<strong style="color: #b40426">{WARNING}: these images {why}.</strong>', ""]
    if space := details.latents:
        text += [
            f"Latents of {' x '.join(map(str, schema.latent_shape or ()))} of the autoencoder {space['digest'][:16]}, "
            f"of training images in all orientations of {space['augment']!r}; times {space['scale']:.4g} their "
            "standard deviation is 1.",
            "",
        ]
    if schema.columns:
        text += [f"Beside each: {'; '.join(map(str, schema.columns))}, or nothing where it is not known.", ""]
    if encoder := details.features:
        text += [
            f"Beside each: {schema.feature_width} numbers of the encoder {encoder['name']} "
            f"({encoder['digest'][:16]}), {encoder['description']}.",
            "",
        ]
    for title, notes in listed.items():
        if notes:
            text += [title, "", *(f"- {note}" for note in notes), ""]
    return text


def _pairs(values: Mapping[str, Any] | None) -> list[str]:
    return [f"{name}: {value}" for name, value in (values or {}).items()]
