"""``diffpath compare``: classifiers trained on different images, tested on the same patients; which arm is better?"""

import argparse
import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffpath_jax.data import writer
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.evaluation import image_sets
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import write_json, write_text
from diffpath_jax.io.progress import console
from diffpath_jax.metrics.paired import RESAMPLES
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
        help="an arm: its name, and its classifiers' run directories, one a seed; the first arm is the baseline",
    )
    parser.add_argument("--out", required=True, type=Path, help="directory to write")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="draws of patients (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of these draws (default: %(default)s)")


def main(arguments: argparse.Namespace) -> ExitCode:
    """Compare.

    Raises:
        DiffpathError: a run is no classifier of such images, or arms cannot be paired.
    """
    found = [_arm(word) for word in arguments.arms]
    if len({arm.name for arm in found}) < len(found):
        raise DiffpathError("--arm", where="the command line", why="two arms have one name", fix="rename one")
    images = image_sets.from_dataset(open_dataset(arguments.test), arguments.split)
    study.check_arms(found, images)
    tested = [study.test_arm(arm, images) for arm in found]
    content = study.comparison(tested, images, seed=arguments.seed, resamples=arguments.resamples)
    arguments.out.mkdir(parents=True, exist_ok=True)
    settings = {"seed": arguments.seed, "resamples": arguments.resamples, "versions": writer.versions("jax")}
    write_json(arguments.out / FOUND, {**content, "settings": settings})
    write_text(arguments.out / TABLE, _table(content))
    for line in _lines(content):
        console.print(line, markup=False, soft_wrap=True)
    return ExitCode.OK


def _arm(word: str) -> study.Arm:
    name, equals, paths = word.partition("=")
    if not (name and equals and paths):
        raise DiffpathError(
            "--arm", where="the command line", why=f"{word!r} is not NAME=RUN[,RUN...]", fix="write it so"
        )
    return study.open_arm(name, [Path(path) for path in paths.split(",") if path])


def _rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every score of every arm, then every difference."""
    named = [(arm["name"], "", arm["scores"]) for arm in content["arms"]]
    named += [(found["arm"], found["from"], found["scores"]) for found in content["differences"]]
    return [
        {"arm": arm, "less": less, "score": score, **interval}
        for arm, less, scores in named
        for score, interval in scores.items()
    ]


def _table(content: Mapping[str, Any]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(_rows(content))
    return text.getvalue()


def _lines(content: Mapping[str, Any]) -> Sequence[str]:
    """For the console: the balanced accuracy of each arm, what it gains, and what is to be doubted."""
    shown = [row for row in _rows(content) if row["score"] == "balanced_accuracy"]
    lines = [_line(row) for row in shown]
    return [*lines, *(f"warning: {warning}" for warning in content["warnings"])]


def _line(row: Mapping[str, Any]) -> str:
    """Of a score in per cent, of a difference in points of it, with its sign."""
    name, sign = (f"{row['arm']} less {row['less']}", "+") if row["less"] else (row["arm"], "")
    reach = f" ({row['low']:{sign}.1%} to {row['high']:{sign}.1%})" if row["low"] is not None else ""
    return (
        f"{name}: balanced accuracy {row['value']:{sign}.1%}{reach}, {row['patients']} patients, {row['seeds']} seeds"
    )
