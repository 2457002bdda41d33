"""An evaluation as a table, as figures, and as one HTML page."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffpath_jax.evaluation.compare import OVERALL
from diffpath_jax.evaluation.image_sets import ImageSet
from diffpath_jax.evaluation.job import FLOOR, REFERENCE
from diffpath_jax.io.files import replace_file
from diffpath_jax.render import html, image_grid

PAGE, TABLE, FIGURES = "index.html", "per_class.csv", "figures"
SHOWN_PER_CLASS = 16
COLUMNS = (
    "features",
    "resize",
    "digest",
    "set",
    "class",
    "n_reference",
    "n_other",
    "metric",
    "value",
    "low",
    "high",
    "notes",
)
SCORES = ("precision", "recall", "density", "coverage")
# Digits after the point of each kind of number.
DIGITS = {"frechet": 2, "kernel": 4, "score": 3}


def write_table(path: Path, content: Mapping[str, Any]) -> None:
    """Every number with its interval, one a line."""
    with replace_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for features, rows in _all_rows(content):
            for which, groups in rows.items():
                for group, row in groups.items():
                    common = {**features, "set": which, "class": group, "notes": "; ".join(row["notes"])}
                    common |= {key: row[key] for key in ("n_reference", "n_other")}
                    measured: Mapping[str, Mapping[str, float]] = row["metrics"] or {"": {}}
                    for metric, found in measured.items():
                        ends = {key: found.get(key) for key in ("value", "low", "high")}
                        writer.writerow({**common, "metric": metric, **ends})


def _all_rows(content: Mapping[str, Any]) -> Iterator[tuple[dict[str, str], Mapping[str, Any]]]:
    for distances in content.get("distances", []):
        features = distances["features"]
        yield {"features": features["name"], **{key: features[key] for key in ("resize", "digest")}}, distances["rows"]
    yield {"features": "stain"}, content.get("stain", {})


def write_page(out: Path, content: Mapping[str, Any], images: Mapping[str, ImageSet], audit: Any = None) -> None:
    """The page, and its figures as files.

    Args:
        out: directory.
        content: of ``metrics.json``.
        images: the sets of images, by their names in it.
        audit: what the page shows of the audit, as :func:`diffpath_jax.evaluation.audit.for_page` gives it.
    """
    spaces = [_space(distances) for distances in content.get("distances", [])]
    for space in spaces:
        if space["figure"]:
            path = out / FIGURES / f"{space['features']['frechet_name']}.png"
            with replace_file(path) as temporary:
                temporary.write_bytes(space["figure"])
    reference, names = content["reference"], {**content["sets"], REFERENCE: content["reference"]}
    html.write_page(
        out / PAGE,
        "evaluation.html",
        title=_title(content),
        subtitle=f"Measured against {_words(reference)}. Seed {content['seed']}.",
        cards=list(_cards(content)),
        pictures=_pictures(images),
        spaces=spaces,
        resamples=content["resamples"],
        has_floor=FLOOR in content["sets"],
        audit=audit,
        stain=_stain(content),
        classifications=[
            {**entry, "title": f"{entry['set']}: {Path(names[entry['set']]['where']).name}"}
            for entry in content["classification"]
        ],
        settings=[(title, json.dumps(content[title], indent=2)) for title in sorted(content)],
    )


def _title(content: Mapping[str, Any]) -> str:
    found = next((about for name, about in content["sets"].items() if name != FLOOR), content["reference"])
    return Path(found["where"]).name or found["where"]


def _words(about: Mapping[str, Any]) -> str:
    count = "images known by their statistics" if about["n"] is None else f"{about['n']:,} images"
    split = f", split {about['split']}" if about["split"] else ""
    return f"{count} of {about['where']}{split}"


def _cards(content: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """The numbers that a reader looks for first."""
    for distances in content.get("distances", []):
        name = distances["features"]["frechet_name"]
        found = {which: groups[OVERALL]["metrics"].get(name) for which, groups in distances["rows"].items()}
        for which, number in found.items():
            if number and (which != FLOOR or len(found) == 1):
                yield {
                    "name": f"{name}, resize {distances['features']['resize']}",
                    "value": f"{number['value']:.2f}",
                    "words": _beside(number, found.get(FLOOR)),
                }
    for entry in content["classification"]:
        words = "of its images have the class that was asked for, says the classifier"
        if entry["set"] == REFERENCE:
            words = "of the real images are told right by the classifier"
        yield {"name": entry["set"], "value": f"{100 * entry['accuracy']:.1f} %", "words": words}
    if "copies" in content["audit"]:
        found = content["audit"]["copies"]
        value = f"{len(found['flagged']):,} of {content['audit']['sources']['generated']['n']:,} flagged"
        yield {"name": "memorisation audit", "value": value, "words": found["verdict"]}
    else:
        yield {"name": "memorisation audit", "value": "none", "words": content["audit"]["skipped"]}


def _beside(number: Mapping[str, float], floor: Mapping[str, float] | None) -> str:
    words = f"95 % interval {number['low']:.2f} to {number['high']:.2f}" if "low" in number else "no interval"
    return words + (f"; the real floor is {floor['value']:.2f}" if floor and floor is not number else "")


def _pictures(images: Mapping[str, ImageSet]) -> list[dict[str, Any]]:
    """For each class a row of images of each set."""
    classes = list(dict.fromkeys(name for part in images.values() for name in part.classes))
    groups = {
        group: {name: part.of_class(group) if classes else np.arange(len(part)) for name, part in images.items()}
        for group in classes or [OVERALL]
    }
    return [
        {
            "group": group,
            "rows": [
                {"name": name, "picture": _strip(images[name], found)} for name, found in rows.items() if len(found)
            ],
        }
        for group, rows in groups.items()
    ]


def _strip(images: ImageSet, chosen: np.ndarray) -> bytes:
    """Some of the chosen images in a row, evenly spread."""
    shown = np.linspace(0, len(chosen) - 1, min(SHOWN_PER_CLASS, len(chosen))).round().astype(int)
    return image_grid.encode_png(image_grid.tile(images.fetch(chosen[shown]), columns=SHOWN_PER_CLASS))


def _space(distances: Mapping[str, Any]) -> dict[str, Any]:
    """What a page shows of one feature space."""
    features, rows = distances["features"], distances["rows"]
    groups = list(dict.fromkeys(group for found in rows.values() for group in found))
    frechet, kernel = features["frechet_name"], features["kernel_name"]
    metrics = {frechet: "frechet", f"{frechet}-infinity": "frechet", kernel: "kernel"}
    tables = [_by_class(rows, groups, metric, DIGITS[kind]) for metric, kind in metrics.items()]
    tables += [_by_class(rows, groups, score, DIGITS["score"]) for score in SCORES]
    notes = sorted({note for found in rows.values() for row in found.values() for note in row["notes"]})
    shown = [table for table in tables if any(cell for row in table["rows"] for cell in row["cells"])]
    return {"features": features, "tables": shown, "notes": notes, "figure": _figure(rows, groups, frechet, kernel)}


def _by_class(rows: Mapping[str, Any], groups: Sequence[str], metric: str, digits: int) -> dict[str, Any]:
    """A table of one metric: a row a set, a column a class."""
    return {
        "title": metric,
        "columns": groups,
        "digits": digits,
        "rows": [
            {"name": name, "floor": name == FLOOR, "cells": [_cell(found.get(group, {}), metric) for group in groups]}
            for name, found in rows.items()
        ],
    }


def _cell(row: Mapping[str, Any], metric: str) -> dict[str, Any] | None:
    """A metric with the number of images on either side."""
    found = row.get("metrics", {}).get(metric)
    return {**found, "n": f"{row['n_reference']} / {row['n_other']}"} if found else None


def _figure(rows: Mapping[str, Any], groups: Sequence[str], *metrics: str) -> bytes | None:
    """Each metric by class with its interval, the sets side by side."""
    if not any(metric in row["metrics"] for found in rows.values() for row in found.values() for metric in metrics):
        return None
    figure = html.new_figure(11.0, 1.2 + 0.34 * len(groups) * len(rows))
    for axes, metric in zip(figure.subplots(1, len(metrics)), metrics, strict=True):
        for number, (name, found) in enumerate(rows.items()):
            for place, group in enumerate(groups):
                _draw(axes, found.get(group, {}).get("metrics", {}).get(metric), place, number / (len(rows) + 1), name)
        axes.set_yticks(range(len(groups)), groups, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel(f"{metric} (less is nearer)", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.axvline(0, color="#cccccc", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    handles = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    axes.legend(handles.values(), handles.keys(), fontsize=8, frameon=False)
    return html.png_of(figure)


def _draw(axes: Any, found: Mapping[str, float] | None, place: int, offset: float, name: str) -> None:
    if found is None:
        return
    colour = "#9a95a5" if name == FLOOR else html.COLOURS[1]
    axes.plot(found["value"], place + offset, "o", markersize=5, color=colour, label=name)
    if "low" in found:
        axes.plot([found["low"], found["high"]], [place + offset] * 2, color=colour, linewidth=1.6)


def _stain(content: Mapping[str, Any]) -> dict[str, Any] | None:
    rows = content.get("stain")
    if not rows:
        return None
    names = list(next(iter(rows.values()))[OVERALL]["metrics"])
    return {
        "title": "set, class",
        "columns": [name.replace("_", " ") for name in names],
        "digits": 2,
        "rows": [
            {
                "name": f"{which}, {group}",
                "floor": which == FLOOR,
                "cells": [row["metrics"].get(name) for name in names],
            }
            for which, found in rows.items()
            for group, row in found.items()
        ],
    }
