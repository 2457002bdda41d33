"""``diffpath membership``: can one tell from a model, or from its images, which images it was trained on?"""

import argparse
from pathlib import Path

from diffpath_jax.commands.evaluate import check_writable
from diffpath_jax.commands.sample import checkpoint_step
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.devices import hardware
from diffpath_jax.evaluation import image_sets, membership, membership_page, membership_record
from diffpath_jax.evaluation.compare import TRAINING_SPLIT
from diffpath_jax.evaluation.feature_cache import FeatureStore, default_directory
from diffpath_jax.evaluation.features.open import open_extractor, sources
from diffpath_jax.evaluation.features.resize import check_resize
from diffpath_jax.evaluation.image_sets import ImageSet
from diffpath_jax.evaluation.job import check_comparable
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import own_results
from diffpath_jax.io.options import ranged
from diffpath_jax.io.progress import console
from diffpath_jax.metrics.memorization.membership import MembershipConfig
from diffpath_jax.ranges import AtLeastTwo, Positive, Seed
from diffpath_jax.runs import run as runs
from diffpath_jax.sampling.draw import Model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath membership``."""
    parser.add_argument("--workdir", required=True, type=Path, help="run directory of a diffusion model")
    parser.add_argument("--data", required=True, type=Path, help="data set of images that it was trained on")
    parser.add_argument("--members", default=TRAINING_SPLIT, help="split it was trained on (default: %(default)s)")
    parser.add_argument("--held_out", default="test", help="split it was not trained on (default: %(default)s)")
    parser.add_argument("--generated", type=Path, help="sample set that is to be released: is it nearer to members?")
    parser.add_argument("--generated_split", default="train", help="split of --generated (default: %(default)s)")
    parser.add_argument(
        "--features", nargs="+", default=[], type=Path, help=f"spaces in which --generated is compared: {sources()}"
    )
    resize = "of Inception's images: tf_bilinear, as published; or clean"
    parser.add_argument("--resize", default="tf_bilinear", help=resize)
    parser.add_argument(
        "--images", type=ranged(AtLeastTwo), default=2000, help="most members, and most non-members (%(default)s)"
    )
    parser.add_argument(
        "--draws", type=ranged(Positive), default=4, help="noise draws of each loss (default: %(default)s)"
    )
    parser.add_argument("--checkpoint", default="latest", help="latest, best, or a step (default: %(default)s)")
    parser.add_argument("--raw_parameters", action="store_true", help="not the moving average")
    parser.add_argument(
        "--seed", type=ranged(Seed), default=0, help="of noise, choices and permutations (default: %(default)s)"
    )
    parser.add_argument("--out", required=True, type=Path, help="directory to write: membership.json, index.html, ...")
    parser.add_argument("--cache", type=Path, default=default_directory(), help="features are kept here: %(default)s")


def main(arguments: argparse.Namespace) -> ExitCode:
    """Measures membership leakage.

    Raises:
        DiffpathError: not a diffusion run, data that it was not trained on, or sets that cannot be compared.
    """
    _check(arguments)
    hardware.use_compilation_cache()
    with own_results(arguments.out, marker=membership_record.MEMBERSHIP):
        record = _measured(arguments)
    for line in membership_page.lines(record):
        console.print(line, soft_wrap=True, markup=False)
    console.print(f"{(arguments.out / membership_page.PAGE).resolve()}", soft_wrap=True, markup=False)
    return ExitCode.OK


def _measured(arguments: argparse.Namespace) -> membership_record.MembershipRecord:
    """Returns what was measured, and writes it."""
    chosen = _sources(arguments)
    settings = membership.Settings(MembershipConfig(seed=arguments.seed), arguments.draws)
    record, scored = membership.measure(chosen, FeatureStore(arguments.cache), settings)
    membership_record.write(arguments.out / membership_record.MEMBERSHIP, record)
    membership_page.write_csv(arguments.out / membership_page.TABLE, record)
    membership_page.write_scores(arguments.out / membership_page.SCORES, chosen, scored)
    membership_page.write_page(arguments.out / membership_page.PAGE, record, scored)
    return record


def _check(arguments: argparse.Namespace) -> None:
    check_resize(arguments.resize)
    for path in (arguments.out, arguments.cache):
        check_writable(path)
    if arguments.features and not arguments.generated:
        why, fix = "there are no generated images to compare in them", "add --generated"
        raise DiffpathError("--features", where="the command line", why=why, fix=fix)
    if arguments.members == arguments.held_out:
        why = f"{arguments.held_out!r} is what --members names"
        raise DiffpathError("--held_out", where="the command line", why=why, fix="name a split that was held out")


def _sources(arguments: argparse.Namespace) -> membership.Sources:
    run = runs.diffusion_model(runs.open_run(arguments.workdir))
    members, others = membership.sides(
        run,
        open_dataset(arguments.data),
        members=arguments.members,
        held_out=arguments.held_out,
        limit=arguments.images,
        seed=arguments.seed,
    )
    extractors = [open_extractor(path, resize=arguments.resize) for path in arguments.features]
    generated = _generated(arguments)
    if generated:
        check_comparable(others.images, generated, extractors)
    step = checkpoint_step(arguments.checkpoint)
    trained = runs.load_parameters(run, use_ema=not arguments.raw_parameters, step=step)
    return membership.Sources(Model(run, trained), members, others, generated, extractors)


def _generated(arguments: argparse.Namespace) -> ImageSet | None:
    """Returns the images that ``--generated`` names, if it does.

    Raises:
        DiffpathError: statistics, which have no images.
    """
    if arguments.generated is None:
        return None
    images = image_sets.open_set(arguments.generated, split=arguments.generated_split)
    if isinstance(images, ImageSet):
        return images
    raise DiffpathError(
        "generated images", where=arguments.generated, why="statistics have no images", fix="name a sample set"
    )
