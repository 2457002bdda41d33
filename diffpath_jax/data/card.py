"""The dataset card: what a data set holds, in words and tables, for the person who is about to use it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from diffpath_jax.data import manifest, records

WARNING = "WARNING"
_KINDS = {"real": "Real", "generated": "Generated", "latents": "Latents of"}


def summary(dataset: manifest.Dataset) -> str:
    """Images per split and class, and the proof of the split, for the terminal."""
    lines = [f"{dataset.directory}: {sum(dataset.count(split) for split in dataset.splits)} images"]
    for split, counts in dataset.class_counts.items():
        lines.append(f"  {split:5s} " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    if "split_proof" in dataset.details:
        lines.append(f"  {dataset.details['split_proof']}")
    if "outcomes" in dataset.details:
        lines.append("  fields: " + ", ".join(f"{name} {count}" for name, count in dataset.details["outcomes"].items()))
    notes = scale_notes(dataset.details.get("scales", [])) + dataset.details.get("annotations", [])
    notes += duplicate_notes(dataset.details.get("duplicates"))
    lines += [f"  {note}" for note in notes]
    return "\n".join(lines)


def scale_notes(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """um/px of the slides, where it came from, what of them is read for a field, and what speaks against it.

    Args:
        found: for each slide um/px of level 0 along both axes, its source, and doubts about it; pixels read for a field
            along both axes, and their um/px.
    """
    if not found:
        return []
    sources = ", ".join(f"{name} {count}" for name, count in Counter(each["source"] for each in found).most_common())
    sides, mpps = ([number for each in found for number in each[name]] for name in ("read_px", "read_mpp"))
    notes = [
        f"um/px of level 0: {_span(each[axis] for each in found for axis in 'xy')}, from: {sources}",
        f"read for each field: {_span(sides)} px a side, of {_span(mpps)} um/px",
    ]
    doubts = Counter(doubt for each in found for doubt in each["doubts"])
    return notes + [f"{count} of {len(found)} slides: {doubt}" for doubt, count in doubts.most_common(20)]


def _span(numbers: Iterable[float | int]) -> str:
    """A number, or the smallest and the largest of several."""
    shown = [f"{number:.5g}" for number in sorted(numbers)]
    return shown[0] if shown[0] == shown[-1] else f"{shown[0]} to {shown[-1]}"


def annotation_notes(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """What of the annotations was not used as it is: ignored classes, parts off the slide, overlaps of classes.

    Args:
        found: for each slide the outlines ignored by class, the share of the outlines' area outside the slide, and
            how many fields lie on overlaps of classes, kept or not.
    """
    notes = []
    ignored = sum((Counter(each["ignored"]) for each in found), Counter[str]())
    if ignored:
        named = ", ".join(f"{name} {count}" for name, count in ignored.most_common(20))
        notes.append(f"regions of ignored classes: {ignored.total()} ({named})")
    # Rounding in the export reaches a pixel over the edge.
    outside = [each["outside_share"] for each in found if each["outside_share"] > 1e-3]
    if outside:
        notes.append(f"regions reach outside {len(outside)} slides, with up to {max(outside):.1%} of a slide's area")
    overlapped, kept = (sum(each[name] for each in found) for name in ("overlapped", "overlapped_kept"))
    if overlapped:
        notes.append(f"fields on overlaps of classes: {overlapped}, of which {kept} are kept")
    return notes


def duplicate_notes(found: Mapping[str, Any] | None) -> list[str]:
    """What was found of images that are there twice; one across splits is shouted.

    Args:
        found: as :func:`data_prep.job.duplicates.summary` gives it; nothing where it was not looked for.
    """
    if not found:
        return []
    kinds = {"exact": "with the same pixels as", "near": "nearly the same as"}
    notes = [
        f"images {words} an earlier one: " + ", ".join(f"{count} {where}" for where, count in found[kind].items())
        for kind, words in kinds.items()
        if any(found[kind].values())
    ]
    if not notes:
        return ["no duplicates, exact or near, within or across slides, files and splits"]
    if found["of another class"]:
        notes.append(f"{WARNING}: {found['of another class']} images have another class than the one that they repeat")
    leaked = sum(found[kind]["across splits"] for kind in kinds)
    if found["dropped"]:
        notes.append(f"{found['dropped']} duplicates are left out: the first stays, train before val before test")
    elif leaked:
        notes.append(
            f"{WARNING}: {leaked} images stand in two splits, the same or nearly, so that numbers measured on them are "
            "too good; --duplicates drop leaves them out"
        )
    return notes


def dataset_card(
    name: str, schema: records.Schema, labels: Mapping[str, Sequence[int]], details: Mapping[str, Any]
) -> str:
    """Markdown card of a real or generated data set.

    Args:
        name: dataset name.
        schema: image size and classes.
        labels: labels of each split's records.
        details: what goes into the manifest.
    """
    height, width = schema.image_px
    filled = (split for split, found in labels.items() if found)
    rows = [
        f"| {split} | {' | '.join(str(list(found).count(i)) for i in range(len(schema.classes)))} | {len(found)} |"
        for split, found in labels.items()
        if found
    ]
    text = [
        f"# {name}",
        "",
        f"{_KINDS[details['kind']]} histopathology patches: {width} x {height} px, "
        f"{details['mpp']:.4g} um/px, field of view {details['fov_um']:.4g} um.",
        "",
        f"| split | {' | '.join(schema.classes)} | total |",
        "| --- |" + " --- |" * (len(schema.classes) + 1),
        *rows,
        "",
    ]
    text += _notes(schema, details)
    text += [
        "Read it with TFDS (TensorFlow is not needed):",
        "",
        "```python",
        "import tensorflow_datasets as tfds",
        f"source = tfds.builder_from_directory(DIRECTORY).as_data_source({next(filled, 'train')!r})",
        "```",
        "",
    ]
    if details["kind"] == "real":
        text += [
            "`private/` and `qa/` show slides and patients and are not meant to be passed on. Everything else "
            "names them by keyed hash only.",
            "",
        ]
    return "\n".join(text)


def _notes(schema: records.Schema, details: Mapping[str, Any]) -> list[str]:
    """What there is to say of how the images were made and chosen."""
    first_stage = details.get("first_stage", "")[:16]
    listed = {
        "Fields of view that touch a region, or images:": _pairs(details.get("outcomes")),
        "Slides:": scale_notes(details.get("scales", [])),
        "Annotations:": details.get("annotations", []),
        "Duplicates:": duplicate_notes(details.get("duplicates")),
        f"What the autoencoder {first_stage} makes of real images:": _pairs(details.get("reconstruction")),
        "Generated images, not tissue. Sampled with:": _pairs(details.get("sampling")),
    }
    text = [f"Split: {details['split_proof']}.", ""] if "split_proof" in details else []
    if found := details.get("latents"):
        text += [
            f"Latents of {' x '.join(map(str, schema.latent_shape or ()))} of the autoencoder {found['digest'][:16]}, "
            f"of training images in all orientations of {found['augment']!r}; times {found['scale']:.4g} their "
            "standard deviation is 1.",
            "",
        ]
    for title, notes in listed.items():
        if notes:
            text += [title, "", *(f"- {note}" for note in notes), ""]
    return text


def _pairs(found: Mapping[str, Any] | None) -> list[str]:
    return [f"{name}: {value}" for name, value in (found or {}).items()]
