"""``diffpath convert``: a public PyTorch checkpoint in, parameters of this project out."""

import argparse
from pathlib import Path

from diffpath_jax import convert
from diffpath_jax.errors import DiffpathError, ExitCode
from diffpath_jax.files import sha256_file
from diffpath_jax.parameters import flatten, write_parameters
from diffpath_jax.progress import console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath convert``."""
    parser.add_argument("--from", dest="source", required=True, help="whose checkpoint: " + ", ".join(convert.SOURCES))
    parser.add_argument("--file", required=True, type=Path, help="the checkpoint: a PyTorch state_dict or safetensors")
    parser.add_argument("--out", required=True, type=Path, help="FILE.safetensors to write")
    parser.add_argument("--num_heads", type=int, default=4, help="adm: heads of a UNet (default: %(default)s)")
    parser.add_argument("--head_channels", type=int, default=0, help="adm: channels of a head, instead of num_heads")


def main(arguments: argparse.Namespace) -> ExitCode:
    """Convert.

    Raises:
        DiffpathError: an unknown source, a file that is missing or holds something else.
    """
    if arguments.source not in convert.SOURCES:
        known = ", ".join(convert.SOURCES)
        why = f"{arguments.source!r} is unknown"
        raise DiffpathError("--from", where="the command line", why=why, fix=f"use one of {known}")
    if arguments.out.suffix != ".safetensors":
        why = f"{arguments.out.name!r} is not a .safetensors file"
        raise DiffpathError("--out", where="the command line", why=why, fix="name one")
    converted = convert.SOURCES[arguments.source](
        convert.read_torch(arguments.file),
        num_heads=arguments.num_heads,
        head_channels=arguments.head_channels,
        where=str(arguments.file),
    )
    flat = flatten(converted.params)
    source = {"converted_from": arguments.source, "source_sha256": sha256_file(arguments.file)}
    write_parameters(arguments.out, flat, converted.about() | source)
    numbers = sum(array.size for array in flat.values())
    console.print(f"{arguments.out}: {len(flat)} arrays, {numbers:,} parameters, every name used once", soft_wrap=True)
    console.print(f"  network {converted.about()['network']}", soft_wrap=True)
    console.print(f"  fine-tune: --config.train.init_from={arguments.out}", soft_wrap=True)
    return ExitCode.OK
