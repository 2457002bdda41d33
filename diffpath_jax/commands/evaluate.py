"""``diffpath eval``: how near a generated set is to a real one, and what a classifier makes of either."""

import argparse
from pathlib import Path
from typing import Any

from data_prep import shards
from diffpath_jax import evaluate, runs
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.errors import DiffpathError, ExitCode
from diffpath_jax.files import write_json
from diffpath_jax.metrics.features import check_classifier, classifier_features
from diffpath_jax.progress import console
from diffpath_jax.sample import SPLIT

METRICS = "metrics.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath eval``."""
    parser.add_argument("--real", required=True, type=Path, help="dataset directory of real images")
    parser.add_argument("--split", default="test", help="split of --real (default: %(default)s)")
    parser.add_argument("--generated", type=Path, help="sample set to compare with --real")
    parser.add_argument("--features", type=Path, help="classifier run whose features measure the distance")
    parser.add_argument("--floor", action="store_true", help="also compare --real's train split with --split")
    parser.add_argument("--classifier", type=Path, help="classifier run to test on --real")
    parser.add_argument("--out", required=True, type=Path, help="directory for metrics.json")
    parser.add_argument("--seed", type=int, default=0, help="of the subsets of the kernel distance")


def main(arguments: argparse.Namespace) -> ExitCode:
    """Evaluate.

    Raises:
        DiffpathError: nothing to do, a missing or damaged input, or different class lists.
    """
    _check(arguments)
    real = open_dataset(arguments.real)
    real.shards(arguments.split)
    content: dict[str, Any] = {"versions": shards.versions("jax", "numpy", "scipy")}
    if arguments.features:
        run = runs.open_run(arguments.features)
        evaluate.check_comparable(real, run.classes, run.workdir)
        extractor = classifier_features(run)
        pairs = {}
        if arguments.generated:
            generated = open_dataset(arguments.generated)
            evaluate.check_comparable(real, generated.schema.classes, generated.directory)
            pairs["generated"] = (real, arguments.split, generated, SPLIT)
        if arguments.floor:
            pairs["floor"] = (real, arguments.split, real, "train")
        content["distances"] = {
            name: evaluate.distances(*pair, extractor, seed=arguments.seed) for name, pair in pairs.items()
        }
        for name, found in content["distances"].items():
            _print_rows(name, found["rows"])
    if arguments.classifier:
        run = runs.open_run(arguments.classifier)
        check_classifier(run)
        evaluate.check_comparable(real, run.classes, run.workdir)
        content["classification"] = evaluate.classify(run, real, arguments.split)
        console.print(
            f"classifier {arguments.classifier}: accuracy {content['classification']['accuracy']:.4f}, balanced "
            f"{content['classification']['balanced_accuracy']:.4f} (n {content['classification']['data']['n']})",
            soft_wrap=True,
        )
    write_json(arguments.out / METRICS, content)
    return ExitCode.OK


def _check(arguments: argparse.Namespace) -> None:
    wanted = None
    if not (arguments.features or arguments.classifier):
        wanted = "--features or --classifier"
    elif (arguments.generated or arguments.floor) and not arguments.features:
        wanted = "--features"
    elif arguments.features and not (arguments.generated or arguments.floor):
        wanted = "--generated or --floor"
    if wanted:
        why = f"{wanted} is missing, so there is nothing to measure"
        raise DiffpathError("eval", where="the command line", why=why, fix=f"add {wanted}")


def _print_rows(name: str, rows: dict[str, dict[str, Any]]) -> None:
    for group, row in rows.items():
        numbers = []
        for key, value in row.items():
            if key.startswith("FD-"):
                numbers.append(f"{key} {value:.3f}")
            elif key.startswith("KD-"):
                numbers.append(f"{key} {value['mean']:.4f} ± {value['std']:.4f}")
        note = f"  ({row['note']})" if "note" in row else ""
        counts = f"n {row['n_reference']} / {row['n_other']}"
        console.print(f"{name:10s} {group:12s} {', '.join(numbers)}  {counts}{note}", soft_wrap=True)
