"""``diffpath compare``: classifiers trained on different images, tested on the same patients; which arm is better?"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffpath_jax.data import writer
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.evaluation import image_sets
from diffpath_jax.evaluation.feature_cache import FeatureStore, default_directory
from diffpath_jax.io.csv_text import csv_text
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import own_results, read_json, write_text
from diffpath_jax.io.options import ranged
from diffpath_jax.io.progress import console
from diffpath_jax.io.sealed import write_sealed
from diffpath_jax.metrics.paired import RESAMPLES
from diffpath_jax.ranges import Resamples, Seed
from diffpath_jax.study import arms as study

TABLE, FOUND = "comparison.csv", "comparison.json"
COLUMNS = ("arm", "less", "score", "value", "low", "high", "standard_error", "patients", "seeds")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath compare``."""
    parser.add_argument("--test", required=True, type=Path, help="data set of the test images")
    parser.add_argument("--split", default="test", help="which of its splits (default: %(default)s)")
    parser.add_argument(
        "--arm",
        required=True,
        action="append",
        dest="arms",
        metavar="NAME=RUN[,RUN...]",
        help="an arm: its name, and the directories of its classifiers or linear probes, one a seed; the first arm is "
        "the baseline",
    )
    text = "JSON file that maps the classes of --test onto those of the classifiers; null leaves a class out"
    parser.add_argument("--classes", type=Path, help=text)
    parser.add_argument("--cache", type=Path, default=default_directory(), help="features are kept here: %(default)s")
    parser.add_argument("--out", required=True, type=Path, help="directory to write")
    parser.add_argument(
        "--resamples", type=ranged(Resamples), default=RESAMPLES, help="draws of patients (default: %(default)s)"
    )
    parser.add_argument("--seed", type=ranged(Seed), default=0, help="of these draws (default: %(default)s)")


def main(arguments: argparse.Namespace) -> ExitCode:
    """Compare.

    Raises:
        DiffpathError: a run is no classifier of such images, arms cannot be paired, or another's directory.
    """
    with own_results(arguments.out, marker=FOUND):
        content = _compared(arguments)
    for line in _lines(content):
        console.print(line, markup=False, soft_wrap=True)
    return ExitCode.OK


def _compared(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns what was compared, and writes it."""
    store = FeatureStore(arguments.cache)
    arms = [_arm(word, store) for word in arguments.arms]
    if len({arm.name for arm in arms}) < len(arms):
        raise DiffpathError("--arm", where="the command line", why="two arms have one name", fix="rename one")
    images, names = image_sets.from_dataset(open_dataset(arguments.test), arguments.split), _names(arguments.classes)
    if names:
        images = study.with_classes(images, names, where=arguments.classes)
    study.check_arms(arms, images, mapped=bool(names))
    tested = [study.test_arm(arm, images) for arm in arms]
    content = study.comparison(tested, images, seed=arguments.seed, resamples=arguments.resamples)
    settings = {"seed": arguments.seed, "resamples": arguments.resamples, "versions": writer.versions("jax")}
    settings |= {"classes": names} if names else {}
    write_sealed(arguments.out / FOUND, {**content, "settings": settings})
    write_text(arguments.out / TABLE, csv_text(COLUMNS, _rows(content)))
    return content


def _names(path: Path | None) -> dict[str, str | None]:
    """Returns which class of the classifiers each class of the test images is; empty where they are the same.

    Raises:
        DiffpathError: the file holds something else.
    """
    if path is None:
        return {}
    fix = 'write {"class of the test images": "class of the classifiers", "another": null}'
    content = read_json(path, what="classes", fix=fix)
    if not isinstance(content, dict) or not all(isinstance(name, str | None) for name in content.values()):
        raise DiffpathError("classes", where=path, why="it does not map names to names", fix=fix)
    return content


def _arm(word: str, store: FeatureStore) -> study.Arm:
    name, equals, paths = word.partition("=")
    if not (name and equals and paths):
        raise DiffpathError(
            "--arm", where="the command line", why=f"{word!r} is not NAME=RUN[,RUN...]", fix="write it so"
        )
    return study.open_arm(name, [Path(path) for path in paths.split(",") if path], store)


def _rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every score of every arm, then every difference."""
    named = [(arm["name"], "", arm["scores"]) for arm in content["arms"]]
    named += [(difference["arm"], difference["from"], difference["scores"]) for difference in content["differences"]]
    return [
        {"arm": arm, "less": less, "score": score, **interval}
        for arm, less, scores in named
        for score, interval in scores.items()
    ]


def _lines(content: Mapping[str, Any]) -> Sequence[str]:
    """For the console: the balanced accuracy of each arm, what it gains, and what is to be doubted."""
    accuracies = [row for row in _rows(content) if row["score"] == "balanced_accuracy"]
    lines = [_line(row) for row in accuracies]
    return [*lines, *(f"warning: {warning}" for warning in content["warnings"])]


def _line(row: Mapping[str, Any]) -> str:
    """Of a score in per cent, of a difference in points of it, with its sign."""
    name, sign = (f"{row['arm']} less {row['less']}", "+") if row["less"] else (row["arm"], "")
    reach = f" ({row['low']:{sign}.1%} to {row['high']:{sign}.1%})" if row["low"] is not None else ""
    return (
        f"{name}: balanced accuracy {row['value']:{sign}.1%}{reach}, {row['patients']} patients, {row['seeds']} seeds"
    )
