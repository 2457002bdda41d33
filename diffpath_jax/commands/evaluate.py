"""``diffpath eval``: how near a set is to real images, whether it copies them, and what a classifier sees in it."""

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np

from diffpath_jax.data.manifest import MANIFEST, open_dataset
from diffpath_jax.evaluation import audit, image_sets, job, page
from diffpath_jax.evaluation.compare import OVERALL, TRAINING_SPLIT, Sureness
from diffpath_jax.evaluation.feature_cache import FeatureStore, default_directory
from diffpath_jax.evaluation.features.classifier import check_classifier
from diffpath_jax.evaluation.features.open import open_extractor
from diffpath_jax.evaluation.features.resize import check_resize
from diffpath_jax.evaluation.image_sets import ImageSet
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import write_json
from diffpath_jax.io.progress import console
from diffpath_jax.runs import run as runs

METRICS = "metrics.json"
NONE, AUTO = "none", "auto"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath eval``."""
    a_set = "data set, sample set, folder of images by class, or .npz statistics"
    parser.add_argument("--real", required=True, type=Path, help=f"the reference: {a_set}")
    parser.add_argument("--split", default="test", help="split of --real (default: %(default)s)")
    parser.add_argument("--generated", type=Path, help=f"what is measured: {a_set}")
    parser.add_argument("--generated_split", default="train", help="split of --generated (default: %(default)s)")
    parser.add_argument(
        "--features",
        nargs="+",
        default=[],
        type=Path,
        help="what distances are measured in: classifier runs, inception.safetensors of `diffpath convert`, *.onnx",
    )
    parser.add_argument(
        "--resize",
        default="tf_bilinear",
        help="of Inception's images: tf_bilinear, as published; or clean",
    )
    parser.add_argument(
        "--floor",
        default=TRAINING_SPLIT,
        help=f"split of --real whose distance is the floor, or {NONE} (default: %(default)s, where there is one)",
    )
    parser.add_argument(
        "--classifier", nargs="+", default=[], type=Path, help="classifier runs: which class do they see?"
    )
    parser.add_argument(
        "--audit",
        default=AUTO,
        help="data set that the model was trained on, to look for copies; its other splits are the honest measure "
        f"({AUTO}: --real, if the samples say that it is; {NONE}: no audit)",
    )
    parser.add_argument(
        "--held_out", type=int, default=2000, help="most held-out images that the audit is calibrated on (%(default)s)"
    )
    parser.add_argument("--out", required=True, type=Path, help="directory to write: metrics.json, index.html, ...")
    parser.add_argument("--resamples", type=int, default=100, help="for intervals; 0 gives none (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of random subsets and resamples")
    parser.add_argument("--cache", type=Path, default=default_directory(), help="features are kept here: %(default)s")


def main(arguments: argparse.Namespace) -> ExitCode:
    """Evaluate.

    Raises:
        DiffpathError: nothing to do, a missing or damaged input, or sets that cannot be compared.
    """
    _check(arguments)
    evaluation = _evaluation(arguments)
    sources, why = _audit_sources(arguments, evaluation.other)
    store, findings = FeatureStore(arguments.cache), None
    content = job.measure(evaluation, store)
    if sources:
        try:
            findings = audit.run(sources, evaluation.extractors, store, seed=arguments.seed)
        except ValueError as error:
            why = str(error)
    content["audit"] = findings.content if findings else {"skipped": why}
    write_json(arguments.out / METRICS, content)
    page.write_table(arguments.out / page.TABLE, content)
    images = {job.REFERENCE: evaluation.reference, **evaluation.compared}
    shown = {name: found for name, found in images.items() if isinstance(found, ImageSet)}
    page.write_page(arguments.out, content, shown, audit.for_page(findings) if findings else None)
    _print(content)
    console.print(f"{(arguments.out / page.PAGE).resolve()}", soft_wrap=True, markup=False)
    return ExitCode.OK


def _evaluation(arguments: argparse.Namespace) -> job.Evaluation:
    reference = image_sets.open_set(arguments.real, split=arguments.split)
    other = image_sets.open_set(arguments.generated, split=arguments.generated_split) if arguments.generated else None
    return job.Evaluation(
        reference=reference,
        other=other,
        floor=_floor(arguments, other) if arguments.features else None,
        extractors=[open_extractor(path, resize=arguments.resize) for path in arguments.features],
        classifiers=[_classifier(path, reference, other) for path in arguments.classifier],
        sureness=Sureness(arguments.resamples, arguments.seed),
    )


def _floor(arguments: argparse.Namespace, other: Any) -> ImageSet | None:
    """Real images of another split, as many of each class as the other set has."""
    if arguments.floor in (NONE, arguments.split) or not (arguments.real / MANIFEST).exists():
        return None
    real = open_dataset(arguments.real, verify=False)
    if arguments.floor not in real.splits and arguments.floor == TRAINING_SPLIT:
        return None
    return job.real_floor(image_sets.from_dataset(real, arguments.floor), other, seed=arguments.seed)


def _audit_sources(arguments: argparse.Namespace, other: Any) -> tuple[audit.Sources | None, str]:
    """What is audited, or why nothing is.

    Raises:
        DiffpathError: the training data set is missing, damaged, of another size, or has no held-out split.
    """
    if arguments.audit == NONE:
        return None, "not asked for"
    if not isinstance(other, ImageSet):
        return None, "there are no generated images at hand"
    path = arguments.real if arguments.audit == AUTO else Path(arguments.audit)
    unknown = "which images the model was trained on is not known; name their data set with --audit"
    if arguments.audit == AUTO and not (path / MANIFEST).exists():
        return None, unknown
    # --real was checked when it was opened.
    dataset = open_dataset(path, verify=path != arguments.real)
    if arguments.audit == AUTO and dataset.digest not in other.training_data:
        return None, unknown
    splits = [split for split in dataset.splits if split != TRAINING_SPLIT and dataset.count(split)]
    if dataset.schema.image_px != other.image_px:
        why = f"its images have {dataset.schema.image_px[::-1]} px, the generated ones {other.image_px[::-1]}"
        if arguments.audit == AUTO:
            return None, why
        raise DiffpathError("--audit", where=path, why=why, fix="audit a set of the training size")
    if not splits:
        why = "it has no split but the training split, so nothing says how near honest images come"
        raise DiffpathError("--audit", where=path, why=why, fix=f"name a data set with held-out images, or {NONE}")
    held_out = image_sets.joined([image_sets.from_dataset(dataset, split) for split in splits])
    chosen = np.random.default_rng(arguments.seed).permutation(len(held_out))[: arguments.held_out]
    return audit.Sources(other, image_sets.from_dataset(dataset, TRAINING_SPLIT), held_out.subset(np.sort(chosen))), ""


def _classifier(path: Path, *images: Any) -> runs.Run:
    """A classifier that knows the classes of all sets.

    Raises:
        DiffpathError: it is none, or it does not.
    """
    run = runs.open_run(path)
    check_classifier(run)
    for found in images:
        if isinstance(found, ImageSet):
            job.check_size(found, run.image_px, f"the classifier {path}", "use images of its size")
        unknown = sorted(set(found.classes) - set(run.classes)) if isinstance(found, ImageSet) else []
        if unknown:
            why = f"it knows {list(run.classes)}, but not {unknown} of {found.where}"
            raise DiffpathError("classifier", where=path, why=why, fix="name one that was trained on these classes")
    return run


def _check(arguments: argparse.Namespace) -> None:
    check_resize(arguments.resize)
    for path in (arguments.out, arguments.cache):
        _check_writable(path)
    for name, least in (("resamples", 0), ("held_out", 2), ("seed", 0)):
        if getattr(arguments, name) < least:
            why = f"{getattr(arguments, name)} is too few"
            raise DiffpathError(f"--{name}", where="the command line", why=why, fix=f"give {least} or more")
    if not (arguments.features or arguments.classifier or arguments.generated):
        why, fix = "there is nothing to measure", "add --generated, --features or --classifier"
        raise DiffpathError("eval", where="the command line", why=why, fix=fix)


def _check_writable(path: Path) -> None:
    """Refuse, before anything is measured, a directory that cannot be written.

    Raises:
        DiffpathError: it is a file, lies below one, or may not be written.
    """
    nearest = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        why = f"{nearest} is no directory that may be written"
        raise DiffpathError("directory", where=path, why=why, fix="name another directory")


def _print(content: dict[str, Any]) -> None:
    """The distances of every class, and how often classifiers see the class that was asked for."""
    for distances in content.get("distances", []):
        names = [distances["features"][f"{kind}_name"] for kind in ("frechet", "kernel")]
        console.print(f"in {distances['features']['name']}, resize {distances['features']['resize']}:", soft_wrap=True)
        for which, groups in distances["rows"].items():
            for group, row in groups.items():
                found = [_shown(name, row["metrics"][name]) for name in names if name in row["metrics"]]
                notes = f"  ({'; '.join(row['notes'])})" if row["notes"] and found and group == OVERALL else ""
                counts = " / ".join("unknown" if row[n] is None else str(row[n]) for n in ("n_reference", "n_other"))
                line = f"{which:10s} {group:12s} {', '.join(found) or '; '.join(row['notes'])}  n {counts}{notes}"
                console.print(line, soft_wrap=True, markup=False)
    found = content["audit"]
    words = found["copies"]["verdict"] if "copies" in found else f"none: {found['skipped']}"
    console.print(f"audit      {words}", soft_wrap=True, markup=False)
    for entry in content["classification"]:
        scores = f"accuracy {entry['accuracy']:.4f}, balanced {entry['balanced_accuracy']:.4f}"
        line = f"{entry['set']:10s} classifier {entry['classifier']['run'][:12]}: {scores} (n {entry['data']['n']})"
        console.print(line, soft_wrap=True, markup=False)


def _shown(name: str, found: dict[str, float]) -> str:
    ends = f" [{found['low']:.4g}, {found['high']:.4g}]" if "low" in found else ""
    return f"{name} {found['value']:.4g}{ends}"
