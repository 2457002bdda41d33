"""``diffpath encode``: the latents of a data set, written once, for training that does not run the encoder."""

import argparse
from pathlib import Path
from typing import get_args

from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.data.symmetries import Augmentation
from diffpath_jax.devices import hardware
from diffpath_jax.io import options
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import own_directory
from diffpath_jax.io.progress import console
from diffpath_jax.latents import first_stage
from diffpath_jax.latents.encode import TRAIN, encode

DTYPES = ("float32", "bfloat16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath encode``."""
    add_common_arguments(parser, name="latents")
    parser.add_argument(
        "--augment",
        default="dihedral",
        choices=get_args(Augmentation),
        help="orientations of each training image that are encoded (default: %(default)s)",
    )


def add_common_arguments(parser: argparse.ArgumentParser, *, name: str) -> None:
    """Adds the options of all commands that apply an autoencoder to a data set."""
    parser.add_argument("--data", required=True, type=Path, help="data set of images")
    parser.add_argument(
        "--first_stage", required=True, type=Path, help="run directory of an autoencoder, or a safetensors file"
    )
    parser.add_argument("--out", required=True, type=Path, help="data set directory to write")
    parser.add_argument("--name", type=options.name, default=name, help="data set name (default: %(default)s)")
    parser.add_argument(
        "--dtype", default=DTYPES[0], choices=DTYPES, help="of the network's activations (default: %(default)s)"
    )


def main(arguments: argparse.Namespace) -> ExitCode:
    """Encode.

    Raises:
        DiffpathError: no images, no autoencoder, sizes that do not fit, or another job's directory.
    """
    hardware.use_compilation_cache()
    source = open_dataset(arguments.data)
    if TRAIN not in source.splits:
        fix = "name a data set with a split 'train'"
        raise DiffpathError("data set", where=source.directory, why="nothing to train on in it", fix=fix)
    stage = first_stage.open_for(arguments.first_stage, source)
    with own_directory(arguments.out):
        dataset = encode(
            source,
            stage,
            out=arguments.out,
            name=arguments.name,
            augment=arguments.augment,
            dtype=arguments.dtype,
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
