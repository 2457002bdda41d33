"""``diffpath reader``: can pathologists tell generated images from real ones? Pages for readers, and their scores."""

import argparse
from dataclasses import asdict
from pathlib import Path

from diffpath_jax.evaluation import image_sets
from diffpath_jax.evaluation.image_sets import ImageSet
from diffpath_jax.evaluation.job import check_comparable
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import own_results
from diffpath_jax.io.options import ranged
from diffpath_jax.io.progress import console
from diffpath_jax.io.sealed import write_sealed
from diffpath_jax.metrics.paired import RESAMPLES
from diffpath_jax.ranges import AtLeastTwo, Positive, Resamples, Seed
from diffpath_jax.reader import answers, design, key, page, record, score, score_page
from diffpath_jax.reader.question import QUESTIONS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath reader``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="make|score")
    _add_make(actions.add_parser("make", help="a page for each reader, and the key", allow_abbrev=False))
    _add_score(actions.add_parser("score", help="what readers could tell, from their answers", allow_abbrev=False))


def _add_make(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--real", required=True, type=Path, help="data set or folder of real images")
    parser.add_argument("--split", default="test", help="its split, which was held out (default: %(default)s)")
    parser.add_argument("--generated", required=True, type=Path, help="sample set or folder of generated images")
    parser.add_argument("--generated_split", default="train", help="split of --generated (default: %(default)s)")
    questions = "; ".join(f"{each.name}: {each.title}" for each in QUESTIONS.values())
    parser.add_argument("--question", default="rating", choices=list(QUESTIONS), help=f"what is asked: {questions}")
    text = "real images, and as many generated ones; of pairs, how many (default: %(default)s)"
    parser.add_argument("--images", type=ranged(AtLeastTwo), default=50, help=text)
    parser.add_argument("--readers", type=ranged(Positive), default=3, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=ranged(Seed), default=0, help="of images and orders (default: %(default)s)")
    parser.add_argument("--out", required=True, type=Path, help="directory to write")


def _add_score(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key", type=Path, help="key of the study: its file, or the directory that make wrote")
    parser.add_argument("answers", type=Path, nargs="+", help="files that the pages gave out, one a reader")
    parser.add_argument("--out", required=True, type=Path, help="directory to write")
    text = "draws of patients and images (default: %(default)s)"
    parser.add_argument("--resamples", type=ranged(Resamples), default=RESAMPLES, help=text)
    parser.add_argument("--seed", type=ranged(Seed), default=0, help="of these draws (default: %(default)s)")


def main(arguments: argparse.Namespace) -> ExitCode:
    """Makes or scores a reader study.

    Raises:
        DiffpathError: images that a model was trained on, answers to another study, or another's directory.
    """
    return _make(arguments) if arguments.action == "make" else _score(arguments)


def _make(arguments: argparse.Namespace) -> ExitCode:
    real, generated = _images(arguments.real, arguments.split), _images(arguments.generated, arguments.generated_split)
    check_comparable(real, generated, [])
    asked = QUESTIONS[arguments.question]
    study = design.draw(real, generated, design.Settings(asked, arguments.images, arguments.readers, arguments.seed))
    page.check_size(study)
    with own_results(arguments.out, marker=page.MARKER):
        page.check_same_study(arguments.out, study)
        write_sealed(arguments.out / page.MARKER, asdict(page.about(study)))
        key.write(key.path_of(arguments.out, study.study), study)
        for reader in range(1, arguments.readers + 1):
            page.write(arguments.out / page.name_of(reader), study, real, generated, reader=reader)
    _tell(f"{arguments.out.resolve()}: pages of {arguments.readers} readers, {len(study.cases)} answers each")
    _tell(f"keep to yourself: {key.path_of(arguments.out, study.study)}")
    for warning in study.warnings:
        _tell(f"warning: {warning}")
    return ExitCode.OK


def _images(path: Path, split: str) -> ImageSet:
    """Returns a set of images.

    Raises:
        DiffpathError: statistics, which have no images.
    """
    images = image_sets.open_set(path, split=split)
    if isinstance(images, ImageSet):
        return images
    raise DiffpathError("images", where=path, why="statistics have no images", fix="name a data set or a folder")


def _score(arguments: argparse.Namespace) -> ExitCode:
    study = key.read(arguments.key)
    given = answers.read_all(arguments.answers, study)
    with own_results(arguments.out, marker=record.READER):
        scored = score.score(study, given, score.Settings(arguments.seed, arguments.resamples))
        score_page.write_csv(arguments.out / score_page.TABLE, scored)
        score_page.write_page(arguments.out / score_page.PAGE, scored)
        record.write(arguments.out / record.READER, scored)
    for line in score_page.lines(scored):
        _tell(line)
    _tell(f"{(arguments.out / score_page.PAGE).resolve()}")
    return ExitCode.OK


def _tell(line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)
