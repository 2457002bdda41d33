"""``diffpath transform``: a data set made of another: a part of its patients, filtered, compressed, shuffled."""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from diffpath_jax.data import card, records, selection
from diffpath_jax.data import transform as data_transform
from diffpath_jax.data.columns import Values, read_columns
from diffpath_jax.data.details import Details
from diffpath_jax.data.manifest import Dataset, open_dataset
from diffpath_jax.data.pipeline import TRAIN
from diffpath_jax.data.selection import Selection
from diffpath_jax.evaluation import filters
from diffpath_jax.io import options
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import own_directory, sha256_json
from diffpath_jax.io.options import ranged
from diffpath_jax.io.progress import console
from diffpath_jax.ranges import Positive, PositiveFraction, Quality, Seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``diffpath transform``; operations are done in the order in which help lists them."""
    parser.add_argument("--data", required=True, type=Path, help="data set of images, real or generated")
    parser.add_argument("--out", required=True, type=Path, help="data set directory to write")
    parser.add_argument("--name", type=options.name, default="transformed", help="data set name (default: %(default)s)")
    parser.add_argument("--splits", default=TRAIN, help="splits that are changed, separated by commas; others stay")
    parser.add_argument("--seed", type=ranged(Seed), default=0, help="of every draw (default: %(default)s)")
    parser.add_argument("--dry_run", action="store_true", help="print how many images stay of each class")
    operation = parser.add_argument_group("operations")
    operation.add_argument(
        "--patients_share", type=ranged(PositiveFraction), help="share of the patients, at least one of every class"
    )
    text = "CLASS=SHARE: a share of the patients of one class; repeatable"
    operation.add_argument("--class_share", action="append", default=[], help=text)
    operation.add_argument("--confident", type=Path, metavar="RUN", help="images whose label a classifier is sure of")
    operation.add_argument(
        "--at_least", type=ranged(PositiveFraction), default=0.9, help="its probability (default: %(default)s)"
    )
    operation.add_argument("--clean", type=Path, metavar="EVAL", help="images that the audit of `diffpath eval` passed")
    operation.add_argument("--num_per_class", type=ranged(Positive), help="so many images of each class")
    operation.add_argument("--shuffle_labels", action="store_true", help="labels dealt out among the images at random")
    text = "columns of --table, separated by commas, whose values are put beside each image, for network.conditions"
    operation.add_argument("--columns", metavar="NAME,NAME", help=text)
    text = "CSV with a column slide or patient, named as for `diffpath prep`, and those"
    operation.add_argument("--table", type=Path, help=text)
    operation.add_argument(
        "--jpeg", type=ranged(Quality), metavar="QUALITY", help="images as they come back from JPEG, 1 to 100"
    )


def main(arguments: argparse.Namespace) -> ExitCode:
    """Makes the data set.

    Raises:
        DiffpathError: a number out of range, a class or split that is not there, nothing left of a split, or another
            job's directory.
    """
    _check(arguments)
    source = open_dataset(arguments.data)
    changed = tuple(arguments.splits.split(","))
    for split in changed:
        source.shards(split)  # says so where there is no such split
    selections = {split: _selected(arguments, source, split) for split in changed}
    for split, chosen in selections.items():
        if not chosen.kept.any():
            why, fix = "no image is left of it", "ask for less"
            raise DiffpathError(f"split {split!r}", where=source.directory, why=why, fix=fix)
    if arguments.dry_run:
        for split, chosen in selections.items():
            told = ", ".join(f"{name} {count}" for name, count in chosen.counts().items())
            console.print(f"{split}: {told}; {len(_kept_patients(chosen))} patients", markup=False, soft_wrap=True)
        return ExitCode.OK
    derivation, describe = (
        _derivation(arguments, source, selections),
        _details(source.details, changed=bool(arguments.jpeg)),
    )
    with own_directory(arguments.out):
        dataset = data_transform.run(derivation, describe, title="transform")
    console.print(card.summary(dataset))
    if columns := dataset.schema.columns if arguments.columns else ():
        counts = ",".join(str(len(column.values)) for column in columns)
        words = f"--config.network.columns=({counts},) --config.network.conditions=\"('label','columns')\""
        console.print(f"  beside each image: {'; '.join(map(str, columns))}", markup=False, soft_wrap=True)
        console.print(f"  {words}", markup=False, soft_wrap=True)
    return ExitCode.OK


def _check(arguments: argparse.Namespace) -> None:
    if bool(arguments.columns) != bool(arguments.table):
        option, other = ("--columns", "--table") if arguments.columns else ("--table", "--columns")
        why, fix = f"{other} belongs to it", f"add {other}, or leave it out"
        raise DiffpathError(option, where="the command line", why=why, fix=fix)
    shares = {f"--class_share {word}": _share(word) for word in arguments.class_share}
    for option, share in shares.items():
        if not 0 < share <= 1:
            why, fix = f"{share} is not above 0, up to 1", "change it"
            raise DiffpathError(option, where="the command line", why=why, fix=fix)


def _share(word: str) -> float:
    """Returns the share of ``CLASS=SHARE``.

    Raises:
        DiffpathError: it is written in another way.
    """
    try:
        return float(word.rpartition("=")[2]) if word.rpartition("=")[0] else float("")
    except ValueError:
        why, fix = f"{word!r} is not CLASS=SHARE", "write it so, e.g. adenoma=0.1"
        raise DiffpathError("--class_share", where="the command line", why=why, fix=fix) from None


def _selected(arguments: argparse.Namespace, source: Dataset, split: str) -> Selection:
    """Returns the images of a split that stay, in the order of the operations."""
    chosen, seed = selection.everything(source, split), arguments.seed
    if arguments.patients_share is not None:
        chosen = selection.patient_share(chosen, arguments.patients_share, seed=seed)
    for word in arguments.class_share:
        chosen = selection.class_share(chosen, word.rpartition("=")[0], _share(word), seed=seed)
    if arguments.confident:
        least = arguments.at_least
        chosen = chosen.only(filters.confident(source, split, chosen.labels, arguments.confident, least=least))
    if arguments.clean:
        chosen = chosen.only(filters.clean(source, arguments.clean, split))
    if arguments.num_per_class is not None:
        chosen = selection.number_per_class(chosen, arguments.num_per_class, seed=seed)
    return selection.shuffled_labels(chosen, seed=seed) if arguments.shuffle_labels else chosen


def _kept_patients(chosen: Selection) -> set[str]:
    return {chosen.patients[i] for i in np.flatnonzero(chosen.kept)} - {""}


def _derivation(
    arguments: argparse.Namespace, source: Dataset, selections: Mapping[str, Selection]
) -> data_transform.Derivation:
    names = ("patients_share", "class_share", "at_least", "num_per_class", "shuffle_labels", "jpeg", "seed")
    settings: dict[str, Any] = {name: getattr(arguments, name) for name in names}
    settings["filters"] = [name for name in ("confident", "clean") if getattr(arguments, name)]
    # A filter is known by what it keeps, wherever its run or evaluation lies.
    settings["selection"] = {split: chosen.digest for split, chosen in selections.items()}
    schema, values = source.schema, dict[str, Values]()
    if arguments.columns:
        columns, values = read_columns(arguments.table, arguments.columns.split(","), source.directory)
        schema = replace(schema, columns=columns)
        settings["columns"] = sha256_json({slide: row.tobytes().hex() for slide, row in values.items()})
    return data_transform.Derivation(
        out=arguments.out,
        name=arguments.name,
        source=source,
        splits=tuple(source.splits),
        # Features are of the images as they were.
        schema=replace(schema, feature_width=None) if arguments.jpeg else schema,
        settings=settings,
        transform=_transform(selections, _jpeg(arguments.jpeg) if arguments.jpeg else None, values),
    )


def _details(told: Details, *, changed: bool) -> data_transform.Describe:
    """Returns what the new data set says of itself: what the one that it is made of does."""

    def describe(units: Mapping[str, Sequence[Mapping[str, Any]]]) -> Mapping[str, Any]:
        kept = {"split_proof": told.split_proof, "training_data": told.training_data, "sampling": told.sampling}
        kept |= {"split_by": told.split_by, "features": None if changed else told.features}
        return {"kind": told.kind, "command": "diffpath transform", "source_kind": told.kind, **kept}

    return describe


def _transform(
    selections: Mapping[str, Selection],
    change: Callable[[np.ndarray], np.ndarray] | None,
    columns: Mapping[str, Values],
) -> data_transform.Transform:
    """Returns what makes the new records of some images: those that stay, under their label, changed.

    Columns are put beside the images of every split, by their slides.
    """

    def transform(
        images: Sequence[records.PatchRecord], split: str, start: int
    ) -> tuple[Iterable[records.PatchRecord], Mapping[str, Any]]:
        chosen = selections.get(split)
        if columns:
            images = [replace(record, columns=columns[record.slide]) for record in images]
        if chosen is None:
            return images, {}
        records_kept = [
            replace(_changed(record, change) if change else record, label=int(chosen.labels[i]))
            for i, record in enumerate(images, start)
            if chosen.kept[i]
        ]
        return records_kept, {}

    return transform


def _changed(record: records.PatchRecord, change: Callable[[np.ndarray], np.ndarray]) -> records.PatchRecord:
    return replace(record, image=change(record.image), features=None)


def _jpeg(quality: int) -> Callable[[UInt8[np.ndarray, "h w 3"]], UInt8[np.ndarray, "h w 3"]]:
    """Returns what brings an image through JPEG and back (libjpeg's quality, colours at half the resolution)."""

    def there_and_back(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)[..., ::-1])

    return there_and_back
