"""``diffpath probe``: a linear classifier of features that were trained for something else."""

import argparse
from pathlib import Path

from diffpath_jax.config import checks
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.devices import hardware
from diffpath_jax.evaluation.feature_cache import FeatureStore, default_directory
from diffpath_jax.evaluation.features.open import open_extractor, sources
from diffpath_jax.evaluation.features.resize import check_resize
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import own_results
from diffpath_jax.io.options import ranged
from diffpath_jax.io.progress import console
from diffpath_jax.ranges import Seed
from diffpath_jax.study import probe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``diffpath probe``."""
    parser.add_argument("--features", required=True, type=Path, help=f"feature extractor: {sources()}")
    resize = "of Inception's images: tf_bilinear, as published; or clean"
    parser.add_argument("--resize", default="tf_bilinear", help=resize)
    text = "data sets of images, separated by commas; the first one's validation images choose the penalty"
    parser.add_argument("--data", required=True, help=text)
    text = (
        "amount of each data set in units of the first one's images, class by class, e.g. 1,0.5; default: all of each"
    )
    parser.add_argument("--mixture", default="", help=text)
    text = "which images of a mixture are taken (default: %(default)s)"
    parser.add_argument("--seed", type=ranged(Seed), default=0, help=text)
    parser.add_argument("--out", required=True, type=Path, help="directory to write")
    parser.add_argument("--cache", type=Path, default=default_directory(), help="features are kept here: %(default)s")


def main(arguments: argparse.Namespace) -> ExitCode:
    """Trains a probe.

    Raises:
        DiffpathError: features, data or a mixture that cannot be, or an output directory in use.
    """
    check_resize(arguments.resize)
    hardware.use_compilation_cache()
    paths, amounts = [Path(each) for each in arguments.data.split(",") if each], _amounts(arguments.mixture)
    if not paths:
        raise DiffpathError("--data", where="the command line", why="it names no data set", fix="name one")
    datasets = [open_dataset(path) for path in paths]
    checks.check_alike(datasets)
    extractor = open_extractor(arguments.features, resize=arguments.resize)
    with own_results(arguments.out, marker=probe.RECORD):
        linear, told = probe.train(datasets, amounts, extractor, FeatureStore(arguments.cache), seed=arguments.seed)
        record = probe.ProbeRecord(
            features=str(arguments.features),
            features_digest=extractor.digest,
            resize=extractor.resize,
            classes=datasets[0].schema.classes,
            image_px=datasets[0].schema.image_px,
            seed=arguments.seed,
            data=tuple(map(str, paths)),
            training_data=tuple(dataset.digest for dataset in datasets),
            mixture=amounts,
            weights="",
            **told,
        )
        probe.write(arguments.out, linear, record)
    loss = min(told["validation_loss"].values())
    console.print(
        f"{arguments.out}: {told['images']} images in {extractor.name}, penalty {told['penalty']:g}, "
        f"validation log loss {loss:.4f}",
        markup=False,
        soft_wrap=True,
    )
    return ExitCode.OK


def _amounts(text: str) -> tuple[float, ...]:
    """Returns the amounts of ``--mixture``, in brackets or without.

    Raises:
        DiffpathError: one of them is no amount.
    """
    words = [word for word in text.strip().strip("()").split(",") if word.strip()]
    try:
        amounts = tuple(float(word) for word in words)
    except ValueError:
        amounts = (-1.0,)
    if not all(0 <= amount < 1e9 for amount in amounts):
        fix = "write numbers of 0 or more, separated by commas"
        raise DiffpathError("--mixture", where="the command line", why=f"{text!r} are no amounts", fix=fix)
    return amounts
