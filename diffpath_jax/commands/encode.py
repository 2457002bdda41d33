"""``diffpath encode``: a data set's latents, or an encoder's features beside its images, written once for training."""

import argparse
from pathlib import Path
from typing import get_args

from diffpath_jax.data.manifest import Dataset, open_dataset
from diffpath_jax.data.symmetries import Augmentation
from diffpath_jax.devices import hardware
from diffpath_jax.evaluation.features.open import open_extractor, sources
from diffpath_jax.evaluation.features.stored import store_features
from diffpath_jax.io import options
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import own_directory
from diffpath_jax.io.progress import console
from diffpath_jax.latents import first_stage
from diffpath_jax.latents.encode import TRAIN, encode

DTYPES = ("float32", "bfloat16")
# Of the orientations that are encoded.
AUGMENT: Augmentation = "dihedral"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath encode``."""
    add_data_arguments(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    add_first_stage(what, required=False)
    text = "write every image again with this encoder's features beside it, for network.conditions"
    what.add_argument("--features", type=Path, metavar="ENCODER", help=f"{text}: {sources()}")
    parser.add_argument(
        "--name", type=options.name, help="data set name (default: latents; with --features that of --data)"
    )
    latents = parser.add_argument_group("with --first_stage")
    text = f"orientations of each training image that are encoded (default: {AUGMENT})"
    latents.add_argument("--augment", choices=get_args(Augmentation), help=text)
    add_dtype(latents, default=None)


def add_first_stage(parser: argparse._ActionsContainer, *, required: bool) -> None:
    """Adds the option that names an autoencoder."""
    text = "run directory of an autoencoder, or a safetensors file"
    parser.add_argument("--first_stage", required=required, type=Path, help=text)


def add_data_arguments(parser: argparse._ActionsContainer) -> None:
    """Adds the options that name the data set that is read, and the one that is written."""
    parser.add_argument("--data", required=True, type=Path, help="data set of images")
    parser.add_argument("--out", required=True, type=Path, help="data set directory to write")


def add_dtype(parser: argparse._ActionsContainer, *, default: str | None) -> None:
    """Adds the option that names the type of an autoencoder's activations."""
    text = f"of the network's activations (default: {DTYPES[0]})"
    parser.add_argument("--dtype", default=default, choices=DTYPES, help=text)


def main(arguments: argparse.Namespace) -> ExitCode:
    """Encode.

    Raises:
        DiffpathError: no images, no autoencoder or encoder, sizes that do not fit, or another job's directory.
    """
    hardware.use_compilation_cache()
    source = open_dataset(arguments.data)
    if TRAIN not in source.splits and arguments.first_stage:
        fix = "name a data set with a split 'train'"
        raise DiffpathError("data set", where=source.directory, why="nothing to train on in it", fix=fix)
    if arguments.features:
        return _features(arguments, source)
    return _latents(arguments, source)


def _latents(arguments: argparse.Namespace, source: Dataset) -> ExitCode:
    stage = first_stage.open_for(arguments.first_stage, source)
    with own_directory(arguments.out):
        dataset = encode(
            source,
            stage,
            out=arguments.out,
            name=arguments.name or "latents",
            augment=arguments.augment or AUGMENT,
            dtype=arguments.dtype or DTYPES[0],
        )
    latents, shape = dataset.details.latents or {}, "x".join(map(str, dataset.schema.latent_shape or ()))
    total = sum(dataset.count(split) for split in dataset.splits)
    console.print(
        f"{arguments.out}: {total} latents of {shape}, augmented by {latents['augment']}, scale {latents['scale']:.4g}",
        soft_wrap=True,
    )
    console.print(
        f"  --config.data.train={arguments.out} --config.data.augment={latents['augment']} "
        f"--config.codec.first_stage={arguments.first_stage}",
        soft_wrap=True,
    )
    return ExitCode.OK


def _features(arguments: argparse.Namespace, source: Dataset) -> ExitCode:
    for option in ("augment", "dtype"):
        if getattr(arguments, option):
            why, fix = "there is no autoencoder", "leave it out"
            raise DiffpathError(f"--{option}", where="the command line", why=why, fix=fix)
    source.check_images()
    extractor = open_extractor(arguments.features, resize="tf_bilinear")
    with own_directory(arguments.out):
        dataset = store_features(source, extractor, out=arguments.out, name=arguments.name or source.name)
    total, width = sum(dataset.count(split) for split in dataset.splits), dataset.schema.feature_width
    console.print(f"{arguments.out}: {total} images with {width} features of {extractor.name}", soft_wrap=True)
    console.print(
        f"  --config.data.train={arguments.out} --config.network.feature_width={width} "
        "--config.network.conditions=\"('label','features')\"",
        soft_wrap=True,
        markup=False,
    )
    return ExitCode.OK
