"""``diffpath export``: the parameters of a run as one safetensors file, for sharing, fine-tuning and other programs."""

import argparse
import dataclasses
from pathlib import Path

from diffpath_jax.commands.sample import checkpoint_step
from diffpath_jax.config.network import network_section
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.progress import console
from diffpath_jax.runs import run as runs
from diffpath_jax.weights.safetensors_file import flatten_network, write_parameters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath export``."""
    parser.add_argument("--workdir", required=True, type=Path, help="run directory")
    parser.add_argument("--out", required=True, type=Path, help="FILE.safetensors to write")
    parser.add_argument("--checkpoint", default="latest", help="latest, best, or a step (default: %(default)s)")
    parser.add_argument("--raw_parameters", action="store_true", help="not the moving average")


def main(arguments: argparse.Namespace) -> ExitCode:
    """Export.

    Raises:
        DiffpathError: not a run, or no such checkpoint.
    """
    if arguments.out.suffix != ".safetensors":
        why = f"{arguments.out.name!r} is not a .safetensors file"
        raise DiffpathError("--out", where="the command line", why=why, fix="name one")
    run = runs.open_run(arguments.workdir)
    step = checkpoint_step(arguments.checkpoint)
    trained = runs.load_parameters(run, use_ema=not arguments.raw_parameters, step=step)
    network = run.config.network_for(len(run.classes))
    about = {
        "network": {**network_section(run.config.network), **dataclasses.asdict(network)},
        "classes": list(run.classes),
        "image_px": list(run.image_px),
        "mpp": run.mpp,
        "images": list(run.images),
        **({"latents": run.latents.as_json()} if run.latents else {}),
        "step": trained.step,
        "is_ema": trained.is_ema,
        "digest": trained.digest,
        "run_digest": run.digest,
        "config": run.config.as_shared_json(),
    }
    flat = flatten_network(trained.params, trained.model_state)
    write_parameters(arguments.out, flat, about)
    console.print(f"{arguments.out}: step {trained.step}, {len(flat)} arrays, digest {trained.digest[:16]}")
    return ExitCode.OK
