"""``diffpath reconstruct``: images through an autoencoder and back, and how near they come."""

import argparse

from diffpath_jax.commands.encode import DTYPES, add_data_arguments, add_dtype, add_first_stage
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.devices import hardware
from diffpath_jax.io import options
from diffpath_jax.io.errors import ExitCode
from diffpath_jax.io.files import own_directory
from diffpath_jax.io.progress import console
from diffpath_jax.latents import first_stage, reconstruct


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath reconstruct``."""
    add_data_arguments(parser)
    add_first_stage(parser, required=True)
    parser.add_argument(
        "--name", type=options.name, default="reconstructions", help="data set name (default: %(default)s)"
    )
    add_dtype(parser, default=DTYPES[0])
    parser.add_argument("--split", default="test", help="whose images (default: %(default)s)")


def main(arguments: argparse.Namespace) -> ExitCode:
    """Reconstruct.

    Raises:
        DiffpathError: no images, no autoencoder, sizes that do not fit, or another job's directory.
    """
    hardware.use_compilation_cache()
    source = open_dataset(arguments.data)
    source.shards(arguments.split)
    stage = first_stage.open_for(arguments.first_stage, source)
    with own_directory(arguments.out):
        _, errors = reconstruct.reconstruct(
            source,
            stage,
            split=arguments.split,
            out=arguments.out,
            name=arguments.name,
            factor=stage.network.factor,
            dtype=arguments.dtype,
        )
    console.print(
        f"{arguments.out}: {errors['images']} images of {arguments.split}: PSNR {errors['psnr']:.2f} dB, "
        f"SSIM {errors['ssim']:.3f}",
        soft_wrap=True,
    )
    console.print(
        f"  {errors['baseline']}: PSNR {errors['baseline_psnr']:.2f} dB, SSIM {errors['baseline_ssim']:.3f}",
        soft_wrap=True,
    )
    if "codes_used" in errors:
        console.print(
            f"  {errors['codes_used']:.1%} of the codes are used, as evenly as {errors['codes_perplexity']:.0f} codes",
            soft_wrap=True,
        )
    measured = f"--real {arguments.data} --split {arguments.split} --generated {arguments.out}"
    console.print(
        f"  rFID: diffpath eval {measured} --generated_split {arguments.split} --features ...", soft_wrap=True
    )
    return ExitCode.OK
