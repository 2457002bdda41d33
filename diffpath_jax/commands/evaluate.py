"""``diffpath eval``: distances of a set from real images, memorisation audit, and agreement of its labels."""

import argparse
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

from diffpath_jax.commands import eval_checkpoints
from diffpath_jax.data.manifest import MANIFEST, open_dataset
from diffpath_jax.data.validation import VAL
from diffpath_jax.evaluation import audit, image_sets, job, label_agreement, page, record, table
from diffpath_jax.evaluation.compare import TRAINING_SPLIT
from diffpath_jax.evaluation.feature_cache import FeatureStore, default_directory
from diffpath_jax.evaluation.features.extractor import FeatureExtractor
from diffpath_jax.evaluation.features.open import open_extractor, sources
from diffpath_jax.evaluation.features.resize import check_resize
from diffpath_jax.evaluation.image_sets import ImageSet, Statistics
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import own_results
from diffpath_jax.io.options import ranged
from diffpath_jax.io.progress import console
from diffpath_jax.metrics.bootstrap import BootstrapConfig
from diffpath_jax.metrics.metric import Source
from diffpath_jax.metrics.table import METRICS, metrics_of
from diffpath_jax.ranges import AtLeastTwo, Resamples, Seed

NONE, AUTO = "none", "auto"
TEST_SPLIT = "test"
INFLUENCE, BOOTSTRAP = "influence", "bootstrap"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``diffpath eval``."""
    summaries = "; ".join(metric.summary for source in get_args(Source) for metric in metrics_of(source))
    parser.epilog = f"Metrics: {summaries}.".replace("%", "%%")
    a_set = "data set, sample set, folder of images by class, or .npz statistics"
    parser.add_argument("--real", required=True, type=Path, help=f"the reference: {a_set}")
    parser.add_argument("--split", help=f"split of --real (default: {TEST_SPLIT}; of checkpoints {VAL})")
    parser.add_argument("--generated", type=Path, help=f"what is measured: {a_set}")
    parser.add_argument(
        "--workdir", type=Path, help="or a diffusion run, whose checkpoints are drawn from and measured"
    )
    parser.add_argument("--generated_split", default="train", help="split of --generated (default: %(default)s)")
    parser.add_argument(
        "--features",
        nargs="+",
        default=[],
        type=Path,
        help=f"feature extractors that distances are measured in: {sources()}",
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        choices=list(dict.fromkeys(metric.option for metric in METRICS.values() if metric.option)),
        help="measured only where asked for: sfid and inception_score take a pass of Inception each",
    )
    resize = "of Inception's images: tf_bilinear, as published; or clean"
    parser.add_argument("--resize", default="tf_bilinear", help=resize)
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
        help="data set that the model was trained on, to look for copies; its other splits set the false-alarm rate "
        f"({AUTO}: --real, if the samples say that it is; {NONE}: no audit)",
    )
    parser.add_argument(
        "--held_out",
        type=ranged(AtLeastTwo),
        default=2000,
        help="most held-out images that the audit is calibrated on (%(default)s)",
    )
    parser.add_argument("--out", required=True, type=Path, help="directory to write: metrics.json, index.html, ...")
    _add_interval_arguments(parser)
    parser.add_argument("--cache", type=Path, default=default_directory(), help="features are kept here: %(default)s")
    eval_checkpoints.add_arguments(parser)


def _add_interval_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say how sure numbers are."""
    parser.add_argument(
        "--resamples", type=ranged(Resamples), default=100, help="for intervals; 0 gives none (default: %(default)s)"
    )
    parser.add_argument(
        "--intervals",
        choices=(INFLUENCE, BOOTSTRAP),
        default=INFLUENCE,
        help="of the Frechet distance: from its derivatives, where there are enough images; or from resamples, which "
        "takes long in thousands of features (default: %(default)s)",
    )
    parser.add_argument("--seed", type=ranged(Seed), default=0, help="of random subsets, resamples and drawn noise")


def main(arguments: argparse.Namespace) -> ExitCode:
    """Evaluates a set.

    Raises:
        DiffpathError: nothing to do, a missing or damaged input, or sets that cannot be compared.
    """
    _check(arguments)
    if arguments.workdir:
        return eval_checkpoints.main(arguments, _measures(arguments))
    with own_results(arguments.out, marker=record.METRICS):
        measured = _measured(arguments)
    for line in table.lines(measured):
        console.print(line, soft_wrap=True, markup=False)
    console.print(f"{(arguments.out / page.PAGE).resolve()}", soft_wrap=True, markup=False)
    return ExitCode.OK


def _measured(arguments: argparse.Namespace) -> record.EvaluationRecord:
    """Returns what was measured, and writes it."""
    other = image_sets.open_set(arguments.generated, split=arguments.generated_split) if arguments.generated else None
    evaluation = replace(
        _evaluation(arguments, other),
        floor=_floor(arguments, other) if arguments.features else None,
        audit=_audit_sources(arguments, other),
    )
    measured = job.measure(evaluation, FeatureStore(arguments.cache))
    record.write(arguments.out / record.METRICS, measured)
    table.write_csv(arguments.out / table.TABLE, measured)
    page.write_page(arguments.out, measured, evaluation.image_sets, _pairs(evaluation, measured))
    return measured


def _pairs(evaluation: job.Evaluation, measured: record.EvaluationRecord) -> list[audit.PairPicture]:
    """Returns pictures of the closest pairs of the audit."""
    if isinstance(evaluation.audit, record.SkippedAudit) or isinstance(measured.audit, record.SkippedAudit):
        return []
    return audit.pair_pictures(evaluation.audit, measured.audit)


def _measures(arguments: argparse.Namespace) -> eval_checkpoints.Measures:
    return eval_checkpoints.Measures(
        evaluation=partial(_evaluation, arguments),
        audit_of=partial(_audit_sources, arguments),
        floor_of=partial(_floor, arguments),
    )


def _extractors(arguments: argparse.Namespace) -> list[FeatureExtractor]:
    """Returns the feature extractors.

    Raises:
        DiffpathError: one is none, or none has what a metric that is asked for is measured of.
    """
    extractors = [open_extractor(path, resize=arguments.resize) for path in arguments.features]
    there = {"features", *(source for each in extractors for source in each.views)} if extractors else set()
    for option in arguments.metrics:
        if not {metric.source for metric in METRICS.values() if metric.option == option} <= there:
            why, fix = "none of --features has what it is measured of", "name Inception in --features, or leave it out"
            raise DiffpathError(f"--metrics {option}", where="the command line", why=why, fix=fix)
    return extractors


def _evaluation(arguments: argparse.Namespace, other: ImageSet | Statistics | None) -> job.Evaluation:
    """Returns what is measured, but for the floor and the audit."""
    reference = image_sets.open_set(arguments.real, split=arguments.split)
    return job.Evaluation(
        reference=reference,
        other=other,
        floor=None,
        extractors=_extractors(arguments),
        classifiers=[label_agreement.open_classifier(path, reference, other) for path in arguments.classifier],
        audit=record.SkippedAudit("not asked for"),
        config=BootstrapConfig(arguments.resamples, arguments.seed, influence=arguments.intervals == INFLUENCE),
        options=tuple(arguments.metrics),
    )


def _audit_sources(
    arguments: argparse.Namespace, generated: ImageSet | Statistics | None
) -> audit.Sources | record.SkippedAudit:
    if arguments.audit == NONE:
        return record.SkippedAudit("not asked for")
    held_out = audit.HeldOut(arguments.held_out, arguments.seed)
    if arguments.audit != AUTO:
        return audit.named_sources(generated, Path(arguments.audit), held_out)
    sources = audit.automatic_sources(generated, arguments.real, held_out)
    if sources == record.SkippedAudit(audit.UNKNOWN):
        return record.SkippedAudit(f"{audit.UNKNOWN}; name their data set with --audit")
    return sources


def _floor(arguments: argparse.Namespace, other: ImageSet | Statistics | None) -> ImageSet | None:
    """Returns real images of another split, as many of each class as the other set has."""
    if arguments.floor in (NONE, arguments.split) or not (arguments.real / MANIFEST).exists():
        return None
    real = open_dataset(arguments.real, verify=False)
    if arguments.floor not in real.splits and arguments.floor == TRAINING_SPLIT:
        return None
    return job.real_floor(image_sets.from_dataset(real, arguments.floor), other, seed=arguments.seed)


def _check(arguments: argparse.Namespace) -> None:
    _check_what_is_measured(arguments)
    if arguments.split is None:
        arguments.split = VAL if arguments.workdir else TEST_SPLIT
    check_resize(arguments.resize)
    for path in (arguments.out, arguments.cache):
        check_writable(path)


def _check_what_is_measured(arguments: argparse.Namespace) -> None:
    """Refuses options of which one makes no sense beside, or without, another."""
    run, drawing = arguments.workdir, eval_checkpoints.asked_for(arguments)
    for name, wrong, why, fix in (
        ("--generated", run and arguments.generated, "--workdir draws what is measured", "leave one of the two out"),
        ("--num_per_class", run and not arguments.num_per_class, "missing", "say how many images checkpoints draw"),
        ("--features", run and not arguments.features, "missing", "name what the checkpoints are measured in"),
        (drawing, not run and drawing, "it is of checkpoints", "name their run with --workdir, or leave it out"),
        (
            "eval",
            not (arguments.features or arguments.classifier or arguments.generated),
            "there is nothing to measure",
            "add --generated, --features or --classifier",
        ),
    ):
        if wrong:
            raise DiffpathError(name, where="the command line", why=why, fix=fix)


def check_writable(path: Path) -> None:
    """Refuses, before anything is measured, a directory that cannot be written.

    Raises:
        DiffpathError: it is a file, lies below one, or may not be written.
    """
    nearest = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        why = f"{nearest} is no directory that may be written"
        raise DiffpathError("directory", where=path, why=why, fix="name another directory")
